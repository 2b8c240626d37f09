"""Every formula of the method against brute-force loops in float64, and its edge cases."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from plain_maths import dot, softmax, unit, units

from fairclip.core.errors import UserError
from fairclip.method.anchors import Anchors, description_anchors
from fairclip.method.crop_alignment import aggregate, alignment_scores, crop_weights, select_crops
from fairclip.method.label_weights import SCHEMES, self_training_weight
from fairclip.method.losses import fairness, weighted_cross_entropy
from fairclip.views.normalize import Normalize
from fairclip.views.views import FixedCrops, Views, crop_boxes, resize_box, to_bytes

B, N, K, M, D, TAU = 5, 6, 4, 3, 8, 20.0


def weighted_sum(weights, vectors) -> list[float]:
    return [sum(w * float(v[i]) for w, v in zip(weights, vectors, strict=True)) for i in range(len(vectors[0]))]


def close(actual: torch.Tensor, expected) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


# -- Anchors -----------------------------------------------------------------------------------------------------------

MASK = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)


def anchors_by_hand(names, descriptions, scale, mode):
    rows = []
    for c in range(len(names)):
        given = [descriptions[c, m] for m in range(MASK.shape[1]) if MASK[c, m]]
        if mode == "name" or not given:
            rows.append([float(x) for x in names[c]])
            continue
        relevance = [scale * dot(d, names[c]) if mode == "weighted" else 0.0 for d in given]
        rows.append(unit(weighted_sum(softmax(relevance), given)))
    return rows


@pytest.mark.parametrize("mode", ["weighted", "mean", "name"])
def test_anchors(mode):
    names, descriptions = units(K, D), units(K, M, D, seed=1)
    expected = anchors_by_hand(names, descriptions, 7.4, mode)
    close(description_anchors(names, descriptions, MASK, 7.4, mode), expected)
    garbage = torch.where(MASK[..., None], descriptions, torch.nan)  # what is masked must not matter
    close(description_anchors(names, garbage, MASK, 7.4, mode), expected)


def test_a_single_description_is_the_anchor():
    names, descriptions = units(K, D), units(K, 1, D, seed=1)
    anchors = description_anchors(names, descriptions, torch.ones(K, 1, dtype=torch.bool), 7.4)
    torch.testing.assert_close(anchors, descriptions[:, 0])


def test_unknown_anchor_kind():
    with pytest.raises(UserError, match="weighted"):
        description_anchors(units(K, D), units(K, M, D), MASK, 1.0, "median")


def test_anchors_are_used_as_unit_rows_whatever_their_length():
    anchors = Anchors(3 * units(K, D))
    torch.testing.assert_close(anchors(), units(K, D))
    anchors()[0, 0].backward()
    assert anchors.weight.grad.abs().sum() > 0


# -- Alignment ---------------------------------------------------------------------------------------------------------


def local_by_hand(z, crops, k, sharpness):
    rows = []
    for b in range(len(z)):
        relevance = [dot(crop, z[b]) for crop in crops[b]]
        kept = sorted(range(len(relevance)), key=lambda i: -relevance[i])[:k]
        mean = sum(relevance[i] for i in kept) / k
        spread = math.sqrt(sum((relevance[i] - mean) ** 2 for i in kept) / k)
        weights = softmax([sharpness * (relevance[i] - mean) / (spread or 1.0) for i in kept])
        rows.append(unit(weighted_sum(weights, [crops[b, i] for i in kept])))
    return rows


@pytest.mark.parametrize("k", [1, 3, N])
def test_alignment(k):
    z, crops, anchors = units(B, D), units(B, N, D, seed=1), units(K, D, seed=2)
    u = local_by_hand(z, crops, k, 5.0)
    close(aggregate(z, crops, k, 5.0), u)
    close(alignment_scores(z, crops, anchors, k, 5.0), [[dot(row, a) for a in anchors] for row in u])


def test_weights_of_crops_follow_the_spread_of_relevances_and_not_their_size():
    relevance = torch.randn(B, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        crop_weights(0.01 * relevance + 0.9, 1.5), crop_weights(relevance, 1.5), rtol=1e-4, atol=1e-5
    )
    assert crop_weights(relevance, 3.0).max() > crop_weights(relevance, 1.5).max()
    alike = torch.full((B, 4), 0.25)
    torch.testing.assert_close(crop_weights(relevance, 0.0), alike)
    torch.testing.assert_close(crop_weights(torch.full((B, 4), 0.7), 5.0), alike)  # crops without a difference


def test_selected_crops_come_in_order_of_relevance():
    z, crops = units(B, D), units(B, N, D, seed=1)
    index, relevance = select_crops(z, crops, 3)
    for b in range(B):
        by_hand = sorted(((dot(crop, z[b]), i) for i, crop in enumerate(crops[b])), reverse=True)[:3]
        assert index[b].tolist() == [i for _, i in by_hand]
        close(relevance[b], [r for r, _ in by_hand])


def test_one_crop_is_the_local_feature():
    crops = units(B, 1, D, seed=1)
    torch.testing.assert_close(aggregate(units(B, D), crops, 1, 5.0), crops[:, 0])


def test_without_crops_the_whole_image_speaks():
    z = units(B, D)
    torch.testing.assert_close(aggregate(z, z.new_empty(B, 0, D), 4, 5.0), z)


@pytest.mark.parametrize("k", [0, N + 1])
def test_impossible_number_of_crops(k):
    with pytest.raises(UserError, match="TOP_K"):
        select_crops(units(B, D), units(B, N, D), k)


# -- Weights -----------------------------------------------------------------------------------------------------------


def weight_by_hand(kind, u, z, anchors):
    """Before they are divided by their mean."""
    las, whole = [dot(u, a) for a in anchors], [dot(z, a) for a in anchors]
    p, q = softmax([TAU * s for s in las]), softmax([TAU * s for s in whole])
    order = sorted(range(len(p)), key=lambda c: -p[c])
    agreement = q[order[0]] / max(q)
    margin = 1.0 if len(p) == 1 else 1 - p[order[1]] / p[order[0]]
    return {"none": 1.0, "agreement": agreement, "margin": margin}[kind]


@pytest.mark.parametrize("classes", [K, 2, 1])
@pytest.mark.parametrize("kind", SCHEMES)
def test_weights(kind, classes):
    u, z, anchors = units(B, D), units(B, D, seed=1), units(classes, D, seed=2)
    weights = self_training_weight(kind, u @ anchors.t(), z @ anchors.t(), TAU)
    by_hand = [weight_by_hand(kind, u[b], z[b], anchors) for b in range(B)]
    close(weights, [B * weight / sum(by_hand) for weight in by_hand])
    assert (weights >= 0).all() and weights.mean().item() == pytest.approx(1)


@pytest.mark.parametrize("kind", SCHEMES)
def test_weights_of_twin_classes_are_finite(kind):
    """Two equal anchors can't be told apart: the margins must say 0, not NaN."""
    anchors = units(1, D).expand(2, D)
    scores = units(B, D, seed=1) @ anchors.t()
    weights = self_training_weight(kind, scores, scores, TAU)
    torch.testing.assert_close(weights, torch.full_like(weights, 0.0 if "margin" in kind else 1.0))


def test_unknown_weight():
    with pytest.raises(UserError, match="none, agreement, margin"):
        self_training_weight("entropy", units(B, K), units(B, K), TAU)


# -- Losses ------------------------------------------------------------------------------------------------------------


def test_weighted_cross_entropy():
    logits, weights, labels = 3 * units(B, K), units(1, B, seed=1)[0].abs(), torch.tensor([0, 3, 1, 1, 2])
    terms = [float(weights[b]) * -math.log(softmax(logits[b].tolist())[labels[b]]) for b in range(B)]
    close(weighted_cross_entropy(logits, labels, weights), sum(terms) / B)


@pytest.mark.parametrize("running", [None, [0.1, 0.2, 0.3, 0.4]])
def test_fairness(running):
    probs = (3 * units(B, K)).softmax(1)
    mean = [sum(float(p[c]) for p in probs) / B for c in range(K)]
    share = 1.0
    if running is not None:
        share, mean = 0.25, [0.75 * r + 0.25 * m for r, m in zip(running, mean, strict=True)]
    expected = -sum(math.log(m) for m in mean) / K / share
    loss, used = fairness(probs, None if running is None else torch.tensor(running, dtype=torch.float64), momentum=0.75)
    close(loss, expected)
    close(used, mean)


def test_fairness_is_least_when_all_classes_are_predicted_alike():
    even, uneven = torch.full((B, K), 1 / K), torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(B, K)
    assert fairness(even)[0] == pytest.approx(math.log(K))
    assert math.log(K) < fairness(uneven)[0].item() < math.inf


def test_a_prior_is_where_fairness_is_least():
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1])
    probs = (3 * units(B, K)).softmax(1)
    mean = [sum(float(p[c]) for p in probs) / B for c in range(K)]
    by_hand = -sum(float(pi) * math.log(m) for pi, m in zip(prior, mean, strict=True))
    close(fairness(probs, prior=prior.to(probs.dtype))[0], by_hand)
    torch.testing.assert_close(fairness(probs, prior=torch.full_like(probs[0], 1 / K))[0], fairness(probs)[0])
    least = fairness(prior.expand(B, K), prior=prior)[0]
    assert all(fairness(p.expand(B, K), prior=prior)[0] > least for p in units(9, K).float().softmax(1))


def test_the_running_average_carries_no_gradient():
    probs = (3 * units(B, K)).softmax(1).requires_grad_()
    first, running = fairness(probs)
    assert not running.requires_grad
    (alone,) = torch.autograd.grad(first, probs)
    (averaged,) = torch.autograd.grad(fairness(probs, running)[0], probs)
    torch.testing.assert_close(averaged, alone)  # running equals the batch mean here: the same step


# -- Views -------------------------------------------------------------------------------------------------------------

STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def picture(width: int = 60, height: int = 40, color=None) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels) if color is None else Image.new("RGB", (width, height), color)


def test_crop_boxes_are_squares_of_the_right_size_inside_the_image():
    boxes = crop_boxes(60, 40, 500, 0.5, 0.9)
    sides = [right - left for left, _, right, _ in boxes]
    for (left, upper, right, lower), side in zip(boxes, sides, strict=True):
        assert lower - upper == pytest.approx(side)
        assert left >= 0 and right <= 60 + 1e-9 and upper >= 0 and lower <= 40 + 1e-9
    assert 20 <= min(sides) < 21 and 35 < max(sides) <= 36
    assert min(left for left, *_ in boxes) < 1 and max(right for *_, right, _ in boxes) > 59


def test_views():
    torch.manual_seed(0)
    views = Views(32, 3, 0.5, 0.9)
    first, second = views(picture()), views(picture())
    assert first.shape == (5, 3, 32, 32) and first.dtype == torch.uint8 and first.is_contiguous()
    assert all((first[i] != second[i]).any() for i in range(5))  # each view is drawn anew
    torch.manual_seed(0)
    assert torch.equal(views(picture()), first)
    assert Views(32)(picture()).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("settings", [(), (3, 0.5, 0.9), (3, 0.9, 0.9)])
def test_an_image_that_is_decoded_small_is_large_enough_for_every_view(settings):
    views = Views(32, *settings)
    for seed in range(200):
        torch.manual_seed(seed)
        plan = views.draw(views.min_side, views.min_side * (1 + seed % 2))
        for left, upper, right, lower in [plan.boxes[1], *plan.boxes[2:]]:
            assert min(right - left, lower - upper) >= 31.5  # sides are rounded to pixels
    assert Views(224, 3, 0.5, 0.9).min_side == 448 and Views(224).min_side == 366


def test_views_are_pillows_up_to_rounding():
    """The same filter on the same pixels: Pillow's resize(box=...) would also read some beyond the box."""
    image = picture(90, 70).resize((180, 140), Image.Resampling.BICUBIC)  # neighbours alike, as in photographs
    for box in crop_boxes(*image.size, 20, 0.2, 1.0):
        expected = np.asarray(image.crop(box).resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
        found = resize_box(to_bytes(image), box, 48).permute(1, 2, 0).numpy()
        assert abs(found - expected).max() <= 2 and abs(found - expected).mean() < 0.05


def test_bytes_are_normalised():
    normalize = Normalize(**STATISTICS)
    plain = normalize(Views(32, 2, 0.5, 0.9)(picture(color=(255, 102, 0))))
    expected = torch.tensor([(1 - 0.5) / 0.2, (0.4 - 0.4) / 0.3, (0 - 0.3) / 0.4]).view(3, 1, 1)
    for index in (0, 2, 3):  # the strong view changes colours
        torch.testing.assert_close(plain[index], expected.expand(3, 32, 32), atol=1e-5, rtol=0)
    assert normalize(plain) is plain  # done already


@pytest.mark.parametrize("settings", [(-1, 0.5, 0.9), (4, 0.0, 0.9), (4, 0.9, 0.5), (4, 0.5, 1.1)])
def test_impossible_crops(settings):
    with pytest.raises(UserError, match="N_CROPS"):
        Views(32, *settings)


def test_fixed_crops_are_the_same_every_time():
    crops = FixedCrops(32, 3, 0.5, 0.9)
    first = crops(picture())
    torch.manual_seed(123)
    assert first.shape == (4, 3, 32, 32)
    torch.testing.assert_close(crops(picture()), first, rtol=0, atol=0)
