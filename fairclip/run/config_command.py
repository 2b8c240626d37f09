"""What can be set: the config keys of a trainer with their defaults and what they mean.

    fair config FAIR        a trainer's keys
    fair config             the keys that trainers share
    fair config --all       everything, as docs/config.md has it

They are read from the trainer's own declarations.
"""

import argparse
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from tabulate import tabulate
from yacs.config import CfgNode

from fairclip.core.errors import require
from fairclip.core.plugins import import_plugins

# A declaration: `"KEY": value,` in a node, or `cfg.NODE.KEY = value`; and the comment behind it.
KEY = re.compile(r'\s*(?:"(?P<name>[A-Z][A-Z0-9_]*)": |cfg\.(?P<path>[A-Z][A-Z0-9_.]*) = )')
COMMENT = re.compile(r"(?:^|\s\s)#\s(.*)")
# Where a setting comes from, as in the head of trainers/fair.py.
MARK = re.compile(r"\[(F|O)\b")
LEGEND = "[F]: common in the same line of work; [F: X]: from X; [O]: our own choice (docs/method.md)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trainer", nargs="?", metavar="TRAINER", help="default: the keys that trainers share")
    parser.add_argument("--all", action="store_true", help="the shared keys, then those of each trainer")


def main(args: argparse.Namespace) -> None:
    from fairclip.data.settings import extend_cfg as for_data
    from fairclip.run.config import extend_cfg

    shared: list[Callable] = [extend_cfg, for_data]
    own = declarations()
    require(
        args.trainer is None or args.trainer in own,
        f"there is no trainer {args.trainer!r} with settings of its own. Known: {', '.join(sorted(own))}",
    )
    if args.all or not args.trainer:
        print("# What can be set\n\nMade by `fair config --all`.\n\n## Shared by all trainers of ours\n")
        print(table((row for function in shared for row in rows(function, "")), args.all))
    for name in sorted(own) if args.all else filter(None, [args.trainer]):
        print(f"\n## {name}\n" if args.all else f"TRAINER.{name.upper()}\n")
        found = list(rows(own[name], f"TRAINER.{name.upper()}"))
        print(table(iter(found), args.all))
        if any(MARK.search(meaning) for *_, meaning in found):
            print(f"\n{LEGEND}")


def declarations() -> dict[str, Callable]:
    """The function that declares the settings of each trainer, by the trainer's name."""
    from dassl.engine import TRAINER_REGISTRY

    modules, _ = import_plugins("trainers", "datasets")
    found = {}
    for name in TRAINER_REGISTRY.registered_names():
        module = inspect.getmodule(TRAINER_REGISTRY.get(name))
        if module in modules and hasattr(module, "extend_cfg"):
            found[name] = module.extend_cfg
    return found


def rows(declare: Callable, node: str) -> Iterator[list[str]]:
    """Key, default and meaning of what a function declares; of a trainer's, the keys below ``node``."""
    values = defaults(declare)
    for path, meaning in meanings(declare, node):
        if path in values:
            yield [f"`{path}`", f"`{values[path]!r}`", meaning]


def defaults(declare: Callable) -> dict[str, Any]:
    """Values by dotted key, in a config that holds what the function declares."""
    from dassl.config import get_cfg_default

    from fairclip.run.finished import flatten

    cfg: CfgNode = get_cfg_default()
    declare(cfg, []) if "modules" in inspect.signature(declare).parameters else declare(cfg)
    return dict(flatten(cfg))


def meanings(declare: Callable, node: str) -> Iterator[tuple[str, str]]:
    """Dotted key and comment of each declaration. Comments in front of a key, of any number of lines, are its own
    if none stands behind it."""
    before = ""
    for line in inspect.getsource(declare).splitlines():
        comment = COMMENT.search(line)
        text = comment[1].strip() if comment else ""
        for found in KEY.finditer(line.split("  #")[0]):
            path = found["path"] or f"{node}.{found['name']}"
            yield path, text or before
        before = f"{before} {text}".strip() if line.strip().startswith("#") else ""


def table(found: Iterator[list[str]], page: bool) -> str:
    """Args: page, for a page of Markdown, where a bar in a cell would end it."""
    cells = [[cell.replace("|", "\\|") if page else cell for cell in row] for row in found]
    return tabulate(cells, ["key", "default", "meaning"], tablefmt="github", disable_numparse=True)
