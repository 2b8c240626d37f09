"""How the user calls `fair`, for messages that name one of its commands; and whether torchrun called it."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from fairclip.core.places import HOME, PACKAGE, SHARE

VARIABLE = "FAIR_COMMAND"  # in the environment: what is typed for `fair`. scripts/fair.sh sets it, and runs inherit it


def fair_command() -> str:
    """What to type for `fair` in the current folder: what this program was started by, if that was `fair` in one of its
    forms; else, as in a notebook or under train.py, what is there."""
    if said := os.environ.get(VARIABLE):
        return said
    program = Path(sys.argv[0])
    if program.name == "fair" and program.is_file():
        return installed(program)
    before, words = [], list(sys.orig_argv)
    while words and program == PACKAGE / "__main__.py":  # python -m fairclip; the interpreter may have had options
        before.append(words.pop(0))
        if before[-2:] == ["-m", PACKAGE.name]:
            return shlex.join(before)
    if HOME != SHARE and (script := HOME / "scripts" / "fair.sh").is_file():
        return f"bash {shlex.quote(relative(script))}"
    beside = Path(sys.executable).with_name("fair")
    return installed(beside) if beside.is_file() else f"python -m {PACKAGE.name}"


def launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def installed(program: Path) -> str:
    """How the script `fair` of an installation is called: by its name alone where PATH leads to it."""
    found = shutil.which("fair")
    return "fair" if found and os.path.samefile(found, program) else shlex.quote(relative(program))


def relative(path: Path) -> str:
    """From the current folder, where it is below that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
