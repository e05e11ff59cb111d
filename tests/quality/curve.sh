#!/bin/bash
# Runs curve.py with Debian's Python (the one that has NumPy and Matplotlib), from Bazel's runfiles or from the checkout.
set -euo pipefail
exec /usr/bin/python3 "$(dirname "$0")/curve.py" "$@"
