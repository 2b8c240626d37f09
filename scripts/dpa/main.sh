#!/usr/bin/env bash
# DPA: self-training with dual prototypes, of texts and of images.
#
#   bash scripts/dpa/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run dpa`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run dpa "$@"
