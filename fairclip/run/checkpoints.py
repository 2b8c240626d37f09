"""Checkpoints: FOLDER/model.pth.tar-<epoch>, and FOLDER/checkpoint, which names the newest. They hold tensors and plain
data, nothing else; ``fairclip.run.outcome.Outcome.checkpoint`` says which."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fairclip.core.errors import UserError
from fairclip.core.files import atomic

KEYS = frozenset({"state_dict", "epoch", "backbone", "classnames", "config_hash"})  # that a checkpoint must have
POINTER = "checkpoint"


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training moves, by name: all that a checkpoint needs besides the backbone's own file."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def write_checkpoint(folder: Path, state: dict[str, Any], keep: int = 0) -> None:
    """Write the checkpoint of ``state["epoch"]`` and delete older ones. Killed at any moment, a complete one remains.

    Args: keep, every so many epochs one stays; 0: none but the newest.
    """
    newest = folder / f"model.pth.tar-{state['epoch']}"
    with atomic(newest) as path:
        torch.save(state, path)
    with atomic(folder / POINTER) as path:
        path.write_text(f"{newest.name}\n")
    for old in folder.glob("model.pth.tar-*"):
        number = old.name.rpartition("-")[2]
        if old != newest and number.isdigit() and not (keep > 0 and int(number) % keep == 0):
            old.unlink()


def find_checkpoint(folder: Path, epoch: int | None = None) -> Path | None:
    """The checkpoint of an epoch, or the newest; None if there is no newest. It need not exist."""
    if epoch is not None:
        return folder / f"model.pth.tar-{epoch}"
    pointer = folder / POINTER
    return folder / pointer.read_text().strip() if pointer.exists() else None


def read_file(path: str | Path) -> Any:
    """The content of a file that torch.save wrote, on the CPU, without unpickling more than tensors and plain data.

    Raises:
        UserError: whatever is wrong with the file. torch.load has many ways to say it.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UserError(f"cannot read the checkpoint {path}: {reason}") from error


def read_checkpoint(path: str | Path, backbone: str = "") -> dict[str, Any]:
    """A checkpoint of one of our trainers.

    Args: backbone, the one that it must belong to; "": any.

    Raises:
        UserError: it is not there, cannot be read, is something else, or belongs to another backbone.
    """
    path = Path(path)
    if not path.is_file():
        there = ", ".join(sorted(os.listdir(path.parent))) if path.parent.is_dir() else "no such folder"
        raise UserError(f"no checkpoint at {path} (there: {there})")
    state = read_file(path)
    lacking = KEYS - state.keys() if isinstance(state, dict) else KEYS
    if lacking:
        raise UserError(f"{path} is not a checkpoint of this project's trainers: it lacks {', '.join(sorted(lacking))}")
    if backbone and state["backbone"] != backbone:
        raise UserError(f"{path} belongs to backbone {state['backbone']}, not {backbone}")
    return state


def load_trained(model: nn.Module, state: dict[str, Any]) -> None:
    """Copy a checkpoint's parameters and anchors into the model; what training left alone stays as it is.

    Raises:
        UserError: they do not fit.
    """
    saved = dict(state["state_dict"])
    if state.get("anchors") is not None:  # frozen ones too: the descriptions may have been edited since
        saved["anchors.weight"] = state["anchors"]
    try:
        unexpected = model.load_state_dict(saved, strict=False).unexpected_keys
    except RuntimeError as error:
        raise UserError(f"the checkpoint does not fit the model: {error}") from error
    if unexpected:
        raise UserError(f"the checkpoint has parameters that the model lacks: {', '.join(unexpected)}")
