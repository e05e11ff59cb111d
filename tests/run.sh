#!/usr/bin/env bash
# Installs what is missing, builds, and passes every test of KVStream, as root or with sudo on Debian 12.
#
# usage: tests/run.sh [STAGE...]      stages, in their order (default: all)
#   lint   clang-format, file lengths, upward includes
#   test   every test, optimised build
#   links  loads over real packets between network namespaces, the short version; skipped, loudly, where they cannot be made
#   asan   every test but those tagged no-sanitizer, under AddressSanitizer and UBSan, with Clang's thread-safety analysis
#   tsan   what runs threads, under ThreadSanitizer
#   tidy   clang-tidy on our code
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stages=("$@")
((${#stages[@]})) || stages=(lint test links asan tsan tidy)
for stage in "${stages[@]}"; do
  [[ $stage =~ ^(lint|test|links|asan|tsan|tidy)$ ]] || { echo "run.sh: no stage '$stage'; see the head of $0" >&2; exit 2; }
done

bash deploy/install_packages.sh

passed=0
failed=0
log=$(mktemp)
failures=$(mktemp)
trap 'rm -f "$log" "$failures"' EXIT

# Counts one check that has no test runner of its own.
check() {
  local name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    echo "FAILED: $name" >&2
    failed=$((failed + 1))
  fi
}

# Real packets; where the machine cannot make the link (77) nothing is counted.
real_packets() {
  local status=0
  bash tests/links/run.sh --quick || status=$?
  ((status == 77)) || check links test "$status" -eq 0
}

# bazel test, counting its targets by their closing lines.
bazel_test() {
  local status
  set +e
  # Three at a time on two cores: many tests wait for a disk or a clock of their own.
  bazel test --local_test_jobs=3 --keep_going --color=no --curses=no --show_progress_rate_limit=60 "$@" 2>&1 | tee "$log" |
    grep --line-buffered -vE '^\[[0-9,]+ / [0-9,]+\]'
  status=${PIPESTATUS[0]}
  set -e
  local ok bad
  ok=$(grep -cE '^//[^ ]+ +(\(cached\) )?PASSED' "$log" || true)
  bad=$(grep -cE '^//[^ ]+ +(\(cached\) )?(FAILED|TIMEOUT|NO STATUS|FLAKY)' "$log" || true)
  passed=$((passed + ok))
  failed=$((failed + bad))
  if ((status != 0 && bad == 0)); then
    failed=$((failed + 1))  # it did not even build
  fi
  # For the end: what comes between is long, and a later stage writes its logs to the same places.
  local path
  for path in $(grep -oE '^ +/[^ ]+/test\.log$' "$log" || true); do
    { echo "---- $stage: $path"; tail -n 80 "$path"; } >> "$failures"
  done
}

for stage in "${stages[@]}"; do
  echo "==== $stage ($(date +%T))"
  case $stage in
    lint) check lint bash tests/lint/lint.sh ;;
    test) bazel_test //... ;;
    links) real_packets ;;
    asan) bazel_test --config=asan --config=ubsan --build_tests_only --test_tag_filters=-no-sanitizer //... ;;
    tsan) bazel_test --config=tsan "--test_env=TSAN_OPTIONS=suppressions=$PWD/tests/sanitizers/tsan_suppressions.txt" \
        --build_tests_only --test_tag_filters=-no-sanitizer,-no-tsan //storage/... //server/... //client/... //tests/loopback/... //tests/sanitizers/... ;;
    tidy) check tidy bash tests/lint/tidy.sh ;;
  esac
done

echo "==== done ($(date +%T))"
cat "$failures"
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
