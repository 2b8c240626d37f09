"""Going on from a checkpoint: with a run that was stopped, or with more epochs of one that is finished."""

import warnings
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from yacs.config import CfgNode

from fairclip.core.errors import UserError, require
from fairclip.run.finished import different_settings, in_words
from fairclip.run.results import read_results


def check_same_run(state: dict[str, Any], directory: str, cfg: CfgNode, now: dict[str, Any]) -> None:
    """Can an unfinished run go on from this checkpoint?

    Args:
        directory: where the unfinished run is. Its config.yaml says which settings differ.
        cfg: the config of now.
        now: what the run is: `config_hash`, `seed` and `descriptions`, as in the checkpoint.

    Raises:
        UserError: the checkpoint is of other settings, another seed or another file of descriptions.
    """
    other = []
    if state["config_hash"] != now["config_hash"]:
        other.append(in_words(different_settings(directory, cfg), state["config_hash"], now["config_hash"]))
    if state["seed"] != now["seed"]:
        other.append(f"seed {state['seed']} (now {now['seed']})")
    finished = read_results(directory) is not None
    require(
        not other,
        f"{directory} holds {'a finished' if finished else 'an unfinished'} run with {' and '.join(other)}: choose "
        "another OUTPUT_DIR, or remove that folder"
        + (f". For more epochs of a finished run: --resume-from {directory}" if finished else ""),
    )
    check_descriptions(state, directory, now["descriptions"], ", choose another OUTPUT_DIR, or remove that folder")


def check_finished_run(state: dict[str, Any], directory: str, epochs: int, descriptions: dict[str, Any] | None) -> None:
    """Can a new run go on from the last checkpoint of a finished one, whose settings have been compared already?

    Raises:
        UserError: the checkpoint is of another epoch than ``epochs``, the run's last, or of other descriptions.
    """
    require(
        state["epoch"] == epochs,
        f"{directory} holds a run of {epochs} epochs, and its newest checkpoint is of epoch {state['epoch']}: files "
        "are missing",
    )
    check_descriptions(state, directory, descriptions)


def check_descriptions(
    state: dict[str, Any], directory: str, described: dict[str, Any] | None, advice: str = ""
) -> None:
    """Raises UserError if the checkpoint's file of descriptions was another than that of now, ``described``."""
    used = state.get("descriptions", described)  # a checkpoint from before they were noted has none
    if (used or {}).get("sha256") != (described or {}).get("sha256"):
        old, new = (each["file"] if each else "none" for each in (used, described))
        raise UserError(
            f"{directory} holds a run with other class descriptions: {old}, now {new}"
            f"{', which was edited' if old == new else ''}. Put the old file back{advice}"
        )


def follow(scheduler: LRScheduler, optimizer: Optimizer, steps: int, state: dict[str, Any]) -> None:
    """Load an optimizer's state, and move a new scheduler to where it would be after so many steps.

    The learning rates are those of the new schedule. The state of the old scheduler would not do: some schedulers count
    from rate to rate, and the old one has come to its end.

    Args: state, of the optimizer; scheduler, one that has not taken a step yet.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the optimizer has not moved yet
        for _ in range(steps):
            scheduler.step()
    rates = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
