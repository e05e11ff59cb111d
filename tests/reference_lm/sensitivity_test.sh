#!/bin/bash
# The gradients behind the sensitivities, against finite differences.
set -euo pipefail
exec /usr/bin/python3 "$(dirname "$0")/sensitivity.py" --check
