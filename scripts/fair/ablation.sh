#!/usr/bin/env bash
# FAIR's parts one at a time: trains and tests the rows of ablation.txt, and writes the table to OUTPUT/ablation.md and
# OUTPUT/ablation.html. Arguments are those of scripts/compare.sh, as in: bash scripts/fair/ablation.sh synth_cars
METHODS_FILE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)/ablation.txt exec \
    bash "$(dirname -- "${BASH_SOURCE[0]}")/../compare.sh" "$@"
