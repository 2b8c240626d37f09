#!/usr/bin/env bash
# DPA: self-training with dual prototypes, of texts and of images.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/dpa/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again, an interrupted one resumes.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
