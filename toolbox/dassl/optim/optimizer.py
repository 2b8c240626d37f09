from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import nn
from yacs.config import CfgNode

from ..utils import check_availability

log = logging.getLogger("dassl")

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(
    model: nn.Module | Iterable, optim_cfg: CfgNode, param_groups: Iterable | None = None
) -> torch.optim.Optimizer:
    """The optimizer that `cfg.OPTIM` describes.

    Args:
        model: a module, or an iterable of parameters or parameter groups.
        optim_cfg: `cfg.OPTIM`.
        param_groups: use these instead of the model's parameters.
    """
    c = optim_cfg
    check_availability(c.NAME, AVAI_OPTIMS)
    if param_groups is None:
        if c.STAGED_LR:
            param_groups = _staged_groups(model, c)
        else:
            param_groups = model.parameters() if isinstance(model, nn.Module) else model
    elif c.STAGED_LR:
        log.warning("OPTIM.STAGED_LR is ignored, as param_groups is given")

    common = {"lr": c.LR, "weight_decay": c.WEIGHT_DECAY}
    betas = (c.ADAM_BETA1, c.ADAM_BETA2)
    if c.NAME == "sgd":
        return torch.optim.SGD(
            param_groups, momentum=c.MOMENTUM, dampening=c.SGD_DAMPNING, nesterov=c.SGD_NESTEROV, **common
        )
    if c.NAME == "rmsprop":
        return torch.optim.RMSprop(param_groups, momentum=c.MOMENTUM, alpha=c.RMSPROP_ALPHA, **common)
    if c.NAME == "radam":
        return torch.optim.RAdam(param_groups, betas=betas, **common)
    if c.NAME == "adamw":
        return torch.optim.AdamW(param_groups, betas=betas, **common)
    return torch.optim.Adam(param_groups, betas=betas, amsgrad=c.NAME == "amsgrad", **common)


def _staged_groups(model: nn.Module, c: CfgNode) -> list[dict]:
    """Full learning rate for the children in NEW_LAYERS, a fraction of it for the others."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"OPTIM.STAGED_LR needs an nn.Module, got {type(model).__name__}")
    if isinstance(model, nn.DataParallel):
        model = model.module
    new_layers = [c.NEW_LAYERS] if isinstance(c.NEW_LAYERS, str) else list(c.NEW_LAYERS)
    if not any(new_layers):
        log.warning("OPTIM.STAGED_LR is on but OPTIM.NEW_LAYERS is empty")
    base, new = [], []
    for name, child in model.named_children():
        (new if name in new_layers else base).extend(child.parameters())
    return [{"params": base, "lr": c.LR * c.BASE_LR_MULT}, {"params": new}]
