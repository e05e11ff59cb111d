#!/bin/bash
# Runs one test module with Debian's Python (the one that has NumPy), from Bazel's runfiles or from the checkout.
# usage: run_python.sh MODULE.py [unittest arguments]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
module=$1
shift
# Python resolves a script's symlink, which in runfiles leads back to the checkout; the tests must find the binaries of this build.
export KVSTREAM_TEST_ROOT=${KVSTREAM_TEST_ROOT:-$(dirname "$(dirname "$here")")}
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec /usr/bin/python3 -u "$here/$module" -v "$@"
