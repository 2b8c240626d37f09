"""How `fair train` is called by other commands: by this Python, from anywhere."""

import os
import sys
from collections.abc import Sequence

from fairclip.core.invocation import VARIABLE, fair_command
from fairclip.core.places import HOME, PACKAGE, SHARE


def command(arguments: Sequence[str]) -> list[str]:
    """The words of the call."""
    if HOME == SHARE:
        return [sys.executable, "-m", PACKAGE.name, "train", *arguments]
    return [sys.executable, str(HOME / "train.py"), *arguments]


def child_environment() -> dict[str, str]:
    """The environment of a command that must find this package, wherever it was imported from, and name `fair` as the
    user called it."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), VARIABLE: fair_command()}
