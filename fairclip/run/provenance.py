"""What a result was computed with: versions of packages, and the commit of this repository."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from fairclip.core.places import HOME


def versions() -> dict[str, str | None]:
    """Versions of what a result depends on; None for what is absent or, like a checkout's `clip/`, has no version."""
    import torch  # here: tables read results without it

    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
        "cuda": torch.version.cuda,
        "clip": _clip_version(),
        "dassl": getattr(sys.modules.get("dassl"), "__version__", None),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _clip_version() -> str | None:
    """Version of the installed package that `import clip` finds, if it finds an installed one."""
    spec = find_spec("clip")
    for package in ("clip-anytorch", "clip"):
        if spec and spec.origin and _version(package):
            installed = distribution(package).locate_file("clip/__init__.py")
            if Path(str(installed)).resolve() == Path(spec.origin).resolve():
                return f"{package} {version(package)}"
    return None


def commit() -> str | None:
    """HEAD of the repository this file is in, "-dirty" behind it if tracked files differ; None without git."""
    head = _git("rev-parse", "--show-toplevel", "HEAD")
    if head is None:
        return None
    top, sha = head.splitlines()
    if Path(top).resolve() != HOME:  # unpacked inside somebody else's repository
        return None
    return sha + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", HOME, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
