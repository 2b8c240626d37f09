"""Trainer files of others in trainers/: what they miss here that their own repository has, in one message."""

import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from yacs.config import CfgNode

from fairclip.backbones.openai import clip_module
from fairclip.core.invocation import fair_command
from fairclip.core.places import HOME

DECLARE = "Declare it in a function extend_cfg(cfg) of that file, as the train.py of its repository does"


def who_reads(cfg: CfgNode, key: str, modules: Sequence[ModuleType]) -> str | None:
    """For a key that the config does not have: a message if the source of one of these modules reads it.

    A file made for CoOp leaves it to its own train.py to declare its keys.
    """
    node, parts = cfg, list[str]()
    for part in key.split("."):
        parts.append(part)
        if part not in node or not isinstance(node[part], CfgNode):
            break
        node = node[part]
    missing = ".".join(parts)
    for file in (Path(module.__file__) for module in modules if module.__file__):
        if re.search(rf"\b{re.escape(missing)}\b", file.read_text("utf-8", errors="replace")):
            return f"nobody declares {missing}, which {file} reads. {DECLARE}"
    return None


def what_it_lacks(error: Exception, cfg: CfgNode) -> str | None:
    """What an exception says of a trainer that was written for another train.py or another clip/; None for others."""
    if isinstance(error, AttributeError) and isinstance(error.obj, CfgNode):
        reader = traceback.extract_tb(error.__traceback__)[-2]  # the last one is yacs itself
        key = f"{path_to(error.obj, cfg) or ''}{error.name}"
        return f"nobody declares {key}, which {reader.filename} reads in line {reader.lineno}. {DECLARE}"
    return another_clip(error)


def path_to(wanted: CfgNode, node: CfgNode, path: str = "") -> str | None:
    """ "TRAINER.COOP." for the node cfg.TRAINER.COOP, looked for from ``node`` downwards; None if it is not there."""
    if node is wanted:
        return path
    below = (path_to(wanted, value, f"{path}{key}.") for key, value in node.items() if isinstance(value, CfgNode))
    return next((found for found in below if found is not None), None)


def another_clip(error: Exception) -> str | None:
    """A message if this exception says that the `clip` package is another one than its raiser expects."""
    clip = clip_module()
    if isinstance(error, ImportError):
        place = error.name or ""
    elif isinstance(error, AttributeError):
        place = error.obj.__name__ if isinstance(error.obj, ModuleType) else type(error.obj).__module__
    elif isinstance(error, TypeError) and (call := re.match(r"(\w+)[\w.]*\(\) ", str(error))):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        place = getattr(frame.f_globals.get(call[1], getattr(clip, call[1], None)), "__module__", "")
    else:
        place = ""
    if place.split(".")[0] != "clip":
        return None
    here = Path(clip.__file__ or "").parent
    return (
        f"it was written for another clip package than {here} ({error}). Copy the clip/ folder of its repository to "
        f"{HOME / 'clip'}, or train it in its repository: `{fair_command()} install-into` puts FAIR beside it there"
    )
