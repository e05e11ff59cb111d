#!/bin/bash
# bazel run -c opt //tests/links:share -- [--seed=N] [--rounds=N]
set -euo pipefail
# `bazel run` starts it in its runfiles.
cd tests/links
exec ./share_main --traces="$(dirname "$(realpath traces/final_constant_00.trace)")" "$@"
