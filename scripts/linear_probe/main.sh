#!/usr/bin/env bash
# A linear probe on all labelled training images: a reference with labels.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/linear_probe/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again, an interrupted one resumes.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
