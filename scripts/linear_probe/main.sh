#!/usr/bin/env bash
# A linear probe on all labelled training images: a reference with labels.
#
#   bash scripts/linear_probe/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run linear_probe`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run linear_probe "$@"
