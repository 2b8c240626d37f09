"""What classifiers on features of the frozen image tower share: the features, computed once for all of them."""

import time
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fairclip.core.log import log
from fairclip.run.base import AdaptationTrainer
from fairclip.run.protocol import accuracies
from fairclip.views.features import encode_images
from fairclip.views.loading import Images, images_of


class FeatureRows(Images):
    """Features in the place of images: `img` of an item is a row [d].

    Args:
        images: N of them.
        features: theirs, [N, d].
        chosen: positions in both, [S]: the items of this set.
    """

    def __init__(self, images: Images, features: Tensor, chosen: Tensor) -> None:
        positions = chosen.tolist()
        super().__init__([images.paths[i] for i in positions], [images.labels[i] for i in positions], nn.Identity())
        self.features = features[chosen].cpu()

    def __getitem__(self, index: int) -> dict:
        return {"img": self.features[index], "label": self.labels[index], "index": index}


class FrozenFeatures(AdaptationTrainer):
    """Base of trainers whose image tower stays as it was loaded.

    A subclass implements ``scores``; ``self.model`` has the tower as ``visual`` and unit features by ``encode``. Of a
    ``stream`` method they are in the order in which the images arrive, which the seed draws.

    Features are cached, so the seconds of a run would depend on what ran before. Whatever the cache saves is added to
    the seconds that are reported: they are those of a run that had to compute everything.
    """

    seconds_saved = 0.0

    def scores(self, features: Tensor) -> Tensor:
        """Logits [N, K] of images that come together, from their features: all of a split, or a batch of it."""
        raise NotImplementedError

    def encode_all(self, images: Images, title: str) -> Tensor:
        """Features of all these images, [N, d] or what ``encode_views`` makes of the test transform's views."""
        if title not in self.known:
            start = time.time()
            features, saved = encode_images(
                self.model.visual,
                images.paths,
                images_of(self.test_loader).transform,
                partial(self.memory_guard.run, self.encode_views),
                settings=f"{self.prec} {self.normalize} {self.backbone_facts} {self.encode_settings}",
                seed=self.crop_seed,
                batch=max(1, self.cfg.DATALOADER.TEST.BATCH_SIZE // self.views_per_image),
                workers=self.cfg.DATALOADER.NUM_WORKERS,
                title=title,
                upright=self.upright,
            )
            self.seconds_saved += saved
            self.known[title] = features, saved or time.time() - start
            log.info(f"Features of {len(images)} {title} images: " + ("from the cache" if saved else "computed"))
        else:
            self.seconds_saved += self.known[title][1]
        return self.known[title][0]

    @cached_property
    def known(self) -> dict[str, tuple[Tensor, float]]:
        """Features by split, and the seconds that they took or would have taken."""
        return {}

    @property
    def encode_settings(self) -> str:
        """What ``encode_views`` does beyond running the tower."""
        return ""

    @property
    def crop_seed(self) -> int:
        """For test transforms that draw."""
        return 0

    def encode_views(self, views: Tensor) -> Tensor:
        return self.model.encode(views)

    @torch.no_grad()
    def predict(self, loader: DataLoader, title: str) -> Tensor:
        """Logits of all images, [N, K], in the loader's order."""
        features = self.encode_all(images_of(loader), title)
        if not self.stream:
            return self.scores(features)
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(self.seed)).to(features.device)
        found = self.scores(features[order])
        return torch.empty_like(found).index_copy_(0, order, found)

    def test(self, split: str | None = None, **_: Any) -> float:
        self.seconds_saved = 0.0
        accuracy = super().test(split)
        self.results["test_seconds"] += self.seconds_saved
        if self.cfg.TEST.get("PROTOCOLS", False) and (self.transductive or self.stream):
            self.results["protocols"] = self.by_protocol(self.results["split"])
        return accuracy

    @torch.no_grad()
    def by_protocol(self, split: str) -> dict[str, float]:
        """Accuracies under ``fairclip.run.protocol``. The labels say which images come together, and what is right."""
        images = images_of(self.loader_of(split))
        features, labels = self.encode_all(images, split), torch.tensor(images.labels)

        def are_right(parts: list[np.ndarray]) -> np.ndarray:
            order = torch.from_numpy(np.concatenate(parts))
            chosen = [order] if self.stream else [torch.from_numpy(part) for part in parts]  # a stream remembers
            guesses = [self.scores(features[part.to(features.device)]).argmax(dim=1).cpu() for part in chosen]
            return (torch.cat(guesses) == labels[order]).numpy()

        log.info("Batches with few classes, and streams")
        return accuracies(images.labels, are_right)
