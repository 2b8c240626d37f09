#!/usr/bin/env bash
# Finds a Python that has everything in requirements.txt, or makes one in .venv/, and puts its path in PY.
# The other scripts source this file and call `setup`; run it by itself to install ahead of time.
#
#   PYTHON=/path/to/python   the Python to try first and to make .venv/ with (default: python3)
set -euo pipefail

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv

die() {
    printf '%s\n' "$*" >&2
    exit 2
}

# usage ARGUMENT TEXT: TEXT, which a wrong call gets as an error, one of --help as its answer.
usage() {
    [[ ${1:-} == -h || ${1:-} == --help ]] || die "$2"
    printf '%s\n' "$2"
    exit
}

# check PYTHON: prints the absolute path of that Python if it has all requirements. Otherwise prints what it lacks and
# fails. It reads versions only: importing torch would cost every script some seconds.
check() {
    "$1" - "$ROOT/requirements.txt" <<'END'
import sys
from importlib.metadata import PackageNotFoundError, version


def missing(path):
    if sys.version_info < (3, 10):
        return ["Python 3.10 or newer"]
    try:
        from packaging.requirements import Requirement  # itself needed by several of the requirements
    except ImportError:
        return ["the packages of requirements.txt"]
    lacking = []
    with open(path, encoding="utf-8") as lines:
        for requirement in (Requirement(line.strip()) for line in lines if line.strip() and line[0] != "#"):
            try:
                met = requirement.specifier.contains(version(requirement.name), prereleases=True)
            except PackageNotFoundError:
                met = False
            if not met:
                lacking.append(str(requirement))
    return lacking


lacking = missing(sys.argv[1])
print(", ".join(lacking) or sys.executable)
sys.exit(bool(lacking))
END
}

# make_venv PYTHON: makes or completes .venv/. Safe to repeat after an interruption.
make_venv() {
    local lacks
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "FAIR needs Python 3.10 or newer; '$1' is $("$1" -V 2>&1). Name another one: PYTHON=/path/to/python bash $0 ..."
    if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        "$1" -m venv --clear "$VENV" ||
            die "Cannot make $VENV. On Debian and Ubuntu this takes the package python3-venv."
    fi
    echo "Installing requirements.txt into $VENV (some minutes, once) ..."
    "$VENV/bin/python" -m pip install --disable-pip-version-check -r "$ROOT/requirements.txt" ||
        die "The installation failed (see above). What is installed so far is kept; run the command again."
    lacks=$(check "$VENV/bin/python") || die "$VENV still lacks: $lacks"
}

setup() {
    local python=${PYTHON:-python3} lacks
    command -v "$python" >/dev/null || die "There is no '$python'. Name a Python: PYTHON=/path/to/python bash $0 ..."
    if ! PY=$(check "$python") && ! PY=$(check "$VENV/bin/python" 2>/dev/null); then
        lacks=$(check "$python") || true
        echo "'$python' lacks $lacks."
        (
            # One at a time, where the system has flock: several jobs may start together in a fresh clone.
            if command -v flock >/dev/null; then flock 9; fi
            check "$VENV/bin/python" >/dev/null 2>&1 || make_venv "$python"
        ) 9<"$ROOT/requirements.txt"
        PY=$VENV/bin/python
    fi
    export PY PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    setup
    echo "Ready: $PY"
fi
