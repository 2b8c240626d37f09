from yacs.config import CfgNode

from .defaults import DEFAULTS


def get_cfg_default() -> CfgNode:
    """A fresh, mutable copy of the default configuration."""
    return DEFAULTS.clone()


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Drop the nodes of all other trainers from `cfg.TRAINER` (in place), to keep printed configs short."""
    for name in list(cfg.TRAINER):
        if name != "NAME" and name.lower() != trainer.lower():
            cfg.TRAINER.pop(name)
