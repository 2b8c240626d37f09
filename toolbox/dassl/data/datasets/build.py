from __future__ import annotations

import logging

from yacs.config import CfgNode

from ...utils import Registry, check_availability

log = logging.getLogger("dassl")

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> object:
    """The registered data set that `cfg.DATASET.NAME` names."""
    check_availability(cfg.DATASET.NAME, DATASET_REGISTRY.registered_names())
    if cfg.VERBOSE:
        log.info(f"Loading dataset: {cfg.DATASET.NAME}")
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
