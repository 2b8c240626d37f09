#!/usr/bin/env bash
# MUST, without its masked-image part: self-training with a moving-average teacher.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/must/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again, an interrupted one resumes.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
