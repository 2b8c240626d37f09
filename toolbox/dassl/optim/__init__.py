from .lr_scheduler import build_lr_scheduler
from .optimizer import build_optimizer
from .radam import RAdam

__all__ = ["RAdam", "build_lr_scheduler", "build_optimizer"]
