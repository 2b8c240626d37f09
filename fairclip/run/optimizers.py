"""The optimizer of a run, by the keys of OPTIM. It is torch's own: Dassl's helper differs from release to release."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from yacs.config import CfgNode

from fairclip.core.errors import require

NAMES = ("adam", "amsgrad", "adamw", "radam", "sgd", "rmsprop")
# The keys of OPTIM that some of them read, besides LR and WEIGHT_DECAY.
KEYS_OF = {
    "sgd": ("MOMENTUM", "SGD_DAMPNING", "SGD_NESTEROV"),
    "rmsprop": ("MOMENTUM", "RMSPROP_ALPHA"),
    **dict.fromkeys(("adam", "amsgrad", "adamw", "radam"), ("ADAM_BETA1", "ADAM_BETA2")),
}


def build_optimizer(optim: CfgNode, groups: Sequence[dict[str, Any]]) -> Optimizer:
    """For these groups of parameters, as torch takes them; what a group does not say is as OPTIM says.

    Raises:
        UserError: OPTIM.NAME is none of ``NAMES``.
    """
    require(optim.NAME in NAMES, f"OPTIM.NAME {optim.NAME!r}: choose one of {', '.join(NAMES)}")
    common = {"lr": optim.LR, "weight_decay": optim.WEIGHT_DECAY}
    if optim.NAME == "sgd":
        return torch.optim.SGD(
            groups, momentum=optim.MOMENTUM, dampening=optim.SGD_DAMPNING, nesterov=optim.SGD_NESTEROV, **common
        )
    if optim.NAME == "rmsprop":
        return torch.optim.RMSprop(groups, momentum=optim.MOMENTUM, alpha=optim.RMSPROP_ALPHA, **common)
    betas = (optim.ADAM_BETA1, optim.ADAM_BETA2)
    if optim.NAME == "adamw":
        return torch.optim.AdamW(groups, betas=betas, **common)
    if optim.NAME == "radam":
        return torch.optim.RAdam(groups, betas=betas, **common)
    return torch.optim.Adam(groups, betas=betas, amsgrad=optim.NAME == "amsgrad", **common)


def split_biases(parameters: dict[str, nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Of parameters by name, those that are no biases, and the biases."""
    biases = [parameter for name, parameter in parameters.items() if name.endswith("bias")]
    return [parameter for name, parameter in parameters.items() if not name.endswith("bias")], biases
