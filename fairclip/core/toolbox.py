"""Which Dassl is used: the installed one, or the core bundled in toolbox/."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import sys
from pathlib import Path

from fairclip.core.log import log
from fairclip.core.places import HOME

BUNDLED = HOME / "toolbox"
MARK = "+bundled"  # how the version of the bundled core ends, in every clone
NOT_INSTALLED = "it is not installed"


def use_dassl(announce: bool = True) -> str:
    """Make `import dassl` work; call this before anything imports `dassl`.

    An installed upstream Dassl that really imports is used, otherwise the bundled core. The environment variable
    `FAIR_DASSL` (`upstream` or `bundled`) overrides. A second call finds `dassl` imported and only reports it.

    Args:
        announce: report in one line which one is used, from where, and what to know about it. That upstream is used,
            or cannot be used, is always said.

    Returns:
        "upstream" or "bundled".

    Raises:
        SystemExit: `FAIR_DASSL` has another value, or asks for what cannot be had.
    """
    wanted = os.environ.get("FAIR_DASSL", "")
    if wanted not in ("", "upstream", "bundled"):
        raise SystemExit(f'FAIR_DASSL must be "upstream" or "bundled" (or unset), got "{wanted}"')

    problem = None
    if "dassl" not in sys.modules and wanted != "bundled":
        problem = _import_upstream()
        if problem and wanted == "upstream":
            raise SystemExit(f"FAIR_DASSL=upstream, but upstream Dassl cannot be used: {problem}")
    if "dassl" not in sys.modules:
        if BUNDLED.is_dir():  # a copy of FAIR in a checkout has none: there it is on PYTHONPATH
            sys.path[:] = [str(BUNDLED), *_other_paths()]
        importlib.import_module("dassl")

    used = _origin(sys.modules["dassl"])
    if wanted and used != wanted:
        raise SystemExit(f"FAIR_DASSL={wanted}, but {used} Dassl was imported before toolbox.use_dassl() ran")
    if problem and problem != NOT_INSTALLED:
        log.warning(f"upstream Dassl is not used: {problem}")
    if announce or used == "upstream":
        log.info(_describe(used))
    return used


def reach(folder: Path) -> None:
    """Let Python find the packages in this folder."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _other_paths() -> list[str]:
    """sys.path without the bundled core, and without that of another clone, which is no upstream either."""
    return [p for p in sys.path if not _has_core(Path(p))]


def _has_core(folder: Path) -> bool:
    try:
        return MARK in (folder / "dassl" / "__init__.py").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _origin(module: object) -> str:
    return "bundled" if str(getattr(module, "__version__", "")).endswith(MARK) else "upstream"


def _import_upstream() -> str | None:
    """Import upstream Dassl. On failure leave no trace of the attempt and return the reason."""
    before, disabled = sys.path[:], logging.root.manager.disable
    sys.path[:] = _other_paths()
    try:
        importlib.import_module("dassl.engine")  # imports all that trainers use
        return None
    except ModuleNotFoundError as error:
        problem = NOT_INSTALLED if error.name == "dassl" else f"importing it fails: {error}"
    except Exception as error:  # whatever a foreign package does at import: the bundled core is there for it
        problem = f"importing it fails: {type(error).__name__}: {error}"
    for name in [n for n in sys.modules if n == "dassl" or n.startswith("dassl.")]:
        del sys.modules[name]
    sys.path[:] = before
    logging.disable(disabled)  # upstream silences warnings before it imports wilds
    return problem


def _describe(used: str) -> str:
    module = sys.modules["dassl"]
    version = getattr(module, "__version__", "of unknown version")
    file = getattr(module, "__file__", None)
    place = Path(file).parent if file else "unknown place"
    line = f"Dassl: {used}, {version} ({place})"
    torch_version = importlib.metadata.version("torch")
    if used == "upstream" and _release(torch_version) >= (2, 7):
        line += (
            f"\nNote: with torch {torch_version}, upstream Dassl fails wherever OPTIM.WARMUP_EPOCH > 0 (training, "
            "resuming, evaluating). FAIR needs no warm-up; for CoOp-style trainers set FAIR_DASSL=bundled."
        )
    return line


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
