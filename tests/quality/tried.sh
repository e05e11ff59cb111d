#!/bin/bash
# Runs tried.py with Debian's Python (the one that has NumPy), from Bazel's runfiles or from the checkout.
set -euo pipefail
exec /usr/bin/python3 "$(dirname "$0")/tried.py" "$@"
