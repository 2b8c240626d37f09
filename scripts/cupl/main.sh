#!/usr/bin/env bash
# CuPL: zero-shot CLIP with class descriptions.
#
#   bash scripts/cupl/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run cupl`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run cupl "$@"
