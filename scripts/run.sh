#!/usr/bin/env bash
# Trains and tests one trainer: bash scripts/run.sh TRAINER DATASET [CFG] [SEED...] [-- KEY VALUE...]
# It is `fair run --trainer`; --help explains the arguments.
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/fair.sh" run --trainer "$@"
