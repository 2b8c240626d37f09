#!/usr/bin/env bash
# Methods head to head: trains and tests what is missing, on all data sets with all seeds, then prints the table and writes
# it, with a report for looking at, to OUTPUT/comparison.md and OUTPUT/comparison.html (docs/comparing.md).
#
#   [DATA=folder] [OUTPUT=folder] bash scripts/compare.sh DATASET... [--methods A,B,...] [--seeds N...] [--cfg CFG]
#                                                         [--jobs N] [--print] [--published] [-- KEY VALUE...]
#
#   DATASET      data sets, as scripts/common.sh explains
#   --methods    names of scripts/methods.txt  (default: all that have the config)
#   --seeds      default: 1 2 3
#   --cfg        a file of configs/trainers/<Trainer>/  (default: tiny for built-in data, vit_b32 otherwise)
#   --jobs       how many runs at a time  (default: 1)
#   --print      run nothing: print the commands of the missing runs, one a line. They do not depend on one another.
#   --published  published numbers below ours
#   KEY VALUE    config keys for all runs, with TAG=name
#
# A run is finished when its results.json is there; an interrupted one goes on. What a run says goes to compare.log in its
# folder. Trainers test after each epoch too, for learning curves. A failed run is named at the end, the others go on, and
# the exit status is then 1.
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

# explain ARGUMENT: the usage, as above.
explain() {
    usage "$1" "$(sed -n '/^#   \[DATA/,/^#   KEY/s/^#  \{0,1\}//p' "${BASH_SOURCE[0]}")
   data sets: $(data_sets)
   methods:   $(all_methods)"
}

all_methods() {
    sed -n 's/^\([a-z0-9_]*\) *|.*/\1/p' "$METHODS_FILE" | tr '\n' ' '
}

# unique WORD...: each once.
unique() {
    printf '%s\n' "$@" | awk '!seen[$0]++' | tr '\n' ' '
}

# Arguments

sets=() methods='' seeds=() cfg='' jobs=1 print=no table=()
while [[ $# -gt 0 && $1 != -- ]]; do
    case $1 in
    -h | --help) explain "$1" ;;
    --methods | --cfg | --jobs)
        [[ $# -gt 1 && $2 != -* ]] || die "$1 needs a value."
        case $1 in --cfg) cfg=$2 ;; --jobs) jobs=$2 ;; *) methods=${2//,/ } ;; esac
        shift
        ;;
    --seeds)
        while [[ $# -gt 1 && $2 =~ ^[0-9]+$ ]]; do
            seeds+=("$2")
            shift
        done
        [[ ${#seeds[@]} -gt 0 ]] || die "--seeds needs whole numbers, as in: --seeds 1 2 3"
        ;;
    --print) print=yes ;;
    --published) table+=(--published) ;;
    -*) die "Unknown option '$1'. See: bash $0 --help" ;;
    *) sets+=("$1") ;;
    esac
    shift
done
if [[ ${#sets[@]} -eq 0 ]]; then explain ''; fi
if [[ ${#seeds[@]} -eq 0 ]]; then seeds=(1 2 3); fi
[[ $jobs =~ ^[1-9][0-9]*$ ]] || die "--jobs is '$jobs'. It takes a whole number above 0, how many runs at a time."
read -r -a sets <<<"$(unique "${sets[@]}")"
read -r -a seeds <<<"$(unique "${seeds[@]}")"
if [[ $# -gt 0 ]]; then shift; fi # the --
check_options "$@"
more=("$@")
chosen=yes
if [[ -z $methods ]]; then chosen=no methods=$(all_methods); fi
# shellcheck disable=SC2086 # words
methods=$(unique $methods)

# each ACTION [finished]: calls ACTION for every run that is not finished (or for every one that is), with what describes it
# in DATASET, METHOD, SEED and COMMAND.
each() {
    local name some state
    for name in "${sets[@]}"; do
        dataset "$name"
        CFG=${cfg:-$CFG} OPTS+=(TEST.EVERY_EPOCH True ${more[@]+"${more[@]}"})
        for METHOD in $methods; do
            method "$METHOD"
            some=("${seeds[@]}")
            if [[ ! -f $ROOT/configs/trainers/$TRAINER/$CFG.yaml ]]; then continue; fi
            if once "$TRAINER"; then
                some=("${seeds[0]}")
                if finished seed*; then some=("$FOUND"); fi
            fi
            for SEED in "${some[@]}"; do
                state=missing
                if finished "seed$SEED"; then state=finished; fi
                if [[ $state != "${2:-missing}" ]]; then continue; fi
                training "$TRAINER" "$SEED" "$VARIANT" ${EXTRA[@]+"${EXTRA[@]}"}
                "$1"
            done
        done
    done
}

# finished PATTERN: whether a run folder of this method whose name is like PATTERN holds results. Sets FOUND, its seed.
finished() {
    local file
    # shellcheck disable=SC2231 # the pattern is one
    for file in "$(dirname -- "$(folder "$TRAINER" 0 "$VARIANT")")"/$1/results.json; do
        if [[ -f $file ]]; then
            FOUND=${file%/results.json}
            FOUND=${FOUND##*/seed}
            return
        fi
    done
    return 1
}

# Checks, before anything runs. Methods that were named must have the config; of all, those that have it are taken.
for METHOD in $methods; do
    method "$METHOD" || die "Unknown method '$METHOD'. Choose from: $(all_methods)"
done
shown=() kept='' # kept: with commas
for name in "${sets[@]}"; do
    dataset "$name"
    check_data
    CFG=${cfg:-$CFG}
    shown+=("$DATASET/$CFG${TAG:+_$TAG}")
    without=''
    for METHOD in $methods; do
        method "$METHOD"
        if [[ -f $ROOT/configs/trainers/$TRAINER/$CFG.yaml ]]; then
            if [[ ,$kept, != *",$METHOD,"* ]]; then kept+=${kept:+,}$METHOD; fi
        else
            [[ $chosen == no ]] || die "'$METHOD' has no config '$CFG'. It has: $(choices "$ROOT/configs/trainers/$TRAINER")"
            without+=" $METHOD"
        fi
    done
    if [[ -n $without ]]; then echo "$DATASET: there is no config '$CFG' of$without: left out." >&2; fi
done
[[ -n $kept ]] || die "No method has the config '$cfg'."
# A command that --print shows may run from anywhere.
[[ $OUTPUT == /* ]] || OUTPUT=$PWD/$OUTPUT
[[ $DATA == /* ]] || DATA=$PWD/$DATA
setup

# Config keys must exist, and what is finished must have these settings: it is not run again.
have=()
note() { have+=("${#COMMAND[@]}" "${COMMAND[@]}"); }
each note finished
if [[ ${#more[@]} -gt 0 || ${#have[@]} -gt 0 ]]; then
    "$PY" "$ROOT/scripts/check_options.py" ${more[@]+"${more[@]}"} < <(printf '%s\0' ${have[@]+"${have[@]}"}) >&2
fi

show() {
    local line
    line=$(printf ' %q' "${COMMAND[@]}")
    echo "${line# }"
}
if [[ $print == yes ]]; then
    each show
    exit
fi

# Runs

total=0 number=0 failed=() ready=''
pids=() folders=() names=() # of the runs under way

count() { total=$((total + 1)); }
each count

# progress: one line on what runs; on a terminal it is written over.
progress() {
    local line others=$((${#names[@]} - 1))
    line=$(printf '[%d/%d] %s, %d:%02d:%02d' "$number" "$total" "${names[others]}" \
        $((SECONDS / 3600)) $((SECONDS / 60 % 60)) $((SECONDS % 60)))
    if [[ $others -gt 0 ]]; then line+=", $others more under way"; fi
    if [[ -t 2 ]]; then printf '\r%.*s\033[K' "$((width - 1))" "$line" >&2; else echo "$line" >&2; fi
}

# Stopped by a signal, a run goes on from its last epoch the next time. Bash keeps Ctrl-C from what runs in the background,
# so the runs are told here.
stop() {
    kill ${pids[@]+"${pids[@]}"} 2>/dev/null || true
    printf '\nStopped. The same command goes on from here.\n' >&2
    exit 130
}
trap stop INT TERM HUP

# until_below N: waits until fewer than N runs are under way.
until_below() {
    local i
    while true; do
        for i in ${pids[@]+"${!pids[@]}"}; do
            if ! kill -0 "${pids[i]}" 2>/dev/null; then ended "$i"; fi
        done
        pids=(${pids[@]+"${pids[@]}"}) folders=(${folders[@]+"${folders[@]}"}) names=(${names[@]+"${names[@]}"})
        if [[ ${#pids[@]} -lt $1 ]]; then return; fi
        if [[ -t 2 ]]; then progress; fi
        sleep 0.2
    done
}

# ended I: takes the I-th run off the list, and notes it if it failed.
ended() {
    local line status=0 log=${folders[$1]}/compare.log
    wait "${pids[$1]}" || status=$?
    if [[ $status -ne 0 || ! -f ${folders[$1]}/results.json ]]; then
        if [[ $status -eq 0 ]]; then
            line="it wrote no results.json; trainers that derive from trainers/base.py do"
        else
            line=$(grep -m 1 '^Error: ' -- "$log" || tail -n 1 -- "$log")
        fi
        failed+=("${names[$1]} (exit status $status): $line
    $log")
    fi
    unset "pids[$1]" "folders[$1]" "names[$1]"
}

work() {
    local folder
    folder=$(folder "$TRAINER" "$SEED" "$VARIANT")
    mkdir -p -- "$folder"
    until_below "$jobs"
    number=$((number + 1))
    "${COMMAND[@]}" >"$folder/compare.log" 2>&1 </dev/null &
    pids+=($!) folders+=("$folder") names+=("$DATASET, $METHOD, seed $SEED")
    progress
    # The first run draws or checks the images and fetches the backbone for the others.
    if [[ $DATASET != "$ready" ]]; then until_below 1; fi
    ready=$DATASET
}
width=$(tput cols 2>/dev/null || echo 80)
each work
until_below 1
if [[ -t 2 && $total -gt 0 ]]; then printf '\r\033[K' >&2; fi
trap - INT TERM HUP

report=$(basename -- "$METHODS_FILE" .txt)
if [[ $report == methods ]]; then report=comparison; fi
status=0
"$PY" "$ROOT/scripts/compare.py" "$OUTPUT" --datasets "${shown[@]}" --methods "$kept" --seeds "${seeds[@]}" \
    --data "$DATA" ${table[@]+"${table[@]}"} --output "$OUTPUT/$report.md" "$OUTPUT/$report.html" || status=$?
if [[ ${#failed[@]} -gt 0 ]]; then
    printf '\n%d of %d runs failed:\n' "${#failed[@]}" "$total" >&2
    printf '  %s\n' "${failed[@]}" >&2
    exit 1
fi
exit "$status"
