"""Running averages for log lines."""

from __future__ import annotations

from collections import defaultdict

import torch

__all__ = ["AverageMeter", "MetricMeter"]


class AverageMeter:
    """Last value (`val`), mean (`avg`), `sum` and `count`; with `ema`, `avg` is an exponential mean (factor 0.9)."""

    def __init__(self, ema: bool = False) -> None:
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        self.val = self.avg = self.sum = 0.0
        self.count = 0

    def update(self, val: float | torch.Tensor, n: int = 1) -> None:
        if isinstance(val, torch.Tensor):
            val = val.item()
        first = self.count == 0
        self.val = val
        self.sum += val * n
        self.count += n
        if not self.ema:
            self.avg = self.sum / self.count
        else:
            self.avg = val if first else 0.9 * self.avg + 0.1 * val


class MetricMeter:
    """Named `AverageMeter`s, fed by dictionaries: `meter.update({"loss": 0.3, "acc": 81.2})`."""

    def __init__(self, delimiter: str = " ") -> None:
        self.meters: dict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: dict | None) -> None:
        if input_dict is None:
            return
        if not isinstance(input_dict, dict):
            raise TypeError(f"expected a dictionary of scalars, got {type(input_dict).__name__}")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name} {m.val:.4f} ({m.avg:.4f})" for name, m in self.meters.items())
