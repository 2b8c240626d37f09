#!/usr/bin/env bash
# Zero-shot CLIP: with one template, with the template ensemble, and with class descriptions (CuPL).
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/zsclip/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. Nothing is trained, so only the first seed runs.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
