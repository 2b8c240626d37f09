"""The adapted classifier as one module, for runtimes that know nothing of CLIP."""

from torch import Tensor, nn
from torch.nn import functional as F


class Classifier(nn.Module):
    """An image tower and one vector a class.

    Args:
        visual: [B, 3, S, S], normalised -> [B, d].
        anchors: [K, d], of any length.
        tau: CLIP's inverse temperature.
    """

    anchors: Tensor

    def __init__(self, visual: nn.Module, anchors: Tensor, tau: float) -> None:
        super().__init__()
        self.visual, self.tau = visual, tau
        self.register_buffer("anchors", F.normalize(anchors.float(), dim=-1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit features [B, d], and logits [B, K]: tau times the cosines of a feature and the vectors."""
        features = F.normalize(self.visual(images), dim=-1)
        return features, self.tau * features @ self.anchors.t()
