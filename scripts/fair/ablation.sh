#!/usr/bin/env bash
# FAIR's parts one at a time: the rows of configs/ablation.txt, as bash scripts/fair/ablation.sh synth_cars
# It is `fair compare --table ablation`; --help explains the arguments.
exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../fair.sh" compare --table ablation "$@"
