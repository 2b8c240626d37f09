"""What a trainer remembers of past batches: a row for each training image, or the last few tensors."""

from collections import deque

import torch
from torch import Tensor

from fairclip.core.errors import UserError

UNSEEN = -1  # label of an image that has no row yet


class MemoryBank:
    """The newest feature and pseudo-label of each of N training images, on ``device``: to write them elsewhere would
    make every step wait.

    Attributes:
        features: [N, d], float32, zero for an image not seen yet.
        labels: [N], int64, ``UNSEEN`` for an image not seen yet.
    """

    def __init__(self, n: int, d: int, device: torch.device | str = "cpu") -> None:
        self.features = torch.zeros(n, d, device=device)
        self.labels = torch.full((n,), UNSEEN, device=device)

    def write(self, index: Tensor, features: Tensor, labels: Tensor) -> None:
        """Replace the rows ``index`` [B] by ``features`` [B, d] and ``labels`` [B]. No image may occur twice."""
        device = self.labels.device
        index = index.to(device, non_blocking=True)
        self.features[index] = features.detach().to(device, torch.float32)
        self.labels[index] = labels.to(device)

    def state_dict(self) -> dict[str, Tensor]:
        return {"features": self.features, "labels": self.labels}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises UserError where the memory is one of other images."""
        if state["features"].shape != self.features.shape:
            raise UserError(
                f"the checkpoint remembers {len(state['features'])} training images of {state['features'].shape[1]} "
                f"features, and this run has {len(self.features)} of {self.features.shape[1]}: the data set has changed"
            )
        self.features.copy_(state["features"])
        self.labels.copy_(state["labels"])


class LabelMemory:
    """A running mean of the class probabilities of each of N training images: temporal ensembling (Laine & Aila, arXiv
    1610.02242).

    Attributes:
        probs: [N, K], float32, zero for an image not seen yet.
    """

    def __init__(self, n: int, classes: int, device: torch.device | str = "cpu") -> None:
        self.probs = torch.zeros(n, classes, device=device)

    def blend(self, index: Tensor, new: Tensor, share: float) -> Tensor:
        """share * remembered + (1 - share) * new, [B, K]; of an image not seen yet, the new alone. Writes nothing.

        Args: index, of the images, [B]; new, their probabilities, [B, K]; share, of what is remembered, in [0, 1).
        """
        old = self.probs[index.to(self.probs.device, non_blocking=True)]
        seen = old.sum(dim=1, keepdim=True) > 0
        return torch.where(seen, share * old + (1 - share) * new, new)

    def write(self, index: Tensor, probs: Tensor) -> None:
        """Replace the rows ``index`` [B] by ``probs`` [B, K]. No image may occur twice."""
        self.probs[index.to(self.probs.device, non_blocking=True)] = probs.detach()

    def state_dict(self) -> dict[str, Tensor]:
        return {"probs": self.probs}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Raises UserError where the memory is one of other images or classes."""
        if state["probs"].shape != self.probs.shape:
            then, now = (" x ".join(map(str, probs.shape)) for probs in (state["probs"], self.probs))
            raise UserError(f"the checkpoint remembers {then} training images and classes, and this run has {now}")
        self.probs.copy_(state["probs"])


class Queue:
    """The last ``length`` tensors of one shape, on ``device``."""

    def __init__(self, length: int, device: torch.device | str = "cpu") -> None:
        self.length, self.device = length, device
        self.items: deque[Tensor] = deque(maxlen=length)

    def push(self, item: Tensor) -> None:
        self.items.append(item.detach())

    def mean(self, *new: Tensor) -> Tensor:
        """Mean of what would be there after a push of ``new``; at least one must be. Pushes nothing."""
        return torch.stack((*self.items, *new)[-self.length :]).mean(dim=0)

    def state_dict(self) -> dict[str, list[Tensor]]:
        return {"items": list(self.items)}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        self.items = deque((item.to(self.device) for item in state["items"]), maxlen=self.length)
