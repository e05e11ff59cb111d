#!/bin/bash
# Unit tests of the baselines' arithmetic and of the curve's interpolation.
set -euo pipefail
here="$(dirname "$0")"
# The commands find their files when `bazel run` starts them, outside of the runfiles.
bin=$(mktemp -d "${TEST_TMPDIR:-/tmp}/quality.XXXXXX")
trap 'rm -rf "$bin"' EXIT
for name in curve levels; do
  mkdir "$bin/$name.runfiles"
  ln -s "$PWD" "$bin/$name.runfiles/kvstream"
  ln -s "$(realpath -s "$here/$name.sh")" "$bin/$name"
  (cd / && "$bin/$name" --help >/dev/null)
done
PYTHONPATH="$here:$here/baselines" /usr/bin/python3 "$here/curve_unit_test.py" "$@"
