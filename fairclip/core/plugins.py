"""The files of trainers/ and datasets/: each registers itself when it is imported."""

import importlib
import pkgutil
from types import ModuleType

from fairclip.core.log import log
from fairclip.core.places import HOME, PACKAGE, SHARE
from fairclip.core.toolbox import reach


def package_of(kind: str) -> str:
    """The package to import for "trainers" or "datasets". In a checkout it has that name, as in CoOp. After an
    installation it lies inside ours, since others have packages called `datasets`."""
    if SHARE == HOME:
        return f"{PACKAGE.name}.{SHARE.name}.{kind}"
    reach(HOME)
    return kind


def import_plugins(*kinds: str) -> tuple[list[ModuleType], dict[str, Exception]]:
    """Import all modules in trainers/ or datasets/. Returns them, and the errors of those that failed, by name."""
    modules, failed = [], {}
    for kind in kinds:
        package = importlib.import_module(package_of(kind))
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if info.ispkg:
                continue
            try:
                modules.append(importlib.import_module(info.name))
            except Exception as error:  # a file that somebody dropped in must not stop the others
                failed[info.name] = error
                log.warning(f"{info.name.replace('.', '/')}.py is left out: {type(error).__name__}: {error}")
    return modules, failed
