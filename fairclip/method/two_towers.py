"""A classifier that keeps its text tower, for methods that train it, too."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairclip.backbones.backbone import Backbone, Tokenizer
from fairclip.method.anchors import AnchorClassifier
from fairclip.text.templates import prompt


class TwoTowers(AnchorClassifier):
    """An image tower with one vector a class, and the text tower beside it. Nothing is trained yet.

    Args:
        backbone: whose towers these are.
        anchors: [K, d].
        prec: precision of both towers' arithmetic, "fp32", "amp" or "bf16"; features are always float32.
    """

    def __init__(self, backbone: Backbone, anchors: Tensor, prec: str = "fp32") -> None:
        super().__init__(backbone.visual, anchors, backbone.tau, prec)
        self.text = backbone.text.requires_grad_(False)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Unit features of texts in float32, [M, d]; in as many pieces as TRAIN.MICRO_BATCH or CHUNK says of images.

        Args: tokens, what the backbone's tokenizer made of M texts.
        """
        return F.normalize(self.features(tokens, self.text), dim=-1)

    @torch.no_grad()
    def encode_many_texts(self, tokens: Tensor, batch: int = 256) -> Tensor:
        """The same without a gradient, for any number of texts."""
        return torch.cat([self.encode_texts(part) for part in tokens.split(batch)])

    def of_texts_alone(self, parameters: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """Those that are not the image tower's, nor a temperature, which no feature depends on: a text tower's module
        may hold both."""
        others = {id(parameter) for parameter in self.visual.parameters()}
        return {
            name: parameter
            for name, parameter in parameters.items()
            if id(parameter) not in others and parameter.ndim and not name.endswith(("logit_scale", "logit_bias"))
        }


def name_tokens(tokenizer: Tokenizer, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Tokens of each class name in each template, [K, T, ...]."""
    texts = [prompt(template, name) for name in classnames for template in templates]
    return tokenizer(texts).unflatten(0, (len(classnames), len(templates)))
