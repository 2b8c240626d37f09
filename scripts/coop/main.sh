#!/usr/bin/env bash
# CoOp-style prompt learning on a few labelled images: a reference with labels.
#
#   bash scripts/coop/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run coop`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run coop "$@"
