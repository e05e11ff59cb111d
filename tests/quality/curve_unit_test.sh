#!/bin/bash
# Unit tests of the baselines' arithmetic and of the curve's interpolation.
set -euo pipefail
here="$(dirname "$0")"
PYTHONPATH="$here:$here/baselines" exec /usr/bin/python3 "$here/curve_unit_test.py" "$@"
