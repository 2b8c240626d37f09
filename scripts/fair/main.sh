#!/usr/bin/env bash
# FAIR beside what it is measured against, and a table of all four: zero-shot CLIP by class names and by descriptions,
# plain self-training on the whole image (FAIR without crops and weights), FAIR.
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/fair/main.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. A finished run is not run again, an interrupted one resumes.
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
parse FAIR "$@"
setup

# The row of descriptions goes by those that FAIR is given.
described=()
for ((i = 0; i < ${#OPTS[@]}; i += 2)); do
    if [[ ${OPTS[i]} == TRAINER.FAIR.DESCRIPTIONS ]]; then described=(TRAINER.CUPL.DESCRIPTIONS "${OPTS[i + 1]}"); fi
done

run ZeroshotCLIP
run CuPL "" ${described[@]+"${described[@]}"}
run FAIR plain TRAINER.FAIR.N_CROPS 0 TRAINER.FAIR.WEIGHT none TRAINER.FAIR.CROP_INFERENCE False
run FAIR
table
