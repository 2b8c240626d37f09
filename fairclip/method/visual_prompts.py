"""Visual prompt tuning (VPT, arXiv 2203.12119) as LaFTer (arXiv 2305.18287) does it: learned tokens among those of the
image, at the first layer of CLIP's Vision Transformer."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fairclip.backbones.towers import ImageClassifier
from fairclip.core.errors import UserError

if TYPE_CHECKING:
    from clip.model import VisionTransformer


USE = "LaFTer puts prompt tokens into"  # what it needs a Vision Transformer for


def check_vit(visual: nn.Module, use: str = USE) -> None:
    """Raises UserError if the image tower is no Vision Transformer of CLIP's layout: others have no such tokens."""
    parts = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer", "ln_post", "proj")
    if not all(hasattr(visual, part) for part in parts):
        raise UserError(vit_needed(f"this backbone's image tower is a {type(visual).__name__}", use))


def vit_needed(instead: str, use: str = USE) -> str:
    """The message for a backbone that is no Vision Transformer; ``instead`` says what it is."""
    return (
        f"{use} a Vision Transformer, and {instead}. Set MODEL.BACKBONE.NAME to a ViT: "
        "ViT-B/32, ViT-B/16, ViT-L/14 or tiny"
    )


def first_tokens(visual: "VisionTransformer", images: Tensor) -> Tensor:
    """What the first block takes, but for the order of its axes: the class token and the patches, [B, 1 + P, width]."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)  # [B, patches, width]
    first = visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    return visual.ln_pre(torch.cat([first, patches], dim=1) + visual.positional_embedding.to(patches.dtype))


def initial_prompts(visual: "VisionTransformer", n: int, generator: torch.Generator) -> Tensor:
    """n prompt tokens [n, width], uniform within the bound of Xavier's rule for patches: sqrt(6 / (3 P P + width)).

    The width of a token and the side P of a patch (in pixels) are the image tower's.
    """
    width, channels, height, breadth = visual.conv1.weight.shape
    bound = (6 / (channels * height * breadth + width)) ** 0.5
    return torch.empty(n, width, device=visual.conv1.weight.device).uniform_(-bound, bound, generator=generator)


def encode_with_prompts(visual: "VisionTransformer", images: Tensor, prompts: Tensor) -> Tensor:
    """The image tower's features with prompt tokens behind the class token; they have no position.

    Args:
        visual: CLIP's Vision Transformer.
        images: [B, 3, S, S].
        prompts: [n, width]. With n = 0 the features are those of ``visual(images)``.

    Returns:
        [B, d], of any length.
    """
    tokens = first_tokens(visual, images)
    among = prompts.to(tokens.dtype).expand(len(tokens), -1, -1)
    tokens = torch.cat([tokens[:, :1], among, tokens[:, 1:]], dim=1)
    tokens = visual.transformer(tokens.transpose(0, 1))  # CLIP's blocks take [tokens, B, width]
    return visual.ln_post(tokens[0]) @ visual.proj


class PromptedClassifier(ImageClassifier):
    """An image tower with prompt tokens under a linear layer: logits h(f_prompts(x)), of features of any length.

    ``encode`` does without the prompts.

    Args:
        visual: CLIP's Vision Transformer, [B, 3, S, S] -> [B, d].
        prompts: [n, width], the tokens to start from.
        weight: [K, d], the linear layer to start from.
        prec: precision of the tower's arithmetic, "fp32", "amp" or "bf16"; features and logits are always float32.

    Raises:
        UserError: ``visual`` is no Vision Transformer.
    """

    def __init__(self, visual: nn.Module, prompts: Tensor, weight: Tensor, prec: str = "fp32") -> None:
        super().__init__(visual, prec)
        check_vit(visual)
        self.prompts = nn.Parameter(prompts.clone())
        self.head = nn.Parameter(weight.clone())
        self.requires_grad_(False)  # the trainer decides what is trained
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [B, K]."""
        features = self.features(images, lambda piece: encode_with_prompts(self.visual, piece, self.prompts))
        return features @ self.head.t()
