from __future__ import annotations

import logging

from yacs.config import CfgNode

from ..utils import Registry, check_availability

log = logging.getLogger("dassl")

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: CfgNode, **kwargs: object) -> object:
    """The registered evaluator that `cfg.TEST.EVALUATOR` names."""
    check_availability(cfg.TEST.EVALUATOR, EVALUATOR_REGISTRY.registered_names())
    if cfg.VERBOSE:
        log.info(f"Loading evaluator: {cfg.TEST.EVALUATOR}")
    return EVALUATOR_REGISTRY.get(cfg.TEST.EVALUATOR)(cfg, **kwargs)
