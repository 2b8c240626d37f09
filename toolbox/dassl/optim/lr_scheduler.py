from __future__ import annotations

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR
from yacs.config import CfgNode

from ..utils import check_availability

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]


class _WarmupScheduler(LRScheduler):
    """`warmup_epoch` steps of its own, then `successor` takes over from its first value.

    Its state holds the successor's state dict, not the object, so that checkpoints stay plain data.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, successor: LRScheduler, warmup_epoch: int, last_epoch: int = -1
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def warmup_lr(self) -> list[float]:
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        return self.successor.get_last_lr() if self.last_epoch >= self.warmup_epoch else self.warmup_lr()

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)

    def state_dict(self) -> dict:
        return {**super().state_dict(), "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        state = dict(state_dict)
        successor = state.pop("successor")
        if isinstance(successor, LRScheduler):  # a checkpoint of upstream Dassl
            successor = successor.state_dict()
        super().load_state_dict(state)
        self.successor.load_state_dict(successor)


class ConstantWarmupScheduler(_WarmupScheduler):
    """A constant learning rate during warm-up."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        cons_lr: float,
        last_epoch: int = -1,
    ) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[float]:
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_WarmupScheduler):
    """`min_lr` first, then the share epoch / warmup_epoch of the base learning rate."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        min_lr: float,
        last_epoch: int = -1,
    ) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch)

    def warmup_lr(self) -> list[float]:
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer: torch.optim.Optimizer, optim_cfg: CfgNode) -> LRScheduler:
    """The scheduler that `cfg.OPTIM` describes; it is stepped once an epoch (`trainer.update_lr()`)."""
    c = optim_cfg
    check_availability(c.LR_SCHEDULER, AVAI_SCHEDS)
    steps = [c.STEPSIZE] if isinstance(c.STEPSIZE, int) else list(c.STEPSIZE)
    if c.LR_SCHEDULER == "single_step":
        scheduler = StepLR(optimizer, step_size=steps[-1] if steps[-1] > 0 else c.MAX_EPOCH, gamma=c.GAMMA)
    elif c.LR_SCHEDULER == "multi_step":
        scheduler = MultiStepLR(optimizer, milestones=steps, gamma=c.GAMMA)
    else:
        scheduler = CosineAnnealingLR(optimizer, T_max=float(c.MAX_EPOCH))

    if c.WARMUP_EPOCH <= 0:
        return scheduler
    if not c.WARMUP_RECOUNT:  # the warm-up epochs count for the schedule proper
        scheduler.last_epoch = c.WARMUP_EPOCH
    if c.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, c.WARMUP_EPOCH, c.WARMUP_CONS_LR)
    if c.WARMUP_TYPE == "linear":
        return LinearWarmupScheduler(optimizer, scheduler, c.WARMUP_EPOCH, c.WARMUP_MIN_LR)
    raise ValueError(f'OPTIM.WARMUP_TYPE must be "constant" or "linear", got "{c.WARMUP_TYPE}"')
