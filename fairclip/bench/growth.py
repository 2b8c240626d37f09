"""How the time of a step grows with crops, classes and batch, one at a time from a quarter of the batch."""

from collections import defaultdict
from statistics import median
from typing import Any

from fairclip.bench.measuring import seconds
from fairclip.bench.settings import Settings
from fairclip.bench.trainers import TrainerFactory


def measure_growth(factory: TrainerFactory, settings: Settings) -> dict[str, Any]:
    base = {"batch": settings.growth["batch"][0], "crops": settings.crops, "classes": settings.classes}
    known: dict[tuple[int, ...], float] = {}
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for name, values in settings.growth.items():
        for value in values:
            point = base | {name: value}
            key = tuple(point.values())
            if key not in known:
                known[key] = step_seconds(factory, point, settings.repeats)
            table[name][str(value)] = known[key]
    return {"growth_base": base, "growth_seconds": dict(table)}


def step_seconds(factory: TrainerFactory, sizes: dict[str, int], repeats: int) -> float:
    """Median time of a step of these sizes."""
    trainer = factory.build(**sizes)
    batch = next(iter(trainer.train_loader_x))
    times = [seconds(trainer.device, trainer.forward_backward, batch) for _ in range(repeats + 1)]
    return median(times[1:])  # the first one warms up
