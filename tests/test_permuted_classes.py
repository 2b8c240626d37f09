"""Formulas know images and classes by their vectors, not by their places: what is permuted before is permuted after."""

import pytest
import torch
from plain_maths import units
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from fairclip.method import candidates, gta, prototypes, reclip, stata, tda, transclip, wca, zlap
from fairclip.method.anchors import description_anchors, relevance_mean
from fairclip.method.confidence import confident_labels, masked_cross_entropy
from fairclip.method.crop_alignment import alignment_scores
from fairclip.method.label_weights import SCHEMES, self_training_weight
from fairclip.method.linear_probe import fit_logistic_regression
from fairclip.method.losses import fairness
from fairclip.method.selection import select_top_k

N, K, D, TAU = 14, 4, 6, 9.0


def parts(rows: Tensor) -> Tensor:
    """Three vectors near each one: crops of an image, descriptions of a class."""
    return normalize(rows[:, None] + 0.5 * units(3, D, seed=3), dim=-1)


def as_matrix(images: Tensor, classes: Tensor) -> Tensor:
    """Pairs of an image and a class as marks, [N, K]."""
    return torch.zeros(N, K).index_put_((images, classes), torch.ones(len(images)))


def fair(kind: str, q: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    descriptions = parts(t)
    mask = descriptions[..., 0] > 0  # some are missing
    anchors = description_anchors(t, descriptions, mask, 7.4)
    scores, whole = alignment_scores(q, parts(q), anchors, 2, 5.0), q @ anchors.t()
    return scores, self_training_weight(kind, scores, whole, TAU), fairness((TAU * whole).softmax(dim=1))[0]


def dpa(q: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    best = y.argmax(dim=1)
    labels = torch.where(best == y.sum(dim=0).argmax(), y.argmin(dim=1), best)  # one class has no image
    return prototypes.image_prototypes(q, labels, t), prototypes.align_distribution(y, y.mean(dim=0))


def must(q: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    labels, mask = confident_labels(y, 0.6)
    assert 0 < mask.sum() < N
    return one_hot(labels, K), mask, masked_cross_entropy(q @ t.t(), labels, mask)


def zlap_scores(q: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    z = zlap.propagate(zlap.similarity_graph(q, t, 5, 5.0), K, 0.3)
    return z[K:], z[:K]


def wca_scores(q: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    images, classes = (relevance_mean(rows, parts(rows), 7.0) for rows in (q, t))
    return tuple(wca.cross_alignment(images, classes, unit) for unit in (False, True))


def reclip_labels(q: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    labels = one_hot(reclip.pseudo_labels(q, t, 768, 4), K)
    return labels[K:], labels[:K]


def linear_probe(q: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return (fit_logistic_regression(q, y.argmax(dim=1), K, 0.1, 1000)(q),)


# The axes of the outputs, n for images, k for classes; and the outputs, of images [N, d], class vectors [K, d] and
# probabilities [N, K].
FORMULAS = {
    **{f"FAIR, {kind}": ("nk n .", lambda q, t, y, kind=kind: fair(kind, q, t)) for kind in SCHEMES},
    "DPA": ("k nk", dpa),
    "MUST": ("nk n .", must),
    "UPL": ("nk", lambda q, t, y: (as_matrix(*select_top_k(y, 3)),)),
    "CPL": ("nk", lambda q, t, y: (candidates.candidate_sets(y, 0.8, 0.4),)),
    "GRIP": ("nk", lambda q, t, y: (as_matrix(*candidates.leaderboards(y, 3)),)),
    "ReCLIP": ("nk kk", reclip_labels),
    "GTA-CLIP": ("k k", lambda q, t, y: gta.linear_head(t, parts(t).mean(dim=1), torch.full((D,), 0.05), TAU)),
    "WCA": ("nk nk", wca_scores),
    "TransCLIP": ("nk k .", lambda q, t, y: transclip.fit(q, y.log())),
    "ZLaP": ("nk kk", zlap_scores),
    "StatA": ("nk k k", lambda q, t, y: stata.fit(q, t, y.log())),
    "TDA": ("nk", lambda q, t, y: (tda.stream_scores(q, TAU * q @ t.t()),)),
    "linear probe": ("nk", linear_probe),
}
STREAMS = ("TDA",)  # here the places of images count


@pytest.mark.parametrize("name", FORMULAS)
def test_permuted_classes_and_images_permute_the_outputs(name):
    axes, formula = FORMULAS[name]
    q, t, y = units(N, D), units(K, D, seed=1), (4 * units(N, K, seed=2)).softmax(dim=1)
    order = {"k": torch.tensor([2, 0, 3, 1]), "n": torch.randperm(N, generator=torch.Generator().manual_seed(0))}
    if name in STREAMS:
        order["n"] = torch.arange(N)

    def permuted(values: Tensor, letters: str) -> Tensor:
        for axis, letter in enumerate(letters):
            values = values.index_select(axis, order[letter]) if letter in order else values
        return values

    before = formula(q, t, y)
    after = formula(permuted(q, "n"), permuted(t, "k"), permuted(y, "nk"))
    for old, new, letters in zip(before, after, axes.split(), strict=True):
        torch.testing.assert_close(new, permuted(old, letters), rtol=0, atol=1e-5)
    assert not torch.allclose(after[0].double(), before[0].double(), atol=1e-3)  # places did change
