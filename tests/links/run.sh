#!/usr/bin/env bash
# Loads over real packets: two network namespaces, a veth pair shaped by tc tbf after the traces of tests/links/traces, kvstreamd in one and a client in the
# other. Needs root. docs/links.md, "Real packets", says what the link is made of.
#
# usage: tests/links/run.sh [--quick] [--dry] [--per-family N] [--families constant,steps,...] [--congestion cubic|bbr|reno] [--seed N] [--json FILE]
#                           [--stretch N]   links N times slower yet: the context stands for one that is N times longer
#                           [--keep-window] the server's net.ipv4.tcp_slow_start_after_idle is 0
#   --quick   a short run that asserts and reports nothing else, for CI
#   --dry     print the tables; without it docs/links.md and its pictures are rewritten
#
# Exit status 0: done; 77: this machine cannot make the link (said loudly); anything else: a failure. Whatever happens, the namespaces, their processes and the
# files are gone afterwards; those of a run that was killed outright go with the next one.
set -euo pipefail
cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../.."

for argument in "$@"; do
  if [[ $argument == --help || $argument == -h ]]; then
    sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
  fi
done

prefix=kvs-links
server=$prefix-s-$$
client=$prefix-c-$$
work=""

# Ends what runs in a namespace of ours, which is nothing but what we started there, and removes it.
remove_space() {
  local pid
  ip netns list 2>/dev/null | grep -qw -- "$1" || return 0
  for pid in $(ip netns pids "$1" 2>/dev/null); do
    kill -KILL "$pid" 2>/dev/null || true
  done
  ip netns delete "$1" 2>/dev/null || true
}

cleanup() {
  local status=$?
  trap - EXIT INT TERM HUP
  if [[ -n ${driver:-} ]]; then
    kill -TERM "$driver" 2>/dev/null || true
    wait "$driver" 2>/dev/null || true
  fi
  remove_space "$server"
  remove_space "$client"
  [[ -z $work ]] || rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

skip() {
  echo "run.sh: SKIPPED, NOTHING WAS TESTED: $*" >&2
  exit 77
}

# What a run that was killed has left.
for space in $(ip netns list 2>/dev/null | awk '{print $1}' | grep -E "^$prefix-[sc]-[0-9]+$" || true); do
  [[ -d /proc/${space##*-} ]] || remove_space "$space"
done

(($(id -u) == 0)) || skip "not root"
command -v tc >/dev/null && command -v ip >/dev/null && command -v ss >/dev/null || skip "iproute2 is not installed"
[[ -c /dev/net/tun ]] || skip "there is no /dev/net/tun"
ip netns add "$server" 2>/dev/null || skip "network namespaces cannot be made here"
ip netns add "$client"
ip -n "$server" link add kprobe type veth peer name kprobe2 2>/dev/null || skip "veth devices cannot be made here"
tc -n "$server" qdisc add dev kprobe root tbf rate 1mbit burst 4kb limit 64kb 2>/dev/null || skip "this kernel has no tc tbf"
ip -n "$server" link delete kprobe

bazel build -c opt --color=no --curses=no --noshow_progress --ui_event_filters=-info \
  //server:kvstreamd //client:kvstreamctl //client/python:kvstream //tests/links:delay_tun //tests/links:packets_plan //tests/links/traces
bin=$(bazel info -c opt --color=no bazel-bin 2>/dev/null)
work=$(mktemp -d "${TMPDIR:-/tmp}/kvstream-links.XXXXXX")

# In the background, so that signals reach this shell while it runs.
PYTHONPATH="$bin/client/python" /usr/bin/python3 -u tests/links/packets.py --bin "$bin" --traces "$bin/tests/links/traces" --work "$work" \
  --server-space "$server" --client-space "$client" "$@" &
driver=$!
status=0
wait "$driver" || status=$?
driver=""
if ((status != 0)) && [[ -e $work/kvstreamd.log ]]; then
  tail -5 "$work/kvstreamd.log" >&2
fi
exit "$status"
