#!/usr/bin/env bash
# UPL: a prompt learned from the surest zero-shot predictions of each class.
#
#   bash scripts/upl/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run upl`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run upl "$@"
