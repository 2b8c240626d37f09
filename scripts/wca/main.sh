#!/usr/bin/env bash
# WCA: weighted crops against weighted class descriptions, nothing trained.
#
#   bash scripts/wca/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run wca`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run wca "$@"
