"""A linear classifier on frozen features: its fit, and the module that applies it to images."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fairclip.backbones.towers import ImageClassifier


class Probe(NamedTuple):
    """A fitted linear classifier: logits = features @ weight^T + bias."""

    weight: Tensor  # [K, d]
    bias: Tensor  # [K]
    loss: float  # mean cross-entropy on the training images, without the penalty

    def __call__(self, features: Tensor) -> Tensor:
        return features @ self.weight.t() + self.bias


def fit_logistic_regression(
    features: Tensor, labels: Tensor, classes: int, penalty: float, iterations: int, start: Probe | None = None
) -> Probe:
    """Minimise mean cross-entropy + penalty / 2 * ||W||^2 by L-BFGS. The problem is convex: the start (zeros, or
    ``start``) decides the time, not the result.

    The weaker the penalty, the flatter the objective: with a gradient of 1e-7 it may still be far above its minimum. So
    the gradient at which the fit ends falls with the penalty.

    Args: features [N, d], labels [N] (int64), of 0..classes - 1; ``iterations`` is the most that are done.
    """
    weight = features.new_zeros(classes, features.shape[1]) if start is None else start.weight.clone()
    bias = features.new_zeros(classes) if start is None else start.bias.clone()
    weight.requires_grad_(True)
    bias.requires_grad_(True)
    optim = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        tolerance_grad=min(1e-7, 1e-4 * penalty),
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optim.zero_grad()
        loss = F.cross_entropy(F.linear(features, weight, bias), labels) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optim.step(closure)
    weight, bias = weight.detach(), bias.detach()
    return Probe(weight, bias, F.cross_entropy(F.linear(features, weight, bias), labels).item())


def regularisation_path(
    features: Tensor, labels: Tensor, classes: int, penalties: Sequence[float], iterations: int
) -> dict[float, Probe]:
    """Probes for several penalties, from the strongest to the weakest: each fit starts where the last one ended.

    Penalties are understood on standardised features (mean 0, deviation 1 per dimension, over the images given), so
    that they mean the same for every backbone; the probes returned take features as they are. Computed in float64.
    Arguments as for ``fit_logistic_regression``.
    """
    features = features.double()
    mean, std = features.mean(dim=0), features.std(dim=0, correction=0)
    std = torch.where(std > 1e-6, std, 1.0)  # a dimension that never changes stays 0
    standard = (features - mean) / std
    path: dict[float, Probe] = {}
    probe = None
    for penalty in sorted(set(penalties), reverse=True):
        probe = fit_logistic_regression(standard, labels, classes, penalty, iterations, probe)
        path[penalty] = Probe(probe.weight / std, probe.bias - probe.weight @ (mean / std), probe.loss)
    return path


class ProbeClassifier(ImageClassifier):
    """A frozen image tower and a linear layer on its unit features.

    Args: ``visual``, [B, 3, S, S] -> [B, d]; d; the number of classes K; the tower's precision (fp32, amp, bf16); tau,
        CLIP's inverse temperature, which the class vectors are relative to.
    """

    def __init__(self, visual: nn.Module, dim: int, classes: int, prec: str, tau: float = 1.0) -> None:
        super().__init__(visual.requires_grad_(False), prec)
        self.tau = tau
        self.head = nn.Linear(dim, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.eval()

    def class_vectors(self) -> Tensor:
        """[K, d], of any length: logits are ``tau * <f(x), v_c>``, and the bias."""
        return self.head.weight.detach() / self.tau

    def forward(self, images: Tensor) -> Tensor:
        """Logits, [B, K]."""
        return self.head(self.encode(images))
