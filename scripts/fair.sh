#!/usr/bin/env bash
# The command `fair` of this checkout, from any folder: bash scripts/fair.sh COMMAND ...   (--help lists the commands)
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
setup
SELF=$ROOT/scripts/fair.sh
FAIR_COMMAND="bash $(printf %q "${SELF#"$PWD"/}")" # how messages name it
export FAIR_COMMAND
exec "$PY" -m fairclip "$@"
