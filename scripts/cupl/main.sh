#!/usr/bin/env bash
# CuPL: zero-shot CLIP with class descriptions.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/cupl/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. Nothing is trained, so only the first seed runs.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
