"""Keys that a run was given and that nothing in it would read: said before it begins."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import reduce
from types import ModuleType
from typing import Any

from yacs.config import CfgNode

from fairclip.core.errors import UserError, few
from fairclip.core.log import details
from fairclip.run.optimizers import KEYS_OF

# What all our trainers read, or say themselves why it cannot be.
READ_BY_ALL = (
    *("VERSION", "OUTPUT_DIR", "RESUME", "SEED", "USE_CUDA", "DEVICE", "VERBOSE", "TRAINER.NAME", "TEST.*"),
    *("INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.TRANSFORMS", "INPUT.NO_TRANSFORM", "INPUT.PIXEL_*"),
    *("DATALOADER.NUM_WORKERS", "DATALOADER.K_TRANSFORMS", "DATALOADER.VIEWS", "DATALOADER.CACHE*"),
    *("DATALOADER.TRAIN_X.BATCH_SIZE", "DATALOADER.TRAIN_X.SAMPLER", "DATALOADER.TEST.*"),
    *("MODEL.COMPILE", "MODEL.BACKBONE.NAME", "MODEL.BACKBONE.HEADS", "MODEL.BACKBONE.ACTIVATION"),
    *("MODEL.BACKBONE.RESIZE", "TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ", "TRAIN.CHUNK", "TRAIN.MICRO_BATCH"),
    *("TRAIN.AUTO_CHUNK", "TRAIN.EXTENDS"),
)
READ_IN_TRAINING = ("OPTIM.NAME", "OPTIM.LR", "OPTIM.WEIGHT_DECAY", "OPTIM.MAX_EPOCH", "OPTIM.WARMUP_EPOCH")
# The one schedule of those that do not ask for it.
OWN_SCHEDULE = ("OPTIM.LR_SCHEDULER", "cosine")
# Of Dassl's other data sets; ours read none of them.
DOMAINS = ("SOURCE_DOMAINS", "TARGET_DOMAINS", "NUM_LABELED", "VAL_PERCENT", "STL10_FOLD", "CIFAR_C_*", "ALL_AS_*")


def check_given(cfg: CfgNode, before: CfgNode, given: Sequence[str], modules: Sequence[ModuleType]) -> None:
    """Raises UserError for keys that the trainer or the data set does not read. Such a key may have its default value.

    OPTIM is no mistake where a trainer takes no steps, as a comparison gives all its methods the same keys: a note
    says so.

    Args:
        cfg: the config with what was given, of a trainer on our base.
        before: the config without.
        given: the keys, dotted.
        modules: the plugins.
    """
    from dassl.engine import TRAINER_REGISTRY

    trainer = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    trains = trainer.trains_by_steps()
    read = (*READ_BY_ALL, *trainer.reads, f"TRAINER.{cfg.TRAINER.NAME.upper()}.*")
    if trains:
        read += (*READ_IN_TRAINING, *(f"OPTIM.{key}" for key in KEYS_OF.get(cfg.OPTIM.NAME, ())))
    others = of_other_data_sets(cfg.DATASET.NAME, modules)
    unread, idle = list[str](), list[str]()
    for key in dict.fromkeys(given):
        value = value_of(cfg, key)
        if key.startswith("DATASET."):
            ok = not matches(key, others)
        else:
            ok = matches(key, read) or (key, value) == OWN_SCHEDULE
        if ok or value == value_of(before, key):
            continue
        (idle if key.startswith("OPTIM.") and not trains else unread).append(key)
    if idle:
        details.info(f"Note: {cfg.TRAINER.NAME} takes no training steps and does not read {few(idle, 5)}")
    if unread:
        data = all(key.startswith("DATASET.") for key in unread)
        raise UserError(
            f"{few(unread, 5)}: {cfg.DATASET.NAME if data else cfg.TRAINER.NAME} does not read "
            f"{'it' if len(unread) == 1 else 'them'}"
            + (", its schedule is a cosine of its own" if OWN_SCHEDULE[0] in unread and trains else "")
            + (f" with OPTIM.NAME {cfg.OPTIM.NAME}" if any(f"OPTIM.{k}" in unread for k in OF_SOME) and trains else "")
            + ". Leave out what would change nothing"
        )


OF_SOME = tuple(key for keys in KEYS_OF.values() for key in keys)


def matches(key: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def value_of(cfg: CfgNode, key: str) -> Any:
    """None for a key that is not there."""
    *nodes, name = key.split(".")
    return reduce(lambda node, inner: node.get(inner, CfgNode()), nodes, cfg).get(name)


def of_other_data_sets(name: str, modules: Sequence[ModuleType]) -> tuple[str, ...]:
    """Keys that this data set does not read: those that the files of others declare, and for ours Dassl's domains."""
    from dassl.data.datasets import DATASET_REGISTRY

    if name not in DATASET_REGISTRY.registered_names():
        return ()
    files = {kind.__module__ for kind in DATASET_REGISTRY.get(name).__mro__}
    keys = [key for module in modules if module.__name__ not in files for key in declared(module)]
    if "fairclip.data.labelled" in files:
        keys += DOMAINS
    return tuple(f"DATASET.{key}" for key in keys)


def declared(module: ModuleType) -> list[str]:
    """The keys of DATASET that a plugin's ``extend_cfg`` declares."""
    from dassl.config import get_cfg_default

    if not hasattr(module, "extend_cfg") or "datasets" not in module.__name__.split("."):
        return []
    cfg = get_cfg_default()
    before = set(cfg.DATASET)
    module.extend_cfg(cfg)
    return [key for key in cfg.DATASET if key not in before]
