"""The loaders of a run: batches of its images, by the keys of DATALOADER."""

from collections.abc import Callable, Sequence

import torch
from dassl.data.datasets import Datum
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from fairclip.run.checks import SAMPLERS, cache_settings
from fairclip.views.device_views import DrawOnly
from fairclip.views.image_cache import ImageCache
from fairclip.views.loading import Images, build_loader, reader
from fairclip.views.views import Views


class Loaders:
    """Makes loaders.

    Args:
        kept: the images that DATALOADER.CACHE keeps decoded: those that come again in each epoch.
        upright: how images are read, see ``as_rgb``.
    """

    def __init__(self, cfg: CfgNode, device: torch.device, kept: Sequence[Datum], upright: bool = False) -> None:
        self.nodes, self.device, self.kept = cfg.DATALOADER, device, kept
        kind, gigabytes = cache_settings(cfg)
        self.read = reader(upright)
        self.cache = None if kind == "none" else ImageCache(kind, gigabytes, upright)

    def make(self, images: Sequence[Datum], transform: Callable, train: bool = False) -> DataLoader:
        """Batches of these images: in training shuffled and all of one size, else in order."""
        if self.cuts_on_device and isinstance(transform, Views) and transform.interpolation == "bicubic":
            transform = DrawOnly(transform)
        nodes = self.nodes
        read = self.cache.read if self.cache and images is self.kept else self.read
        return build_loader(
            Images([item.impath for item in images], [item.label for item in images], transform, read=read),
            nodes.TRAIN_X.BATCH_SIZE if train else nodes.TEST.BATCH_SIZE,
            nodes.NUM_WORKERS,
            self.device,
            shuffle=train and SAMPLERS[nodes.TRAIN_X.SAMPLER],
            train=train,
        )

    @property
    def cuts_on_device(self) -> bool:
        """Whether the views of ``Views`` are cut on the device, which knows no other interpolation than bicubic. Other
        transforms are always done by the workers."""
        place = self.nodes.get("VIEWS", "auto")
        return self.device.type == "cuda" if place == "auto" else place == "device"
