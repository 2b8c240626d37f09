"""Checkpoints: FOLDER/model.pth.tar-<epoch>, and FOLDER/checkpoint, which names the newest. They hold tensors and plain
data, nothing else; ``fairclip.run.saved.Saved.checkpoint`` says which."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fairclip.core import rules
from fairclip.core.errors import UserError, few, require
from fairclip.core.files import atomic
from fairclip.core.reading import in_a_line, read_text
from fairclip.core.rules import Rule, check
from fairclip.core.tensor_files import are_tensors, are_vectors, read_tensors, save_tensors

RULES = {
    "state_dict": Rule(are_tensors, "parameters by name, finite numbers"),
    "epoch": Rule(lambda value: rules.is_whole(value) and value >= 0, "a whole number from 0 on"),
    "backbone": Rule(rules.is_text, "a name"),
    "classnames": Rule(rules.are_names, "a list of names"),
    "config_hash": Rule(rules.is_text, "a hash"),
    "seed": Rule(rules.or_null(rules.is_whole), "a whole number", optional=True),
    "tower_hash": Rule(rules.is_hash, "a SHA-256", optional=True),
    "text_hash": Rule(rules.is_hash, "a SHA-256", optional=True),
    "descriptions": Rule(rules.is_source, "None, or file and sha256", optional=True),
    "anchors": Rule(rules.or_null(are_vectors), "None, or a tensor [K, d]", optional=True),
    "prediction": Rule(rules.is_object, "settings by name", optional=True),
    "history": Rule(rules.are_epochs, "a list of records, each with its epoch and numbers", optional=True),
}
TO_GO_ON = ("optimizer", "scheduler", "scaler", "extra", "history", "seed")  # what a run needs besides
POINTER = "checkpoint"
NAME = re.compile(r"model\.pth\.tar-([0-9]+)")
WHAT = "a checkpoint of this project's trainers"


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training moves, by name: all that a checkpoint needs besides the backbone's own file."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def write_checkpoint(folder: Path, state: dict[str, Any], keep: int = 0) -> None:
    """Write the checkpoint of ``state["epoch"]`` and delete older ones. Killed at any moment, a complete one remains.

    Args: keep, every so many epochs one stays; 0: none but the newest.
    """
    newest = folder / f"model.pth.tar-{state['epoch']}"
    with atomic(newest) as path:
        save_tensors(state, path)
    with atomic(folder / POINTER) as path:
        path.write_text(f"{newest.name}\n")
    for old in folder.iterdir():
        number = NAME.fullmatch(old.name)  # other files are none of our affair
        if number and old != newest and old.is_file() and not (keep > 0 and int(number[1]) % keep == 0):
            old.unlink()


def find_checkpoint(folder: Path, epoch: int | None = None) -> Path | None:
    """The checkpoint of an epoch, or the newest; None if there is no newest. It need not exist.

    Raises:
        UserError: the file that names the newest is damaged.
    """
    if epoch is not None:
        return folder / f"model.pth.tar-{epoch}"
    pointer = folder / POINTER
    if not pointer.exists():
        return None
    advice = "It should hold one line, the name of the newest file beside it, such as model.pth.tar-3"
    name = read_text(pointer, "the name of a checkpoint", advice, 1000).strip()
    require(NAME.fullmatch(name), f"{pointer} names no checkpoint, but {name[:60]!r}. {advice}")
    return folder / name


def read_checkpoint(path: str | Path, backbone: str = "") -> dict[str, Any]:
    """A checkpoint of one of our trainers.

    Args: backbone, the one that it must belong to; "": any.

    Raises:
        UserError: it is not there, cannot be read, is damaged, is something else, or belongs to another backbone.
    """
    path = Path(path)
    if not path.is_file():
        there = ", ".join(sorted(os.listdir(path.parent))) if path.parent.is_dir() else "no such folder"
        raise UserError(f"no checkpoint at {path} (there: {there})")
    advice = "Take a copy of it, or remove the run's folder and run again"
    state = read_tensors(path, WHAT, advice)
    lacking = sorted(key for key, rule in RULES.items() if key not in state and not rule.optional)
    require(not lacking, f"{path} is not {WHAT}: it lacks {', '.join(lacking)}")
    check(state, RULES, path, advice=advice)
    if backbone and state["backbone"] != backbone:
        raise UserError(f"{path} belongs to backbone {state['backbone']}, not {backbone}")
    optimizer = state.get("optimizer")
    groups = optimizer.get("param_groups", []) if isinstance(optimizer, Mapping) else []
    with fitting(path):
        moved = sum(len(group["params"]) for group in groups)
    count = len(state["state_dict"])
    require(count >= moved, f"{path} is damaged: it has {count} of the {moved} parameters that were trained. {advice}")
    return state


def check_whole(state: Mapping[str, Any], path: Path) -> None:
    """Raises UserError unless a checkpoint has all that a run needs to go on."""
    lacking = [key for key in TO_GO_ON if key not in state]
    require(not lacking, f"{path} is not whole, so that no run can go on from it: it lacks {', '.join(lacking)}")


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Inside, where parts of a checkpoint are put into a run, any error is a UserError: they do not fit."""
    try:
        yield
    except UserError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"{path} does not fit this run: {type(error).__name__}: {in_a_line(error)}. Remove the run's folder and "
            "run again"
        ) from error


def load_trained(model: nn.Module, state: dict[str, Any]) -> None:
    """Copy a checkpoint's parameters and anchors into the model; what training left alone stays as it is.

    Raises:
        UserError: they do not fit, or some that training moves are not there.
    """
    saved = dict(state["state_dict"])
    if state.get("anchors") is not None:  # frozen ones too: the descriptions may have been edited since
        saved["anchors.weight"] = state["anchors"]
    if missing := sorted(trained_state(model).keys() - saved.keys()):
        raise UserError(f"the checkpoint lacks parameters that this run trains: {few(missing)}")
    try:
        unexpected = model.load_state_dict(saved, strict=False).unexpected_keys
    except RuntimeError as error:
        raise UserError(f"the checkpoint does not fit the model: {error}") from error
    if unexpected:
        raise UserError(f"the checkpoint has parameters that the model lacks: {', '.join(unexpected)}")
