#!/bin/bash
# bazel run -c opt //tests/links:simulate -- [--dry] [--tuning] [--seed=N] [--contexts=N]
set -euo pipefail
# `bazel run` starts it in its runfiles.
cd tests/links
exec /usr/bin/python3 simulate.py ./simulate_main traces/final_constant_00.trace "$@"
