"""Learning rates: how they change with steps or epochs, and how they differ with the depth of a layer."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, cast

from torch import Tensor, nn


def cosine(steps: int, end: float) -> Callable[[int], float]:
    """Share of the initial learning rate at each step (from 0), for ``LambdaLR``: half a cosine from 1 to ``end``.

    Args: steps: how many there are; after the last the share is ``end``, and stays there.
    """
    return lambda step: end + (1 - end) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def warmup_cosine(epochs: int, warmup: int, share: float) -> Callable[[int], float]:
    """Share of the initial learning rate in each epoch (from 0), for ``LambdaLR``, as Dassl's constant warm-up has it.

    ``share`` for the first ``warmup`` epochs, then half a cosine over ``epochs`` epochs that starts at 1. The warm-up
    does not shorten the cosine, so a run of ``epochs`` epochs ends before it comes to 0. Dassl's -1 stands for none.
    """
    warmup = max(0, warmup)
    return lambda epoch: share if epoch < warmup else (1 + math.cos(math.pi * (epoch - warmup) / epochs)) / 2


def layer_depths(visual: nn.Module) -> tuple[dict[str, int], int]:
    """How deep each parameter of an image tower lies, by name, and the depth of the head.

    A ViT counts its blocks (BEiT, arXiv 2106.08254): embeddings and the norm before the blocks are 0, block i is i + 1,
    what follows the blocks belongs to the head. A ResNet of CLIP counts its four stages: the stem is 0, stage i is i,
    the attention pool belongs to the head. Another tower counts the members of its longest list of layers
    (``longest_list_depths``).
    """
    if hasattr(visual, "transformer"):
        head = len(cast(Any, visual).transformer.resblocks) + 1
        block, first = re.compile(r"transformer\.resblocks\.(\d+)\."), re.compile(r"(conv1|ln_pre)\.|\w+_embedding$")
        shift = 1
    elif hasattr(visual, "layer4"):
        head, shift = 5, 0
        block, first = re.compile(r"layer(\d)\."), re.compile(r"(conv|bn)\d\.")
    else:
        return longest_list_depths(visual)
    depths = {}
    for name, _ in visual.named_parameters():
        inside = block.match(name)
        depths[name] = int(inside[1]) + shift if inside else 0 if first.match(name) else head
    return depths, head


def longest_list_depths(visual: nn.Module) -> tuple[dict[str, int], int]:
    """``layer_depths`` of any tower: member i of its longest ``nn.Sequential`` or ``nn.ModuleList`` is i + 1, what is
    declared before that list is 0, what is declared after it belongs to the head. Without a list all is the head."""
    names = [name for name, _ in visual.named_parameters()]
    lists = [(name, part) for name, part in visual.named_modules() if isinstance(part, nn.Sequential | nn.ModuleList)]
    if not lists:
        return dict.fromkeys(names, 0), 0
    longest, layers = max(lists, key=lambda found: len(found[1]))
    prefix, members = longest + "." if longest else "", [name for name, _ in layers.named_children()]
    depths, depth, head = {}, 0, len(members) + 1
    for name in names:  # in the order of declaration
        if name.startswith(prefix):
            depth = 1 + members.index(name.removeprefix(prefix).split(".")[0])
        elif depth:
            depth = head
        depths[name] = depth
    return depths, head


def layer_groups(
    parameters: Iterable[tuple[str, Tensor]], visual: nn.Module, rate: float, share: float
) -> list[dict[str, Any]]:
    """Groups for torch's optimizers in which each layer has `share` of the learning rate of the layer above.

    Those of the head come first, with `rate`. Matrices are decayed as the optimizer says, vectors are not.

    Args:
        parameters: by their names within `visual`; others count to the head.
    """
    depths, head = layer_depths(visual)
    members: dict[tuple[int, bool], list[Tensor]] = {}
    for name, parameter in parameters:
        members.setdefault((depths.get(name, head), parameter.ndim > 1), []).append(parameter)
    return [
        {"params": found, "lr": rate * share ** (head - depth)} | ({} if decayed else {"weight_decay": 0.0})
        for (depth, decayed), found in sorted(members.items(), key=lambda item: item[0], reverse=True)
    ]
