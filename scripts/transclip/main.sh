#!/usr/bin/env bash
# TransCLIP, zero-shot: Gaussians fitted to all test images at once (transductive).
#
#   bash scripts/transclip/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run transclip`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run transclip "$@"
