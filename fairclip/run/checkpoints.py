"""Reading checkpoints: tensors and plain data, nothing else."""

from pathlib import Path
from typing import Any

import torch

from fairclip.core.errors import UserError

KEYS = frozenset({"state_dict", "epoch", "backbone", "classnames", "config_hash"})  # that ours have


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


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of one of our trainers.

    Raises:
        UserError: it cannot be read, or is something else.
    """
    state = read_file(path)
    lacking = KEYS - state.keys() if isinstance(state, dict) else KEYS
    if lacking:
        raise UserError(f"{path} is not a checkpoint of this project's trainers: it lacks {', '.join(sorted(lacking))}")
    return state
