#!/usr/bin/env bash
# MUST, without its masked-image part: self-training with a moving-average teacher.
#
#   bash scripts/must/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run must`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run must "$@"
