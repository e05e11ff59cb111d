#!/usr/bin/env bash
# From a bare Debian 12 to a KVStream that a real model uses: installs what is missing, builds, starts kvstreamd on an embedded RocksDB,
# stores the KV caches of real contexts at several levels and loads them back over links of several speeds.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: deploy/quickstart.sh [--data-dir DIR] [--links 5,20,100,500] [--deadline-ms 250] [--json FILE] [--keep-running] [--no-install]

  --data-dir DIR     keep the store in DIR (default: a fresh temporary directory, removed at the end)
  --links LIST       link speeds in Mbit/s to load over (through `kvstreamctl relay`; no root needed)
  --deadline-ms MS   load delay that the loads ask for
  --json FILE        also write the figures to FILE
  --keep-running     leave the daemon running at the end and print its address (end it with the kill command that is printed)
  --no-install       do not look for missing Debian packages

Needs Debian 12 and root or sudo for packages that are missing; everything else runs as the calling user, on loopback ports
that the system picks. Nothing is left running or on disk at the end unless you asked for it.
TEXT
}

data_dir=""
keep_running=0
install=1
arguments=()
while (($#)); do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --data-dir | --links | --deadline-ms | --json)
      (($# >= 2)) || { echo "quickstart: $1 needs a value; see --help" >&2; exit 2; }
      case $1 in
        --data-dir) data_dir=$(realpath -m "$2") ;;
        --json) arguments+=("$1" "$(realpath -m "$2")") ;;
        *) arguments+=("$1" "$2") ;;
      esac
      shift 2 ;;
    --keep-running) keep_running=1; shift ;;
    --no-install) install=0; shift ;;
    *) echo "quickstart: unknown argument '$1'; see --help" >&2; exit 2 ;;
  esac
done

cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/kvstream-quickstart.XXXXXX")
[[ -n $data_dir ]] || data_dir=$work/data
daemon=""

cleanup() {
  local status=$?
  trap - EXIT INT TERM
  if [[ -n $daemon ]] && { ((status != 0)) || ((!keep_running)); }; then
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" 2>/dev/null || true
    daemon=""
  fi
  if [[ -n $daemon ]]; then
    echo "quickstart: the daemon keeps running as process $daemon, its files are in $work and $data_dir; end it with: kill $daemon"
  else
    rm -rf "$work"
  fi
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { echo "==> [$((SECONDS / 60))m$((SECONDS % 60))s] $*"; }
fail() { echo "quickstart: $*" >&2; exit 1; }

if ((install)); then
  step "Debian packages (deploy/packages.txt; nothing to do if all are there)"
  bash deploy/install_packages.sh || fail "the packages could not be installed; see the message above"
fi
command -v bazel >/dev/null || fail "bazel is not installed; run without --no-install"

step "build (the first one takes some minutes; later ones seconds)"
bazel build --color=no --curses=no --show_progress_rate_limit=20 //server:kvstreamd //client:kvstreamctl //client/python:kvstream >"$work/build.log" 2>&1 &
build=$!
while kill -0 "$build" 2>/dev/null; do
  sleep 5
  progress=$(grep -oE '^\[[0-9,]+ / [0-9,]+\]' "$work/build.log" | tail -1 || true)
  [[ -z $progress || $progress == "${last_progress:-}" ]] || echo "    $progress actions"
  last_progress=$progress
done
wait "$build" || { tail -40 "$work/build.log" >&2; fail "the build failed; its last lines are above"; }
bin=$(bazel info --color=no bazel-bin 2>/dev/null)

step "kvstreamd on RocksDB in $data_dir"
mkdir -p "$data_dir"
"$bin/server/kvstreamd" --data-dir "$data_dir" --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --ports-file "$work/ports.json" \
  >"$work/kvstreamd.log" 2>&1 &
daemon=$!
for _ in $(seq 300); do
  [[ -e $work/ports.json ]] && break
  kill -0 "$daemon" 2>/dev/null || { cat "$work/kvstreamd.log" >&2; fail "kvstreamd ended at its start; its log is above"; }
  sleep 0.1
done
[[ -e $work/ports.json ]] || { cat "$work/kvstreamd.log" >&2; fail "kvstreamd did not open its ports within 30 s; its log is above"; }

# Debian's python3 has NumPy; another python3 that comes first in PATH may not.
PYTHONPATH="$bin/client/python" /usr/bin/python3 -u deploy/quickstart/quickstart.py --ports "$work/ports.json" \
  --kvstreamctl "$bin/client/kvstreamctl" --work "$work" ${arguments[@]+"${arguments[@]}"} ||
  { tail -5 "$work/kvstreamd.log" >&2; fail "the demonstration failed; see the message above (and the daemon's last log lines)"; }

step "done"
cat <<TEXT
Where to go next
  README.md            what the figures mean and how to reproduce each
  docs/operations.md   options, metrics, limits and failure policies of the daemon
  docs/format.md       the bytes of profiles, chunks and chunk ids
  docs/client.md       the C++ and Python API (deploy/quickstart/quickstart.py uses the latter)
  docs/streaming.md    how a load picks its levels and what it recomputes
  bazel run //tests/quality:levels    every level's rate and quality on eight contexts
  tests/run.sh         every test
TEXT
