#!/usr/bin/env bash
# Runs the tests. Arguments go to pytest: bash scripts/test.sh -k split
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
setup

cd -- "$ROOT"
if [[ $# -eq 0 ]]; then set -- tests; fi
exec "$PY" -m pytest -q "$@"
