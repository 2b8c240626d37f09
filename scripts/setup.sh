#!/usr/bin/env bash
# Finds a Python that has everything in requirements.txt, or makes one in .venv/ with the command `fair`, and puts its path
# in PY. The other scripts source this file and call `setup`; run it by itself to install ahead of time: see --help.
set -euo pipefail

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
REQUIREMENTS=("$ROOT/requirements.txt") # `setup dev` adds what development needs
PINS=()                                 # with PINNED=1 the file of exact versions
if [[ ${PINNED:-} == 1 ]]; then PINS=("$ROOT/constraints.txt"); fi

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

# check PYTHON: prints the absolute path of that Python if it has all requirements (with PINNED=1, in the versions of
# constraints.txt). Otherwise prints what it lacks and fails. It reads versions only: importing torch would take seconds.
check() {
    "$1" - ${PINS[@]+"${PINS[@]}"} "${REQUIREMENTS[@]}" <<'END'
import sys
from importlib.metadata import PackageNotFoundError, version


def missing(paths):
    if sys.version_info < (3, 10):
        return ["Python 3.10 or newer"]
    try:
        from packaging.requirements import Requirement  # itself needed by several of the requirements
    except ImportError:
        return ["the packages of requirements.txt"]
    pins, wanted = {}, []
    for path in paths:
        with open(path, encoding="utf-8") as lines:
            for requirement in (Requirement(line.strip()) for line in lines if line.strip() and line[0] != "#"):
                if path.endswith("constraints.txt"):
                    pins[requirement.name.lower()] = requirement.specifier
                else:
                    requirement.specifier &= pins.get(requirement.name.lower(), "")
                    wanted.append(requirement)
    return [str(requirement) for requirement in wanted if not met(requirement)]


def met(requirement):
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


lacking = missing(sys.argv[1:])
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
    # The command `fair` first: what is checked, the requirements, is then there only if all is.
    "$VENV/bin/python" -m pip install --disable-pip-version-check --no-deps -e "$ROOT" &&
        "$VENV/bin/python" -m pip install --disable-pip-version-check \
            "${REQUIREMENTS[@]/#/--requirement=}" ${PINS[@]+"${PINS[@]/#/--constraint=}"} ||
        die "The installation failed (see above). What is installed so far is kept; run the command again."
    lacks=$(check "$VENV/bin/python") || die "$VENV still lacks: $lacks"
}

# setup [dev]: sets PY, and lets it find this repository's packages first. dev: with the tools of requirements-dev.txt.
setup() {
    local python=${PYTHON:-python3} lacks
    if [[ ${1:-} == dev ]]; then REQUIREMENTS+=("$ROOT/requirements-dev.txt"); fi
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
    if [[ $PY == "$VENV/bin/python" && ! -x $VENV/bin/fair ]]; then # a .venv from before there was the command
        "$PY" -m pip install --quiet --disable-pip-version-check --no-deps -e "$ROOT" || die "Cannot install the command fair."
    fi
    export PY PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    [[ $# -eq 0 || ($# -eq 1 && $1 == dev) ]] || usage "$1" "usage: [PYTHON=python3] [PINNED=1] bash $0 [dev]
Finds a Python that has everything FAIR needs, or makes one in $VENV with the command \`fair\`.
  dev       also what the tests need (requirements-dev.txt)
  PYTHON    the Python to try first, and to make .venv/ with
  PINNED=1  exactly the versions of constraints.txt, with which the tests last passed"
    setup "$@"
    echo "Ready: $PY"
fi
