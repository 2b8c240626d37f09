#!/usr/bin/env bash
# FAIR beside what it is measured against, and a table of all: zero-shot CLIP by class names and by descriptions, plain
# self-training on the whole image (FAIR without crops and weights) without and with alignment of pseudo-labels, FAIR.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/fair/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again, an interrupted one resumes.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
