"""More epochs from a finished run: `fair train ... --resume-from RUN`, a new run from the last checkpoint of RUN."""

import os
from typing import Any

from yacs.config import CfgNode

from fairclip.core.errors import UserError, require
from fairclip.run.config import is_ours
from fairclip.run.finished import different_settings, in_words
from fairclip.run.results import FILENAME, read_results
from fairclip.run.settings import run_hash

MAY_DIFFER = ("OPTIM.MAX_EPOCH", "TRAIN.EXTENDS")  # between a finished run and the one that goes on from it


def extended(cfg: CfgNode, folder: str) -> CfgNode:
    """The config of a new run that goes on from the last checkpoint of a finished one.

    It has the finished run's folder as RESUME and its epochs as TRAIN.EXTENDS, by which the two runs, and one that has
    as many epochs from the start, have different hashes.

    Args: folder, of the finished run; "": none, and the config stays as it is.

    Raises:
        UserError: there is no finished run, its settings are others than OPTIM.MAX_EPOCH, or no epochs are added.
    """
    require(not cfg.TRAIN.EXTENDS, "TRAIN.EXTENDS is not to be given: --resume-from RUN sets it")
    if not folder:
        return cfg
    require(not cfg.RESUME, "--resume and --resume-from name two places to go on from: leave one out")
    results = read_results(folder)
    if results is None:
        raise UserError(
            f"--resume-from {folder}: there is no finished run, it has no {FILENAME}. An unfinished run goes on by the "
            "command that began it"
        )
    same_place = os.path.realpath(folder) == os.path.realpath(cfg.OUTPUT_DIR)
    require(not same_place, f"--resume-from {folder}: the new run needs an --output-dir of its own")
    check_extension(folder, cfg, results)
    require(
        trains_by_steps(cfg.TRAINER.NAME),
        f"--resume-from {folder}: {cfg.TRAINER.NAME} does not train by epochs that could be added to",
    )
    require("epochs" in results, f"--resume-from {folder}: its {FILENAME} lacks epochs")
    done = len(results["epochs"])
    require(
        cfg.OPTIM.MAX_EPOCH > done,
        f"--resume-from {folder}: that run ends with epoch {done}, and OPTIM.MAX_EPOCH is {cfg.OPTIM.MAX_EPOCH}: set "
        "it to the number of all epochs, the old ones among them",
    )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.RESUME, cfg.TRAIN.EXTENDS = folder, done
    cfg.freeze()
    return cfg


def check_extension(folder: str, cfg: CfgNode, results: dict[str, Any]) -> None:
    """Raises UserError unless a finished run has the settings and the seed of now, but for ``MAY_DIFFER``."""
    different = different_settings(folder, cfg)
    others = {key: values for key, values in different.items() if key not in MAY_DIFFER}
    before, now = results.get("config_hash"), run_hash(cfg)
    unknown = not different and before != now  # config.yaml is gone or damaged
    other = [in_words(others, before, now)] if others or unknown else []
    if cfg.SEED >= 0 and results.get("seed") != cfg.SEED:
        other.append(f"seed {results.get('seed')} (now {cfg.SEED})")
    require(
        not other,
        f"--resume-from {folder}: that run has {' and '.join(other)}. Only OPTIM.MAX_EPOCH and folders may differ: set "
        "the others as they were",
    )


def trains_by_steps(trainer: str) -> bool:
    """Whether this is a trainer of ours that takes steps, epoch after epoch."""
    from dassl.engine import TRAINER_REGISTRY

    return is_ours(trainer) and TRAINER_REGISTRY.get(trainer).trains_by_steps()
