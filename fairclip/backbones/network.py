"""CLIP's network (Radford et al., arXiv 2103.00020): a Vision Transformer or a ResNet, and a transformer for texts.

Modules and parameters have the names of OpenAI's checkpoints, so that those load as they are, and trainers that reach
into the towers find what they know. Nothing of a `clip` package is needed.

Shapes: B images or texts, S pixels a side, T tokens, w the width of a transformer, d the shared width.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH_OF_A_HEAD = 64  # in all of OpenAI's transformers


@dataclass(frozen=True)
class Stack:
    """Sizes of a transformer."""

    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class Architecture:
    """What a CLIP is built from.

    Attributes:
        features: d.
        side: S.
        vision: of a Vision Transformer; None for a ResNet.
        patch: side of a patch in pixels, of a Vision Transformer.
        blocks: how many blocks each of the four stages of a ResNet has; () for a Vision Transformer.
        stem: width of a ResNet's first stage.
        text: of the text tower.
        context, vocabulary: tokens of a text, and how many different ones there are.
        activation: "quick_gelu" (OpenAI's) or "gelu".
    """

    features: int
    side: int
    vision: Stack | None
    patch: int
    blocks: tuple[int, ...]
    stem: int
    text: Stack
    context: int
    vocabulary: int
    activation: str = "quick_gelu"


# -- Transformers ------------------------------------------------------------------------------------------------------


class LayerNorm(nn.LayerNorm):
    """Computed in float32, whatever the type of the input; the output has that type again."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), OpenAI's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"quick_gelu": QuickGELU, "gelu": nn.GELU}


class Block(nn.Module):
    """Attention, then two linear layers, each behind a norm and beside a shortcut: [T, B, w] -> [T, B, w]."""

    def __init__(self, width: int, heads: int, activation: str, mask: Tensor | None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = LayerNorm(width), LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", ACTIVATIONS[activation]())]
        self.mlp = nn.Sequential(OrderedDict([*layers, ("c_proj", nn.Linear(4 * width, width))]))
        self.attn_mask = mask  # no buffer: it is in no checkpoint

    def forward(self, x: Tensor) -> Tensor:
        seen = self.ln_1(x)
        mask = None if self.attn_mask is None else self.attn_mask.to(x.device, x.dtype)
        x = x + self.attn(seen, seen, seen, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks: [T, B, w] -> [T, B, w]."""

    def __init__(self, sizes: Stack, activation: str, mask: Tensor | None = None) -> None:
        super().__init__()
        self.width, self.layers = sizes.width, sizes.layers
        blocks = [Block(sizes.width, sizes.heads, activation, mask) for _ in range(sizes.layers)]
        self.resblocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x)


class VisionTransformer(nn.Module):
    """Images [B, 3, S, S] -> features [B, d], read off a class token before the patches."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        assert a.vision is not None
        width = a.vision.width
        self.input_resolution, self.output_dim = a.side, a.features
        self.conv1 = nn.Conv2d(3, width, a.patch, stride=a.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + (a.side // a.patch) ** 2, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(a.vision, a.activation)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, a.features))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.conv1(images).flatten(2).transpose(1, 2)  # [B, patches, w]
        count = patches.shape[0]  # an export would take len() for a constant
        first = self.class_embedding.to(patches.dtype).expand(count, 1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.positional_embedding.to(patches.dtype)
        tokens = self.transformer(self.ln_pre(tokens).transpose(0, 1))
        return self.ln_post(tokens[0]) @ self.proj


# -- ResNets -----------------------------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    """A residual block whose convolutions all have stride 1: where it shrinks the map, an average pool does it."""

    expansion = 4

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        outside = width * self.expansion
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample = None
        if stride > 1 or inside != outside:
            layers = [("-1", nn.AvgPool2d(stride)), ("0", nn.Conv2d(inside, outside, 1, bias=False))]
            self.downsample = nn.Sequential(OrderedDict([*layers, ("1", nn.BatchNorm2d(outside))]))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(self.avgpool(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class AttentionPool2d(nn.Module):
    """A map [B, w, h, h] -> features [B, d]: its mean asks, and all positions and the mean itself answer."""

    def __init__(self, side: int, width: int, heads: int, features: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.zeros(1 + side**2, width))
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.c_proj = nn.Linear(width, features)
        self.num_heads = heads

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).permute(2, 0, 1)  # [h h, B, w]
        x = torch.cat([x.mean(dim=0, keepdim=True), x]) + self.positional_embedding[:, None].to(x.dtype)
        pooled, _ = F.multi_head_attention_forward(
            query=x[:1],
            key=x,
            value=x,
            embed_dim_to_check=x.shape[-1],
            num_heads=self.num_heads,
            q_proj_weight=self.q_proj.weight,
            k_proj_weight=self.k_proj.weight,
            v_proj_weight=self.v_proj.weight,
            in_proj_weight=None,
            in_proj_bias=torch.cat([self.q_proj.bias, self.k_proj.bias, self.v_proj.bias]),
            bias_k=None,
            bias_v=None,
            add_zero_attn=False,
            dropout_p=0.0,
            out_proj_weight=self.c_proj.weight,
            out_proj_bias=self.c_proj.bias,
            use_separate_proj_weight=True,
            training=self.training,
            need_weights=False,
        )
        return pooled[0]


class ModifiedResNet(nn.Module):
    """Images [B, 3, S, S] -> features [B, d]: a stem of three convolutions, four stages, and an attention pool."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        stem, self.output_dim, self.input_resolution = a.stem, a.features, a.side
        self.conv1 = nn.Conv2d(3, stem // 2, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(stem // 2, stem // 2, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(stem // 2, stem, 3, padding=1, bias=False)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(stem // 2), nn.BatchNorm2d(stem // 2), nn.BatchNorm2d(stem)
        self.avgpool = nn.AvgPool2d(2)
        inside = stem
        for stage, count in enumerate(a.blocks):
            width = stem * 2**stage
            blocks = []
            for number in range(count):
                blocks.append(Bottleneck(inside, width, 2 if stage and not number else 1))
                inside = width * Bottleneck.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.attnpool = AttentionPool2d(a.side // 32, inside, inside // WIDTH_OF_A_HEAD, a.features)

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(self.conv1.weight.dtype)
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(norm(conv(x)), inplace=True)
        x = self.avgpool(x)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return self.attnpool(x)


# -- Both towers -------------------------------------------------------------------------------------------------------


class CLIP(nn.Module):
    """An image tower and a text tower into one space."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.architecture = a
        self.visual: VisionTransformer | ModifiedResNet = VisionTransformer(a) if a.vision else ModifiedResNet(a)
        mask = torch.full((a.context, a.context), -math.inf).triu_(1)  # a token sees those before it
        self.transformer = Transformer(a.text, a.activation, mask)
        self.context_length, self.vocab_size = a.context, a.vocabulary
        self.token_embedding = nn.Embedding(a.vocabulary, a.text.width)
        self.positional_embedding = nn.Parameter(torch.zeros(a.context, a.text.width))
        self.ln_final = LayerNorm(a.text.width)
        self.text_projection = nn.Parameter(torch.zeros(a.text.width, a.features))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def dtype(self) -> torch.dtype:
        return self.visual.conv1.weight.dtype

    def encode_image(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, d], of any length."""
        return self.visual(images.to(self.dtype))

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] -> [B, d], of any length, read off the end token, which has the highest id."""
        x = self.token_embedding(tokens).to(self.dtype) + self.positional_embedding.to(self.dtype)
        x = self.ln_final(self.transformer(x.transpose(0, 1)).transpose(0, 1)).to(self.dtype)
        return x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)] @ self.text_projection

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of all pairs: of images and texts, [B, B'], and of texts and images."""
        z, t = F.normalize(self.encode_image(images), dim=-1), F.normalize(self.encode_text(tokens), dim=-1)
        logits = self.logit_scale.exp() * z @ t.t()
        return logits, logits.t()
