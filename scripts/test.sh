#!/usr/bin/env bash
# Runs the tests, two at a time. Arguments go to pytest instead: bash scripts/test.sh -k split
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
setup dev

cd -- "$ROOT"
if [[ $# -eq 0 ]]; then set -- -n 2 tests; fi
exec "$PY" -m pytest -q "$@"
