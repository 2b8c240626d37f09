#!/usr/bin/env bash
# Zero-shot CLIP: with one template, with the template ensemble, and with class descriptions (CuPL).
#
#   bash scripts/zsclip/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]    # `fair run zsclip`; --help explains it
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" run zsclip "$@"
