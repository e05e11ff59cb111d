#!/usr/bin/env bash
# clang-tidy over our translation units (tests and fuzz drivers excepted), findings are errors. Headers are seen through them.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bazel build --color=no --curses=no //proto:kvstream_v1 2>&1 | tail -n 1
generated=$(bazel info bazel-bin 2>/dev/null)/proto
python=$(/usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_paths()["include"])')

mapfile -t sources < <(git ls-files -- '*.cc' | grep -vE '^third_party/|^tests/sanitizers/|_test\.cc$|_benchmark\.cc$|fuzz|testing/|conformance/')
printf '%s\0' "${sources[@]}" | GENERATED=$generated PYTHON=$python xargs -0 -n 1 -P "$(nproc)" bash -c '
  if ! out=$(clang-tidy-14 --quiet "$0" -- -std=c++17 -x c++ -I. -isystem "$GENERATED" -isystem "$PYTHON" -w 2>/dev/null); then
    printf "%s\n" "$out"
    exit 1
  fi'
status=$?
echo "tidy: ${#sources[@]} files"
exit $((status != 0))
