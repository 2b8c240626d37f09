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
    """

    def __init__(self, visual: nn.Module, views: Tensor, prec: str) -> None:
        self.visual, self.prec, self.strong = visual, prec, views[:, 1].contiguous()
        self.others = torch.cat([views[:, :1], views[:, 2:]], dim=1).transpose(0, 1).flatten(0, 1)
        self.learned = [p for p in visual.parameters() if p.requires_grad]

    def step(self, chunk: int) -> None:
        """``chunk``: images in a pass without gradients."""
        for parameter in self.learned:
            parameter.grad = None
        with torch.no_grad(), autocast(self.strong.device, self.prec):
            for part in self.others.split(chunk):
                self.visual(part)
        with autocast(self.strong.device, self.prec):
            features = self.visual(self.strong)
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

    bare = BareEncoder(visual, trainer.pixels(batch["img"]), settings.prec)
    chunks = (settings.batch, 512)  # a view of the batch a time, or as many as fit: the faster one is compared
    times = [
        (seconds(device, trainer.forward_backward, batch), *(seconds(device, bare.step, chunk) for chunk in chunks))
        for _ in range(settings.repeats)
    ]
    step, *encoder = map(median, zip(*times, strict=True))
    flops = operations(visual, bare.strong[:1], trainer.views_per_image) * settings.batch
    speed = matmul_speed(device, settings.prec, settings.matmul)
    return {
        "step_seconds": step,
        "encoder_seconds": min(encoder),
        "encoder_seconds_by_chunk": dict(zip(map(str, chunks), encoder, strict=True)),
        # Neighbours in time are compared, so that what else the machine does weighs on both.
        "overhead_ratio": max(median(t[0] / t[1 + i] for t in times) for i in range(len(chunks))),
        "images_per_second": settings.batch / step,
        "operations_per_image": flops / settings.batch,
        "matmul_operations_per_second": speed,
        "floor_seconds": flops / speed,
        "memory_peak_bytes": peak,
        "memory_at_rest_bytes": at_rest,
    }
