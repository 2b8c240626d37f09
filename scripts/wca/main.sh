#!/usr/bin/env bash
# WCA: weighted crops against weighted class descriptions, nothing trained.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/wca/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again.
source "$(dirname -- "${BASH_SOURCE[0]}")/../method.sh"
