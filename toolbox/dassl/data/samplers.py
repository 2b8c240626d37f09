"""Samplers: which images form a batch."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from torch.utils.data.sampler import RandomSampler, Sampler, SequentialSampler
from yacs.config import CfgNode

from ..utils import check_availability
from .datasets import Datum

AVAI_SAMPLERS = ["RandomDomainSampler", "SeqDomainSampler", "RandomSampler", "SequentialSampler", "RandomClassSampler"]


class _DomainSampler(Sampler):
    """Batches with equally many images of each of several domains.

    Args:
        data_source: list of Datum.
        batch_size: images of a batch.
        n_domain: domains of a batch; not positive: all.
        shuffle: draw the domains of each batch anew.

    Raises:
        ValueError: the batch size or the data does not allow that.
    """

    def __init__(self, data_source: list[Datum], batch_size: int, n_domain: int, shuffle: bool) -> None:
        self.domains: dict[int, list[int]] = defaultdict(list)
        for i, item in enumerate(data_source):
            self.domains[item.domain].append(i)
        self.names = sorted(self.domains)
        self.n_domain = len(self.names) if n_domain <= 0 else n_domain
        if self.n_domain > len(self.names):
            raise ValueError(f"A batch of {self.n_domain} domains is impossible: the data has {len(self.names)}")
        if batch_size < self.n_domain or batch_size % self.n_domain:
            raise ValueError(f"Batch size {batch_size} must be a multiple of the number of domains, {self.n_domain}")
        self.share = batch_size // self.n_domain
        self.shuffle = shuffle
        self.length = sum(1 for _ in self)

    def __iter__(self) -> Iterator[int]:
        # Ends as soon as one domain cannot fill its share any more.
        left = {name: random.sample(items, len(items)) for name, items in self.domains.items()}
        while all(len(items) >= self.share for items in left.values()):
            names = random.sample(self.names, self.n_domain) if self.shuffle else self.names[: self.n_domain]
            for name in names:
                taken, left[name] = left[name][: self.share], left[name][self.share :]
                yield from taken

    def __len__(self) -> int:
        return self.length


class RandomDomainSampler(_DomainSampler):
    """`n_domain` domains drawn for each batch, with equally many images each."""

    def __init__(self, data_source: list[Datum], batch_size: int, n_domain: int) -> None:
        super().__init__(data_source, batch_size, n_domain, shuffle=True)


class SeqDomainSampler(_DomainSampler):
    """All domains in each batch, in fixed order, with equally many images each."""

    def __init__(self, data_source: list[Datum], batch_size: int) -> None:
        super().__init__(data_source, batch_size, -1, shuffle=False)


class RandomClassSampler(Sampler):
    """`batch_size // n_ins` classes in each batch with `n_ins` images each, small classes with repetition."""

    def __init__(self, data_source: list[Datum], batch_size: int, n_ins: int) -> None:
        self.indices: dict[int, list[int]] = defaultdict(list)
        for i, item in enumerate(data_source):
            self.indices[item.label].append(i)
        self.n_ins = n_ins
        self.n_classes = batch_size // n_ins
        if not 1 <= self.n_classes <= len(self.indices):
            raise ValueError(
                f"Batch size {batch_size} with {n_ins} images a class makes {self.n_classes} classes a batch, "
                f"the data has {len(self.indices)}"
            )
        self.length = sum(1 for _ in self)

    def __iter__(self) -> Iterator[int]:
        piles = {}
        for label, items in self.indices.items():
            if len(items) < self.n_ins:
                items = np.random.choice(items, size=self.n_ins, replace=True).tolist()
            items = random.sample(items, len(items))
            full = len(items) - len(items) % self.n_ins
            piles[label] = [items[i : i + self.n_ins] for i in range(0, full, self.n_ins)]
        while len(piles) >= self.n_classes:
            for label in random.sample(list(piles), self.n_classes):
                yield from piles[label].pop()
                if not piles[label]:
                    del piles[label]

    def __len__(self) -> int:
        return self.length


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: list[Datum] | None = None,
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Sampler:
    """The sampler of that name. `cfg` is not used; it is in the interface for samplers that need it."""
    check_availability(sampler_type, AVAI_SAMPLERS)
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(data_source, batch_size, n_domain)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(data_source, batch_size)
    return RandomClassSampler(data_source, batch_size, n_ins)
