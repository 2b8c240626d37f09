"""What a step with the loader spends its time on."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from fairclip.bench.measuring import seconds, synchronize
from fairclip.bench.settings import Settings
from fairclip.bench.trainers import TrainerFactory


class Stopwatch:
    """Time by stage. A stage inside another one stops the other's clock, so that the stages add up to the whole."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.spent: dict[str, float] = defaultdict(float)
        self.open: list[str] = []
        self.last = 0.0

    def _charge(self) -> None:
        synchronize(self.device)  # each stage waits for its own work: on a GPU the sum is above an undisturbed step
        now = time.perf_counter()
        if self.open:
            self.spent[self.open[-1]] += now - self.last
        self.last = now

    def enter(self, stage: str) -> None:
        self._charge()
        self.open.append(stage)

    def leave(self) -> None:
        self._charge()
        self.open.pop()

    def timed(self, stage: str, work: Callable) -> Callable:
        def inside(*args: Any, **kwargs: Any) -> Any:
            self.enter(stage)
            try:
                return work(*args, **kwargs)
            finally:
                self.leave()

        return inside

    def watch(self, trainer: Any) -> None:
        """Time the parts of this trainer's steps."""
        trainer.pixels = self.timed("to device, normalise", trainer.pixels)
        trainer.descend = self.timed("backward", trainer.descend)
        trainer.forward_backward = self.timed("scores, weights, losses", trainer.forward_backward)
        visual = trainer.model.visual
        visual.register_forward_pre_hook(
            lambda *_: self.enter("student's views, forward" if torch.is_grad_enabled() else "views without gradients")
        )
        visual.register_forward_hook(lambda *_: self.leave())
        (name,) = trainer.get_model_names()
        trainer._optims[name].register_step_pre_hook(lambda *_: self.enter("optimizer"))
        trainer._optims[name].register_step_post_hook(lambda *_: self.leave())


def measure_stages(factory: TrainerFactory, settings: Settings) -> dict[str, Any]:
    sizes = (settings.batch, settings.crops, settings.classes, settings.repeats + 1)
    trainer = factory.build(*sizes, DATALOADER__NUM_WORKERS=settings.workers)
    watch = Stopwatch(trainer.device)
    watch.watch(trainer)
    load = watch.timed("wait for the loader", next)
    batches = iter(trainer.train_loader_x)

    def steps(count: int) -> None:
        for _ in range(count):
            trainer.forward_backward(load(batches))

    steps(1)  # warms up, and starts the workers
    watch.spent.clear()
    total = seconds(trainer.device, steps, settings.repeats)
    return {
        "stages_step_seconds": total / settings.repeats,
        "stages_seconds": {stage: spent / settings.repeats for stage, spent in watch.spent.items()},
        "workers": trainer.train_loader_x.num_workers,
    }
