# shellcheck shell=bash
# Sourced by scripts/<method>/main.sh: trains and tests that method on one data set, and prints the table of what is finished
# there. methods.txt says what belongs to a method; what FAIR and zero-shot CLIP are run beside is said here.
source "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

name=$(basename -- "$(cd -- "$(dirname -- "${BASH_SOURCE[1]}")" && pwd)")
case $name in
fair) rows=(zsclip cupl plain plain_aligned fair) ;;
zsclip) rows=(zsclip zsclip2 cupl) ;;
*) rows=("$name") ;;
esac

method "$name" || die "There is no method '$name' in $ROOT/scripts/methods.txt."
[[ -d $ROOT/configs/trainers/$TRAINER ]] || die "There are no configs of $TRAINER in $ROOT/configs/trainers/."
parse "$TRAINER" "$@"
setup

# The row of descriptions goes by those that FAIR is given.
described=()
for ((i = 0; i < ${#OPTS[@]}; i += 2)); do
    if [[ ${OPTS[i]} == TRAINER.FAIR.DESCRIPTIONS ]]; then described=(TRAINER.CUPL.DESCRIPTIONS "${OPTS[i + 1]}"); fi
done

for row in "${rows[@]}"; do
    method "$row"
    if [[ $row == cupl && $name == fair ]]; then EXTRA=(${described[@]+"${described[@]}"}); fi
    run "$TRAINER" "$VARIANT" ${EXTRA[@]+"${EXTRA[@]}"}
done
table
