#!/bin/bash
# Runs kvstreamctl_test.py with Debian's Python against the binary of this build.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export KVSTREAMCTL=${KVSTREAMCTL:-$(dirname "$here")/kvstreamctl}
exec /usr/bin/python3 -u "$here/kvstreamctl_test.py" -v "$@"
