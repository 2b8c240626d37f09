#!/usr/bin/env bash
# Tests saved FAIR runs again, without training:
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/fair/eval.sh DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
# scripts/common.sh explains the arguments. The settings are those saved with the run, changed by any options after --,
# such as TRAINER.FAIR.CROP_INFERENCE True. TAG=plain and TAG=aligned name the runs of plain self-training that main.sh
# trains beside FAIR (TAG=mine_plain those of TAG=mine). The log goes to the run's folder, under eval/.
source "$(dirname -- "${BASH_SOURCE[0]}")/../common.sh"
NEED_TAG=no # a test changes nothing in the run
parse FAIR "$@"

tag=_${TAG:-} # of the main.sh that trained it
for variant in $(variants); do tag=${tag%"_$variant"}; done
tag=${tag#_}
for seed in "${SEEDS[@]}"; do
    saved=$(folder FAIR "$seed")
    [[ -f $saved/config.yaml ]] ||
        die "No run in $saved. Train it first: ${tag:+TAG=$tag }bash scripts/fair/main.sh $DATASET $CFG $seed"
done
setup

for seed in "${SEEDS[@]}"; do
    saved=$(folder FAIR "$seed")
    echo "=== Test of $saved"
    "$PY" "$ROOT/train.py" --eval-only --model-dir "$saved" --output-dir "$saved/eval" --root "$DATA" --seed "$seed" \
        --trainer FAIR --config-file "$saved/config.yaml" ${OPTS[@]+"${OPTS[@]}"}
done
