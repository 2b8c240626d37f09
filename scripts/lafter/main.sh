#!/usr/bin/env bash
# LaFTer: a classifier trained on text, then visual prompts and norms on unlabelled images.
#
#   bash scripts/lafter/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run lafter`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run lafter "$@"
