"""A backbone: two towers into one space, and all that methods, caches and configs need to know about them.

``fairclip.backbones.makers`` makes one of a name.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fairclip.backbones.network import CLIP
from fairclip.backbones.pixels import Pixels
from fairclip.core.errors import UserError


class Tokenizer(Protocol):
    """Texts -> token ids [M, T] on the CPU, T the same for all texts. What is too long loses its end."""

    def __call__(self, texts: Sequence[str]) -> Tensor: ...


class Options(NamedTuple):
    """What can be told about a backbone, besides its name."""

    size: int = 0  # side of its input in pixels, to which position embeddings are interpolated; 0: its own
    heads: tuple[int, ...] = ()  # attention heads of the image and the text tower; (): as the file says
    activation: str = ""  # of both towers; "": as the file says

    def plain(self) -> list[Any]:
        """As JSON has it."""
        return [self.size, list(self.heads), self.activation]

    @classmethod
    def of(cls, plain: Sequence[Any]) -> "Options":
        size, heads, activation = plain
        return cls(size, tuple(heads), activation)


NO_OPTIONS = Options()


class UnknownBackbone(UserError):
    """MODEL.BACKBONE.NAME is neither a known name nor a file that is there."""


@dataclass(frozen=True)
class Backbone:
    """A dual encoder in float32 and evaluation mode.

    Attributes:
        name: MODEL.BACKBONE.NAME.
        visual: the image tower, [B, 3, S, S] -> [B, d], features of any length.
        text: the text tower, what the tokenizer made [M, T] -> [M, d]. It may hold the image tower too, as `visual`.
        tokenizer: texts -> what ``text`` takes.
        tau: inverse temperature: what cosines are multiplied by before a softmax.
        size: S.
        width: d.
        pixels: how images are prepared.
        facts: what decides features and is in no tensor, such as the number of heads; "": nothing.
        options: what it was made with.
        clip: the whole network, where it is OpenAI's.
        config: what open_clip builds it from, where it is one of its models.
    """

    name: str
    visual: nn.Module
    text: nn.Module
    tokenizer: Tokenizer
    tau: float
    size: int
    width: int
    pixels: Pixels
    facts: str = ""
    options: Options = NO_OPTIONS
    clip: CLIP | None = None
    config: Mapping[str, Any] | None = None

    @property
    def openai(self) -> CLIP:
        """The network whose inner modules prompt learning reaches into.

        Raises:
            UserError: it is another one.
        """
        if self.clip is None:
            raise UserError(f"{self.name} is not a CLIP in OpenAI's layout, and that is needed here")
        return self.clip

    @property
    def whole(self) -> nn.Module:
        """Both towers in one module, of a model that came as one."""
        assert isinstance(self.text, TextTower)
        return self.text.model

    @property
    def device(self) -> torch.device:
        return next(self.visual.parameters()).device

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that decides an image's features."""
        return fingerprint(self.visual.state_dict(), *self._facts)

    @cached_property
    def text_hash(self) -> str:
        """SHA-256 of all that decides the features of texts, and of the temperature. Text towers are never trained:
        they are read through once."""
        state = {name: t for name, t in self.text.state_dict().items() if "visual." not in name}
        return fingerprint(state, self.tau, *self._facts)

    def text_fingerprint(self, tokens: Tensor) -> str:
        """SHA-256 of all that decides the features of texts with these tokens, on this kind of device."""
        return fingerprint({"tokens": tokens}, self.text_hash, self.device.type)

    @property
    def _facts(self) -> tuple[str, ...]:
        return (self.facts,) if self.facts else ()


class TextTower(nn.Module):
    """The text side of a model that has both, and ``encode_text``: token ids [M, T] -> [M, d]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens)


# -- What all have -----------------------------------------------------------------------------------------------------

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)


def norm_parameters(tower: nn.Module, which: str = "image") -> dict[str, nn.Parameter]:
    """Affine parameters of a tower's normalisation layers, by name, in module order. ``which``: for the message.

    Torch's layers and their subclasses, and others that are called norms (timm's RmsNorm and LayerNorm2d).
    """
    found = {
        f"{prefix}.{name}".lstrip("."): parameter
        for prefix, module in tower.named_modules()
        if isinstance(module, NORMS) or type(module).__name__.lower().removesuffix("2d").endswith("norm")
        for name, parameter in module.named_parameters(recurse=False)
    }
    if not found:
        raise UserError(f"the {which} tower has no normalisation layers with parameters: nothing to adapt")
    return found


def fingerprint(tensors: Mapping[str, Tensor], *facts: object) -> str:
    """SHA-256 over the names, types, shapes and values of tensors, such as a module's state_dict(), the same in any
    order and on every device; and over other facts, by their repr."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    for fact in facts:
        digest.update(f"{fact!r}\0".encode())
    return digest.hexdigest()
