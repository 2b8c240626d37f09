#!/usr/bin/env bash
# CoOp-style prompt learning on a few labelled images: a reference with labels.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/coop/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again, an interrupted one resumes.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
