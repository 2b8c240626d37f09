"""What classifiers on features of the frozen image tower share: the features, computed once for all of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .modules.features import encode_images


class FrozenFeatures:
    """Mixin of trainers whose image tower stays as it was loaded; goes before the trainer that it is mixed into.

    A subclass implements ``scores``; ``self.model`` has the tower as ``visual`` and unit features by ``encode``.

    Features are cached, so the seconds of a run would depend on what ran before. Whatever the cache saves is added to
    the seconds that are reported: they are those of a run that had to compute everything.
    """

    seconds_saved = 0.0

    def scores(self, features: Tensor) -> Tensor:
        """Logits [N, K] of all images of a split, from their features."""
        raise NotImplementedError

    def encode_list(self, images: Sequence[Any], title: str) -> Tensor:
        """Features of a list of Datum under the test transform, [N, d] or what ``encode_views`` makes of it."""
        loader = self.test_loader
        features, saved = encode_images(
            self.model.visual,
            [item.impath for item in images],
            loader.dataset.transform,
            self.encode_views,
            settings=f"{self.options.PREC} {self.encode_settings}",
            seed=self.crop_seed,
            batch=max(1, self.cfg.DATALOADER.TEST.BATCH_SIZE // self.views_per_image),
            workers=self.cfg.DATALOADER.NUM_WORKERS,
            title=title,
        )
        self.seconds_saved += saved
        print(f"Features of {len(images)} {title} images: " + ("from the cache" if saved else "computed"))
        return features

    encode_settings = ""  # what `encode_views` does beyond running the tower
    crop_seed = 0  # for test transforms that draw

    @property
    def encode_views(self) -> Callable[[Tensor], Tensor]:
        return self.model.encode

    @torch.no_grad()
    def predict(self, loader: DataLoader, title: str) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """The whole split as one batch."""
        images = loader.dataset.data_source
        logits = self.scores(self.encode_list(images, title))
        labels = torch.tensor([item.label for item in images], device=logits.device)
        yield logits, labels, [item.impath for item in images]

    def test(self, split: str | None = None) -> float:
        self.seconds_saved = 0.0
        accuracy = super().test(split)
        self.results["test_seconds"] += self.seconds_saved
        return accuracy
