from __future__ import annotations

import logging

from yacs.config import CfgNode

from ..utils import Registry, check_availability
from ..utils.logger import show_messages

log = logging.getLogger("dassl")

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: CfgNode) -> object:
    """The registered trainer that `cfg.TRAINER.NAME` names. It prints its messages (see `show_messages`)."""
    show_messages()
    check_availability(cfg.TRAINER.NAME, TRAINER_REGISTRY.registered_names())
    if cfg.VERBOSE:
        log.info(f"Loading trainer: {cfg.TRAINER.NAME}")
    return TRAINER_REGISTRY.get(cfg.TRAINER.NAME)(cfg)
