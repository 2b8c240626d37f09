#!/usr/bin/env bash
# UPL: a prompt learned from the surest zero-shot predictions of each class.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/upl/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again, an interrupted one resumes.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
