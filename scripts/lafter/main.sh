#!/usr/bin/env bash
# LaFTer: a classifier trained on text, then visual prompts and norms on unlabelled images.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/lafter/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again, an interrupted one resumes.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
