# shellcheck shell=bash
# Shared by the scripts, which source it: their arguments, and the training runs.
#
#   DATASET [CFG] [SEED...] [-- KEY VALUE...]
#
#   DATASET    a file of configs/datasets/, or synth_cars_s<N>: the built-in set rendered with SYNTH_SEED N
#   CFG        a file of configs/trainers/<Trainer>/; default tiny for built-in data, vit_b32 otherwise
#   SEED       default 1 2 3
#   KEY VALUE  any config keys, as for train.py
#
#   DATA       the folder with all data sets  (default: data/ of this repository)
#   OUTPUT     the folder for the results     (default: output/ of this repository)
#   TAG        results go to <CFG>_<TAG> instead of <CFG>; needed with KEY VALUE
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

export METHODS_FILE=${METHODS_FILE:-$ROOT/scripts/methods.txt} # compare.py reads it too
NEED_TAG=yes # eval.sh changes it

# choices FOLDER: the names of its .yaml files, on one line.
choices() {
    local file names=()
    for file in "$1"/*.yaml; do
        names+=("$(basename -- "$file" .yaml)")
    done
    printf '%s' "${names[*]}"
}

# data_sets: what DATASET may be, on one line.
data_sets() {
    printf '%s synth_cars_s<N>' "$(choices "$ROOT/configs/datasets")"
}

# dataset NAME: sets DATASET, its file DATASET_CFG, and CFG and OPTS to what goes with it.
dataset() {
    DATASET=$1 DATASET_CFG=$1 CFG=vit_b32 OPTS=()
    if [[ $DATASET =~ ^synth_cars_s([1-9][0-9]*)$ ]]; then
        DATASET_CFG=synth_cars
        OPTS+=(DATASET.SYNTH_SEED "${BASH_REMATCH[1]}")
    fi
    if [[ $DATASET_CFG == synth_* ]]; then CFG=tiny; fi
    [[ -f $ROOT/configs/datasets/$DATASET_CFG.yaml ]] ||
        die "Unknown data set '$DATASET'. Choose one of: $(data_sets)"
}

# variants: what methods.txt appends to the config in the folders of some methods' runs, one a line.
variants() {
    sed -n 's/^[a-z0-9_]* *|[^|]*| *\([^| ][^| ]*\) *|.*/\1/p' "$ROOT/scripts/methods.txt"
}

# check_options KEY VALUE...: what follows --, and TAG.
check_options() {
    [[ $(($# % 2)) -eq 0 ]] || die "The options after -- come in pairs, KEY VALUE. Got: $*"
    [[ $# -eq 0 || -n ${TAG:-} || $NEED_TAG == no ]] ||
        die "Options after -- make another experiment, which needs a folder of its own: TAG=name bash $0 ..."
    if [[ $NEED_TAG == yes ]]; then # to evaluate them is fine
        local variant
        for variant in $(variants); do
            [[ _${TAG:-} != *_"$variant" ]] ||
                die "TAG=$TAG ends in '$variant', as a variant's folders do (scripts/methods.txt). Choose another name."
        done
    fi
    [[ ${TAG:-} =~ ^[A-Za-z0-9._-]*$ ]] || die "TAG is '$TAG'. Use letters, digits, dots, dashes and underscores."
}

# check_data: sets DATA and OUTPUT. The built-in data set is made on demand. Any other folder that was named must be there:
# it may be a typo.
check_data() {
    DATA=${DATA:-$ROOT/data} OUTPUT=${OUTPUT:-$ROOT/output}
    [[ -d $DATA || $DATA == "$ROOT/data" || $DATASET_CFG == synth_* ]] ||
        die "DATA=$DATA does not exist. It should be the folder that holds all data sets."
}

# parse TRAINER ARGUMENT...: checks the arguments and sets DATASET, DATASET_CFG, CFG, SEEDS, OPTS, DATA and OUTPUT.
parse() {
    local configs=$ROOT/configs/trainers/$1
    shift
    [[ $# -gt 0 && $1 != -h && $1 != --help ]] ||
        usage "${1:-}" "usage: [DATA=folder] [OUTPUT=folder] ${CALL:-bash $0} DATASET [CFG] [SEED...] [-- KEY VALUE...]
  DATASET  $(data_sets)
  CFG      $(choices "$configs")  (default: tiny for built-in data, vit_b32 otherwise)
  SEED     whole numbers  (default: 1 2 3)"

    dataset "$1"
    SEEDS=()
    shift
    if [[ $# -gt 0 && $1 != -- && ! $1 =~ ^[0-9]+$ ]]; then
        CFG=$1
        shift
    fi
    [[ -f $configs/$CFG.yaml ]] || die "Unknown config '$CFG'. Choose one of: $(choices "$configs")"

    while [[ $# -gt 0 && $1 != -- ]]; do
        [[ $1 =~ ^[0-9]+$ ]] || die "'$1' is not a seed: seeds are whole numbers. Config options go after --"
        SEEDS+=("$1")
        shift
    done
    if [[ ${#SEEDS[@]} -eq 0 ]]; then SEEDS=(1 2 3); fi

    if [[ $# -gt 0 ]]; then shift; fi # the --
    check_options "$@"
    OPTS+=("$@")
    check_data
}

# method NAME: sets TRAINER, VARIANT and EXTRA (config keys) as methods.txt says; fails for a name that is not there.
method() {
    local name _ options
    while IFS='|' read -r name TRAINER VARIANT _ _ options; do
        if [[ ${name//[[:space:]]/} == "$1" ]]; then
            TRAINER=${TRAINER//[[:space:]]/} VARIANT=${VARIANT//[[:space:]]/}
            read -r -a EXTRA <<<"$options"
            return
        fi
    done <"$METHODS_FILE"
    return 1
}

# once TRAINER: whether it runs once because its result does not depend on the seed, as methods.txt says.
once() {
    grep -Eq "^[^#|]*\| *$1 *\|[^|]*\| *(once|zero-shot) *\|" "$METHODS_FILE"
}

# folder TRAINER SEED [VARIANT]: where that run writes.
folder() {
    printf '%s/%s/%s/%s/seed%s' "$OUTPUT" "$DATASET" "$1" "$CFG${TAG:+_$TAG}${3:+_$3}" "$2"
}

# training TRAINER SEED [VARIANT KEY VALUE...]: sets COMMAND, which trains and tests one run. It leaves a finished run as it
# is, and refuses one of other settings.
training() {
    local trainer=$1 seed=$2 variant=${3:-}
    shift $(($# > 2 ? 3 : 2))
    # ${OPTS[@]+...}: bash before 4.4 takes an empty array for an unset variable.
    COMMAND=("$PY" "$ROOT/train.py" --root "$DATA" --output-dir "$(folder "$trainer" "$seed" "$variant")" --seed "$seed"
        --trainer "$trainer" --dataset-config-file "$ROOT/configs/datasets/$DATASET_CFG.yaml"
        --config-file "$ROOT/configs/trainers/$trainer/$CFG.yaml" ${OPTS[@]+"${OPTS[@]}"} "$@")
}

# run TRAINER [VARIANT KEY VALUE...]: trains and tests every seed. A zero-shot result does not depend on the seed, so those
# trainers run once.
run() {
    local trainer=$1 variant=${2:-} seed seeds=("${SEEDS[@]}")
    shift $(($# > 1 ? 2 : 1))
    if once "$trainer"; then seeds=("${SEEDS[0]}"); fi
    for seed in "${seeds[@]}"; do
        echo "=== $trainer${variant:+ ($variant)}, $DATASET, $CFG, seed $seed"
        training "$trainer" "$seed" "$variant" "$@"
        "${COMMAND[@]}"
    done
}

# table: the results of this data set and config.
table() {
    "$PY" "$ROOT/scripts/compare.py" "$OUTPUT" --datasets "$DATASET/$CFG${TAG:+_$TAG}" --by-seed
}
