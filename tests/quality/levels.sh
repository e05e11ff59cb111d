#!/bin/bash
# Runs levels.py with Debian's Python (the one that has NumPy), from Bazel's runfiles or from the checkout.
set -euo pipefail
here=$(dirname "$0")
# `bazel run` starts what lies beside the runfiles, `bazel test` what lies in them.
[[ ! -d $0.runfiles ]] || here=$0.runfiles/kvstream/tests/quality
exec /usr/bin/python3 "$here/levels.py" "$@"
