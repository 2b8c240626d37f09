#!/usr/bin/env bash
# Trains and tests one trainer:
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/run.sh TRAINER DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# TRAINER is a folder of configs/trainers/; scripts/common.sh explains the rest.
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

trainers=$(cd -- "$ROOT/configs/trainers" && echo *)
[[ $# -gt 0 && $1 != -h && $1 != --help ]] ||
    usage "${1:-}" "usage: bash $0 TRAINER DATASET [CFG] [SEED...] [-- KEY VALUE...]
  TRAINER  $trainers"
[[ -n $1 && -d $ROOT/configs/trainers/$1 ]] || die "Unknown trainer '$1': there is no configs/trainers/$1/. Choose one of: $trainers"
CALL="bash $0 $1"
parse "$@"
setup

run "$1"
