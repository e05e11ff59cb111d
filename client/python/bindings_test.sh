#!/usr/bin/env bash
# usage: bindings_test.sh TEST.py KVSTREAMD _KVSTREAM.SO
set -euo pipefail
exec /usr/bin/python3 -B "$1" "$2" "$(dirname "$(dirname "$3")")"
