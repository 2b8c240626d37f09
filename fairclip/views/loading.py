"""Batches of images whose content depends on (seed, image) alone: not on workers, nor on what was read before."""

import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from fairclip.core.bars import bar
from fairclip.core.distributed import is_main, local_world, rank, world
from fairclip.core.errors import UserError
from fairclip.core.rgb import as_rgb
from fairclip.core.stopping import leave_stopping_to_parent, stop_if_asked

T = TypeVar("T")


def mixed_seed(*numbers: int) -> int:
    """A well-mixed 32-bit seed from numbers of at least 0."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Inside, the generators of torch (CPU), numpy and Python start from ``seed``; afterwards they are as before."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def read_image(path: str | os.PathLike, min_side: int = 0, upright: bool = False) -> Image.Image:
    """An image as RGB. A JPEG is decoded at 1/2, 1/4 or 1/8 where its short side stays at ``min_side`` or above (in
    pixels; 0: never), which takes a fraction of the time. ``upright``: see ``as_rgb``.

    Raises:
        OSError: it is missing or cannot be read.
    """
    with Image.open(path) as image:
        if min_side:
            image.draft("RGB", (min_side, min_side))
        return as_rgb(image, upright)


def reader(upright: bool) -> Callable[..., Image.Image]:
    """``read_image`` with this setting; can be sent to workers."""
    return partial(read_image, upright=True) if upright else read_image


def shrink(image: Image.Image, side: int) -> Image.Image:
    """The image with a short side of ``side`` pixels (bicubic, anti-aliased) if it has twice that or more and ``side``
    is not 0, else as it is: to shrink by less saves little, and would soften the views."""
    short = min(image.size)
    if not 0 < 2 * side <= short:
        return image
    return image.resize([round(length * side / short) for length in image.size], Image.Resampling.BICUBIC)


class Images(Dataset):
    """Image files as a torch data set. An item is a dictionary: `img` (the transformed image), `label` (-1: unknown),
    `impath` and `index` (position in the list).

    Args:
        read: what opens an image, given its path and the transform's ``min_side`` (0 where it has none).

    Attributes:
        seed: where the draws of all images start from, one number in memory that workers share.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: Sequence[int] | None,
        transform: Callable,
        seed: int = 0,
        read: Callable[[str, int], Image.Image] = read_image,
    ) -> None:
        self.paths, self.transform, self.read = list(paths), transform, read
        self.labels = [-1] * len(self.paths) if labels is None else list(labels)
        self.seed = torch.tensor([seed]).share_memory_()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict:
        path = self.paths[index]
        image = self.read(path, getattr(self.transform, "min_side", 0))
        with drawing_from(mixed_seed(int(self.seed), index)):
            view = self.transform(image)
        return {"img": view, "label": self.labels[index], "impath": path, "index": index}


def collate(items: list[dict]) -> dict:
    """A batch of what ``Images`` gives: as torch does it, but a transform's own objects are joined by their class."""
    views = [item["img"] for item in items]
    if not hasattr(views[0], "join"):
        return default_collate(items)
    rest = [{key: value for key, value in item.items() if key != "img"} for item in items]
    return {"img": views[0].join(views)} | default_collate(rest)


class Batches(Sampler[list[int]]):
    """Positions in a list, batch by batch; shuffled, they are in an order that ``seed`` decides.

    Of several processes, each takes its part of every batch in training, so that the batches are those of one process;
    in evaluation each takes every n-th position, in batches of ``size`` (``distributed.gather_list`` undoes that).

    Args:
        count: length of the list.
        size: of a batch.
        train: drop the last, smaller batch unless it is the only one.

    Raises:
        UserError: on iteration; the only batch is smaller than ``size``, and the processes cannot share it evenly.
    """

    def __init__(self, count: int, size: int, shuffle: bool, train: bool) -> None:
        self.count, self.size, self.shuffle, self.train = count, size, shuffle, train
        self.seed = 0

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(self.count)
        if self.shuffle:
            order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed))
        if not self.train:
            order = order[rank() :: world()]
        batches = order.split(self.size)[: len(self)]
        if self.train:
            if self.count < self.size and self.count % world():
                raise UserError(
                    f"{self.count} training images are less than a batch, and {world()} processes cannot share them "
                    f"evenly: set DATALOADER.TRAIN_X.BATCH_SIZE to a multiple of {world()} that is not above "
                    f"{self.count}, or start fewer processes"
                )
            batches = [batch.chunk(world())[rank()] for batch in batches]
        return (batch.tolist() for batch in batches)

    def __len__(self) -> int:
        if self.train and self.count >= self.size:
            return self.count // self.size
        count = self.count if self.train else len(range(rank(), self.count, world()))
        return -(-count // self.size)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def silence_stopped_reader(worker: int) -> None:
    """For ``worker_init_fn``: no traceback from a worker whose main process is stopped just as it takes a batch. The
    thread that sends batches reports by ``sys.excepthook``; errors of the data set are passed on in another way."""
    report = sys.excepthook
    sys.excepthook = lambda kind, *rest: None if issubclass(kind, (EOFError, OSError)) else report(kind, *rest)


def start_worker(worker: int) -> None:
    silence_stopped_reader(worker)
    leave_stopping_to_parent()


def build_loader(
    images: Images, size: int, workers: int, device: torch.device, shuffle: bool = False, train: bool = False
) -> DataLoader:
    """A loader of batches of ``size`` images (see ``Batches``).

    Workers (never more than the process's share of the cores) stay alive between epochs. The order of a shuffled epoch
    and the draws of its images are those of the last ``set_seed``.
    """
    workers = min(workers, max(1, cores() // local_world()))
    return DataLoader(
        images,
        batch_sampler=Batches(len(images), size, shuffle, train),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=start_worker,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else it takes a number from torch's, and what runs after differs
    )


def images_of(loader: DataLoader) -> Images:
    """The data set of a loader that ``build_loader`` made."""
    assert isinstance(loader.dataset, Images)
    return loader.dataset


def set_seed(loader: DataLoader, seed: int) -> None:
    """Decide order and draws of the next epoch of what ``build_loader`` made; not while an epoch is under way."""
    cast(Images, loader.dataset).seed.fill_(seed)
    cast(Batches, loader.batch_sampler).seed = seed


def progress(batches: Iterable[T], title: str) -> Iterator[T]:
    """The same with a bar, where the main process has a terminal; a signal to stop ends it."""
    for batch in bar(batches, title, shown=is_main()):
        stop_if_asked()
        yield batch
