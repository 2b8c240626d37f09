#!/usr/bin/env bash
# FAIR beside zero-shot CLIP and plain self-training, and a table of all.
#
#   bash scripts/fair/main.sh DATASET [CFG] [SEED...] [--quick] [-- KEY VALUE...]    # `fair run fair`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run fair "$@"
