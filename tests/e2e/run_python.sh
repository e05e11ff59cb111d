#!/bin/bash
# Runs one test module with Debian's Python (the one that has NumPy), from Bazel's runfiles or from the checkout.
# usage: run_python.sh MODULE.py [unittest arguments]
set -euo pipefail
here=$(dirname "$0")
module=$1
shift
PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" exec /usr/bin/python3 -u "$here/$module" -v "$@"
