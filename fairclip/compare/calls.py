"""How commands of ours are called: by this Python from anywhere, and by a person from the current folder."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from fairclip.core.places import HOME, PACKAGE, SHARE


def command(arguments: Sequence[str]) -> list[str]:
    """How `fair train` is called from anywhere, by this very Python."""
    if HOME == SHARE:
        return [sys.executable, "-m", PACKAGE.name, "train", *arguments]
    return [sys.executable, str(HOME / "train.py"), *arguments]


def child_environment() -> dict[str, str]:
    """The environment of a command that must find this package, wherever it was imported from."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def fair_command() -> str:
    """How the user calls `fair` from the current folder."""
    if HOME != SHARE and (script := HOME / "scripts" / "fair.sh").is_file():
        return f"bash {relative(script)}"
    installed = Path(sys.executable).with_name("fair")
    return "fair" if shutil.which("fair") == str(installed) else str(installed)


def relative(path: Path) -> str:
    """From the current folder, where it is below that."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
