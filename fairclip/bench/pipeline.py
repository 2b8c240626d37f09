"""Views a second for one core: ours, ours from the cache of decoded images, and the plain way."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T
from yacs.config import CfgNode

from fairclip.bench.measuring import seconds, torch_threads
from fairclip.bench.settings import Settings
from fairclip.bench.trainers import TrainerFactory


class PlainViews(Dataset):
    """Views the plain way: each decoded from the file anew, by torchvision's transforms on Pillow images, as floats."""

    def __init__(self, paths: Sequence[str], crops: int, inputs: CfgNode) -> None:
        size, bicubic = inputs.SIZE[0], {"interpolation": T.InterpolationMode.BICUBIC}
        end = [T.ToTensor(), T.Normalize(inputs.PIXEL_MEAN, inputs.PIXEL_STD)]
        weak = [T.Resize(size, **bicubic), T.RandomCrop(size), T.RandomHorizontalFlip(), *end]
        strong = [T.RandomResizedCrop(size, (0.5, 1.0), **bicubic), T.RandomHorizontalFlip(), T.RandAugment(2, 9), *end]
        crop = [T.RandomResizedCrop(size, (0.25, 0.8), (1.0, 1.0), **bicubic), *end]
        self.paths = paths
        self.transforms = [T.Compose(steps) for steps in (weak, strong, *crops * [crop])]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return torch.stack([transform(Image.open(self.paths[index]).convert("RGB")) for transform in self.transforms])


def measure_pipeline(factory: TrainerFactory, settings: Settings) -> dict[str, Any]:
    batches = settings.repeats + 1  # the first one warms up
    sizes = (settings.batch, settings.crops, settings.classes, batches)
    trainer = factory.build(*sizes)
    device, cfg = trainer.device, trainer.cfg
    paths = [item.impath for item in trainer.dm.dataset.train_x]
    plain = DataLoader(PlainViews(paths, settings.crops, cfg.INPUT), settings.batch, shuffle=True)

    # Of each way: its batches, and what brings one to the device.
    ways: dict[str, tuple[DataLoader, Callable[[Any], Tensor]]] = {
        "ours": (trainer.train_loader_x, lambda batch: trainer.pixels(batch["img"])),
        "plain": (plain, lambda batch: batch.to(device)),
    }
    if "CACHE" in cfg.DATALOADER:
        cached = factory.build(*sizes, DATALOADER__CACHE="ram")
        for _ in cached.train_loader_x:  # fills the cache
            pass
        ways["cached"] = (cached.train_loader_x, lambda batch: cached.pixels(batch["img"]))

    def next_batch(loader: Iterator[Any], to_device: Callable[[Any], Tensor]) -> Tensor:
        return to_device(next(loader))

    with torch_threads(1):
        running = {name: (iter(loader), to_device) for name, (loader, to_device) in ways.items()}
        times = [{name: seconds(device, next_batch, *way) for name, way in running.items()} for _ in range(batches)][1:]
    views = settings.batch * trainer.views_per_image
    return {
        "views_per_second": {name: views / median(t[name] for t in times) for name in ways},
        "pipeline_speedup": median(t["plain"] / t["ours"] for t in times),
        "photo_bytes": factory.photo_bytes,
    }
