"""A step on a given batch, beside the bare encoder and beside what its arithmetic takes at the least."""

from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from fairclip.backbones.precision import autocast
from fairclip.bench.measuring import matmul_speed, operations, peak_memory, reset_peak, seconds, synchronize
from fairclip.bench.settings import Settings
from fairclip.bench.trainers import TrainerFactory


class BareEncoder:
    """The encoder alone: a step's passes on views that are there already, normalised and on the device.

    Args:
        views: [B, 2 + N, 3, S, S] as FAIR has them: weak, strong, crops.
        learned: how many of them, from the strong one on, have a gradient.
    """

    def __init__(self, visual: nn.Module, views: Tensor, learned: int, prec: str) -> None:
        self.visual, self.prec = visual, prec
        self.seen = views[:, 1 : 1 + learned].flatten(0, 1)
        self.others = torch.cat([views[:, :1], views[:, 1 + learned :]], dim=1).transpose(0, 1).flatten(0, 1)
        self.learned = [p for p in visual.parameters() if p.requires_grad]

    def step(self, chunk: int) -> None:
        """``chunk``: images in a pass without gradients."""
        for parameter in self.learned:
            parameter.grad = None
        with torch.no_grad(), autocast(self.seen.device, self.prec):
            for part in self.others.split(chunk):
                self.visual(part)
        with autocast(self.seen.device, self.prec):
            features = self.visual(self.seen)
        features.float().sum().backward()


def measure_step(factory: TrainerFactory, settings: Settings) -> dict[str, Any]:
    trainer = factory.build(settings.batch, settings.crops, settings.classes)
    device, visual = trainer.device, trainer.model.visual
    batch = next(iter(trainer.train_loader_x))
    reset_peak(device)
    at_rest = peak_memory(device)
    trainer.forward_backward(batch)  # warms up
    synchronize(device)
    peak = peak_memory(device)

    learned = 1 + trainer.student_crops
    bare = BareEncoder(visual, trainer.pixels(batch["img"]), learned, trainer.prec)
    chunks = (settings.batch, 512)  # a view of the batch a time, or as many as fit: the faster one is compared
    times = [
        (seconds(device, trainer.forward_backward, batch), *(seconds(device, bare.step, chunk) for chunk in chunks))
        for _ in range(settings.repeats)
    ]
    step, *encoder = map(median, zip(*times, strict=True))
    forward, both = operations(visual, bare.seen[:1])
    flops = forward * (trainer.views_per_image - learned) + both * learned
    speed = matmul_speed(device, trainer.prec, settings.matmul)
    return {
        "step_seconds": step,
        "encoder_seconds": min(encoder),
        "encoder_seconds_by_chunk": dict(zip(map(str, chunks), encoder, strict=True)),
        # Neighbours in time are compared, so that what else the machine does weighs on both.
        "overhead_ratio": max(median(t[0] / t[1 + i] for t in times) for i in range(len(chunks))),
        "images_per_second": settings.batch / step,
        "step_prec": trainer.prec,
        "operations_per_image": flops,
        "forward_equivalents": flops / forward,
        "matmul_operations_per_second": speed,
        "floor_seconds": flops * settings.batch / speed,
        "memory_peak_bytes": peak,
        "memory_at_rest_bytes": at_rest,
    }
