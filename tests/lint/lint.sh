#!/usr/bin/env bash
# The house's rules that a machine can check: formatting, file lengths, no include that goes up or across rooms.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bad=0

mapfile -t sources < <(git ls-files -- '*.cc' '*.h' '*.cu' '*.cuh' | grep -v '^third_party/')
for file in "${sources[@]}"; do
  if ! clang-format-14 --dry-run --Werror "$file" 2>/dev/null; then
    echo "lint: clang-format-14 -i $file" >&2
    bad=1
  fi
done

# Nothing below may include what stands above it (docs: the rooms and their arrows).
forbid() {  # forbid ROOM PATTERN
  if git grep -nE "#include \"($2)/" -- "$1"; then
    echo "lint: $1 must not include $2" >&2
    bad=1
  fi
}
forbid codec 'server|client|storage|proto|kvstream|tests|deploy'
forbid storage 'server|client|codec|proto|kvstream|tests|deploy'
forbid proto 'server|client|codec|storage|tests|deploy'
forbid server 'client|tests|deploy'
forbid client 'server|tests|deploy'
forbid server/load 'server/service|storage|codec|kvstream'
for file in "${sources[@]}"; do
  lines=$(wc -l <"$file")
  if ((lines > 800)); then
    echo "lint: $file has $lines lines; 800 is the limit" >&2
    bad=1
  fi
done

if git grep -nE 'TODO|FIXME|GTEST_SKIP|DISABLED_' -- '*.cc' '*.h' '*.py' '*.proto'; then
  echo "lint: finish it or write an issue" >&2
  bad=1
fi
for script in $(git ls-files -- '*.sh' .ci/run); do
  bash -n "$script" || bad=1
done
exit $bad
