"""GTA-CLIP's adapt step (ICCV 2025): images that transduction is surest of, and texts of their classes, train CLIP by a
symmetric contrastive loss.

All features are unit rows. Texts belong to one class each, images to one or more.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairclip.backbones.backbone import Backbone
from fairclip.core.distributed import gather, rank, world
from fairclip.method.transclip import LIKELIHOOD_SHARE
from fairclip.method.two_towers import TwoTowers

ROWS = 1024  # images that texts are drawn for at a time: what bounds the memory
PROJECTIONS = ("proj", "text_projection", "attnpool.c_proj.weight", "attnpool.c_proj.bias")


def class_means(features: Tensor, classes: Tensor, count: int) -> Tensor:
    """Mean feature of the texts of each class, [K, d], not made unit: its product with an image is the mean cosine.

    By a product with a matrix, which adds up in the same order each time on a GPU, too.

    Args: features [M, d]; classes [M], each of the K at least once.
    """
    members = F.one_hot(classes, count).to(features.dtype)  # [M, K]
    return members.t() @ features / members.sum(dim=0)[:, None]


def surest(z: Tensor, per_class: int) -> Tensor:
    """The ``per_class`` images (all, if there are fewer) with the highest z in each class, [n, K]. z: [N, K]."""
    return z.topk(min(per_class, len(z)), dim=0).indices


class Chosen(NamedTuple):
    """Images of an epoch, each once."""

    images: Tensor  # places in the list of training images, [n], ascending
    classes: Tensor  # which classes chose each, [n, K] bool


def choose(top: Tensor) -> Chosen:
    """Args: top, of ``surest``, [n, K]."""
    images, places = top.unique(return_inverse=True)
    classes = torch.zeros(len(images), top.shape[1], dtype=torch.bool, device=top.device)
    classes[places, torch.arange(top.shape[1], device=top.device).expand_as(top)] = True
    return Chosen(images, classes)


def draw_texts(images: Tensor, texts: Tensor, generator: torch.Generator) -> Tensor:
    """One text for each image, any of those of its classes being as likely as another; places in the list, [n].

    Args: images, their classes, [n, K] bool; texts, their class, [M]. On the CPU.
    """
    drawn = []
    for part in images.split(ROWS):
        numbers = torch.rand(len(part), len(texts), generator=generator)
        drawn.append(torch.where(part[:, texts], numbers, -1.0).argmax(dim=1))
    return torch.cat(drawn)


def contrastive_loss(images: Tensor, texts: Tensor, positives: Tensor, tau: float) -> Tensor:
    """Mean over images i of the mean over its positives j of -log softmax_j(tau <f_i, t_j>), and the same over texts.

    Args: images, texts [B, d]; positives [B, B] bool, which texts suit an image: one at least in each row and column.
    """
    logits = tau * images @ texts.t()
    shares = positives.to(logits.dtype)
    by_image = (shares * logits.log_softmax(dim=1)).sum(dim=1) / shares.sum(dim=1)
    by_text = (shares * logits.log_softmax(dim=0)).sum(dim=0) / shares.sum(dim=0)
    return -(by_image.mean() + by_text.mean())


def of_all(rows: Tensor) -> Tensor:
    """Rows of all processes, [B * world, d], of which the own have their gradient."""
    if world() == 1:
        return rows
    parts = list(gather(rows.detach()).chunk(world()))
    parts[rank()] = rows
    return torch.cat(parts)


def linear_head(texts: Tensor, means: Tensor, variances: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """TransCLIP's score of an image by itself, tau <q, t_c> + l_c / 50 up to what all classes have in common, as
    tau <q, v_c> + b_c: v [K, d] and b [K]. The variances being those of all classes, it is linear in q.

    Args: texts t [K, d]; means [K, d] and variances [d] of the Gaussians.
    """
    scaled = LIKELIHOOD_SHARE * means / variances
    bias = -(means * scaled).sum(dim=1) / 2
    return texts + scaled / tau, bias - bias.mean()


class Adapted(TwoTowers):
    """Both towers, and a linear head on images: logits are ``tau <f(x), v_c> + b_c``."""

    def __init__(self, backbone: Backbone, vectors: Tensor, prec: str = "fp32") -> None:
        super().__init__(backbone, vectors, prec)
        self.bias = nn.Parameter(vectors.new_zeros(len(vectors)), requires_grad=False)

    def logits(self, features: Tensor) -> Tensor:
        return self.tau * features @ self.anchors.weight.t() + self.bias

    @torch.no_grad()
    def set_head(self, vectors: Tensor, bias: Tensor) -> None:
        """v [K, d] and b [K]."""
        self.anchors.weight.copy_(vectors)
        self.bias.copy_(bias)

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """All parameters of both towers but their last projections, and these."""
        both = dict(self.visual.named_parameters()) | self.of_texts_alone(dict(self.text.named_parameters()))
        last = [parameter for name, parameter in both.items() if is_projection(name)]
        return [parameter for name, parameter in both.items() if not is_projection(name)], last


def is_projection(name: str) -> bool:
    """Whether a parameter takes features into the space that images and texts share, by its name in a tower."""
    return name in PROJECTIONS or name.endswith("text_projection")


class Pairs(nn.Module):
    """Both towers as they are trained."""

    def __init__(self, model: Adapted) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features [B, d] of images [B, 3, S, S] and of texts."""
        return self.model.encode(images), self.model.encode_texts(tokens)
