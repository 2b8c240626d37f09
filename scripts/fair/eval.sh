#!/usr/bin/env bash
# Tests saved FAIR runs again, without training: bash scripts/fair/eval.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
# It is `fair eval`; --help explains the arguments.
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" eval "$@"
