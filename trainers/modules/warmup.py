"""The learning rate of prompt learning, epoch by epoch."""

import math
from collections.abc import Callable


def warmup_cosine(epochs: int, warmup: int, share: float) -> Callable[[int], float]:
    """Share of the initial learning rate in each epoch (from 0), for ``LambdaLR``, as Dassl's constant warm-up has it.

    ``share`` for the first ``warmup`` epochs, then half a cosine over ``epochs`` epochs that starts at 1. The warm-up
    does not shorten the cosine, so a run of ``epochs`` epochs ends before it comes to 0. Dassl's -1 stands for none.
    """
    warmup = max(0, warmup)
    return lambda epoch: share if epoch < warmup else (1 + math.cos(math.pi * (epoch - warmup) / epochs)) / 2
