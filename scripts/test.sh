#!/usr/bin/env bash
# Runs the tests, two at a time. Arguments go to pytest instead: bash scripts/test.sh -k split
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    usage "$1" "usage: bash $0 [arguments of pytest]
Runs the tests, two at a time; with arguments what they say. Installs what the tests need where it is not there.
  bash $0 -k split    those that have split in their names"
fi
setup dev

cd -- "$ROOT"
# By worksteal the tests of a module mostly stay together, and so do the runs that they share.
if [[ $# -eq 0 ]]; then set -- -n 2 --dist worksteal tests; fi
exec "$PY" -m pytest -q "$@"
