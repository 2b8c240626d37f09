"""Every method of configs/methods.txt on the toy data, in runs as short as something still moves in them.

Tests of what has to hold for all methods go over ``METHODS``, so that a new line of the table is in them by itself.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from dassl.engine import TRAINER_REGISTRY
from toys import run

from fairclip.compare.methods import USUAL, read_methods
from fairclip.core.plugins import import_plugins
from fairclip.run.extend import trains_by_steps
from fairclip.run.zero_shot import ZeroShotTrainer

modules, _ = import_plugins("trainers")
FILES = {module.__name__ for module in modules}
REGISTERED = [name for name in TRAINER_REGISTRY.registered_names() if TRAINER_REGISTRY.get(name).__module__ in FILES]
METHODS = {row.key: row for row in read_methods(USUAL)}
UNTRAINED = [key for key, row in METHODS.items() if issubclass(TRAINER_REGISTRY.get(row.trainer), ZeroShotTrainer)]
BY_STEPS = [key for key, row in METHODS.items() if trains_by_steps(row.trainer)]
OTHER_MODELS = ("microclip_crops",)  # variants that train another model than their trainer's usual one
# Without other variants of what is trained: they differ in what they compute, not in how it is shared or kept.
USUAL_FORMS = [key for key, row in METHODS.items() if key in (*UNTRAINED, *OTHER_MODELS) or not row.variant]

PAIRS = "DATALOADER.TRAIN_X.BATCH_SIZE 2"  # of images, where a few are chosen
# What makes the runs of a trainer short, lets its parameters move, and fills what it keeps from step to step. SGD or a
# low rate where gradients can be 0 but for rounding: Adam makes much of it, and two processes round differently.
TRAINERS = {
    "FAIR": "OPTIM.LR 1e-3 TRAINER.FAIR.N_CROPS 2 TRAINER.FAIR.TOP_K 1 TRAINER.FAIR.ALIGN_QUEUE 2",
    "MUST": "OPTIM.NAME sgd OPTIM.LR 0.1 TRAINER.MUST.THRESHOLD 0.4 TRAINER.MUST.EMA_STEPS 6",
    "DPA": "OPTIM.LR 1e-3",
    "microCLIP": "OPTIM.NAME sgd OPTIM.LR 0.01 TRAINER.MICROCLIP.N_CROPS 2",
    "LaFTer": "TRAINER.LAFTER.TEXT_STEPS 5",
    "UPL": f"OPTIM.LR 0.02 OPTIM.WARMUP_EPOCH 0 {PAIRS} TRAINER.UPL.TOP_K 5 TRAINER.UPL.ENSEMBLE 2",
    "CPL": f"OPTIM.WARMUP_EPOCH 0 OPTIM.MAX_EPOCH 3 {PAIRS} TRAINER.CPL.ROUND_EPOCHS 2 TRAINER.CPL.STEP 0.5",
    "GRIP": f"OPTIM.WARMUP_EPOCH 0 OPTIM.MAX_EPOCH 3 {PAIRS} TRAINER.GRIP.ROUND_EPOCHS 2 TRAINER.GRIP.STEP 0.5",
    "PromptLearning": "OPTIM.LR 0.02 OPTIM.WARMUP_EPOCH 0",
    "ReCLIP": "OPTIM.LR 1e-2 TRAINER.RECLIP.VISUAL_WEIGHT 1.0 TRAINER.RECLIP.NEIGHBOURS 5",
    "GTA": "OPTIM.LR 1e-5 TRAINER.GTA.PER_CLASS 3",
    "WCA": "TRAINER.WCA.N_CROPS 2",
}
# The same for single methods, where their lines say something else.
LINES = {
    "fair": "TRAINER.FAIR.CROP_INFERENCE True TEST.EVERY_EPOCH True",
    "fpl": "OPTIM.MAX_EPOCH 2 TRAINER.GRIP.ROUND_EPOCHS 2",
}


def short(key: str, data: Path, backbone: Path, out: Path) -> tuple:
    """The arguments of a short run, for ``run``, ``build`` and ``run_killed``."""
    row = METHODS[key]
    usual = ("OPTIM.MAX_EPOCH", "2", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
    options = (*usual, *TRAINERS.get(row.trainer, "").split(), *row.options, *LINES.get(key, "").split())
    return (row.trainer, data, backbone, out, *options)


def few_are_many(patch: pytest.MonkeyPatch) -> None:
    """Let MUST's fairness take its running average, which is for many classes: it passes from step to step."""
    patch.setattr("trainers.must.MANY_CLASSES", 3)


def short_runs(data: Path, backbone: Path, root: Path) -> Callable[[str], Path]:
    """Makes short runs as they are asked for, each once. Returns what gives the folder of a method's, by its key."""

    @cache
    def folder(key: str) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            few_are_many(patch)
            patch.setenv("FAIR_CACHE", str(root / "cache"))  # no other run is to find its features
            run(*short(key, data, backbone, root / key))
        return root / key

    return folder
