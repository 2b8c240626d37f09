#!/usr/bin/env bash
# TransCLIP, zero-shot: Gaussians fitted to all test images at once (transductive).
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/transclip/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
