#!/usr/bin/env bash
# The command `fair` of this checkout, from any folder: bash scripts/fair.sh COMMAND ...   (--help lists the commands)
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
setup
exec "$PY" -m fairclip "$@"
