"""Candidate sets, leaderboards and the loss, against loops over plain numbers in float64."""

import math

import pytest
import torch

from fairclip.core.errors import UserError
from fairclip.method.candidates import candidate_loss, candidate_sets, inter_image, intra_image, leaderboards, per_class


def random_probs(images: int, classes: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(images, classes, generator=generator, dtype=torch.float64)).softmax(dim=1)


def quantile(values, share):
    values = sorted(values)
    at = share * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (at - low) * (values[high] - values[low])


def intra_by_hand(probs, alpha):
    threshold, sets = quantile([max(row) for row in probs], alpha), []
    for row in probs:
        total, inside = 0.0, set()
        for c in sorted(range(len(row)), key=lambda c: -row[c]):
            inside.add(c)
            total += row[c]
            if total > threshold:
                break
        sets.append(inside)
    return sets


def inter_by_hand(probs, beta):
    thresholds = [quantile(column, beta) for column in zip(*probs, strict=True)]
    return [{c for c, p in enumerate(row) if p >= thresholds[c]} for row in probs]


def as_sets(mask: torch.Tensor) -> list[set[int]]:
    return [{c for c, inside in enumerate(row) if inside} for row in mask.tolist()]


SIZES = [(60, 7, 0), (3, 5, 1), (40, 2, 2), (1, 4, 3)]


@pytest.mark.parametrize("images, classes, seed", SIZES)
@pytest.mark.parametrize("alpha, beta", [(0.6, 0.99), (0.75, 0.8), (0.9, 0.5), (0.0, 0.0), (1.0, 1.0)])
def test_candidate_sets(images, classes, seed, alpha, beta):
    probs = random_probs(images, classes, seed)
    intra, inter = intra_by_hand(probs.tolist(), alpha), inter_by_hand(probs.tolist(), beta)
    assert as_sets(intra_image(probs, alpha)) == intra and as_sets(inter_image(probs, beta)) == inter
    both = as_sets(candidate_sets(probs, alpha, beta))
    assert both == [a & b for a, b in zip(intra, inter, strict=True)] and any(both)


def test_rules_by_example():
    probs = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.4, 0.35, 0.25]], dtype=torch.float64)
    # The median of 0.6, 0.5, 0.4 is 0.5: the second image's sum has only reached it, so it takes one more.
    assert as_sets(intra_image(probs, 0.5)) == [{0}, {0, 2}, {0, 1}]
    assert as_sets(inter_image(probs, 0.5)) == [{0, 1}, {0, 2}, {1, 2}]
    assert as_sets(candidate_sets(probs, 0.5, 0.5)) == [{0}, {0, 2}, {1}]


def boards_by_hand(probs, k, allowed=None):
    """Class -> its images, the most probable first. All pairs in falling order: whoever comes first has the place."""
    pairs = sorted((-p, i, c) for i, row in enumerate(probs) for c, p in enumerate(row))
    boards, placed = {}, set()
    for _, i, c in pairs:
        if i not in placed and len(boards.get(c, ())) < k and (allowed is None or c in allowed[i]):
            boards.setdefault(c, []).append(i)
            placed.add(i)
    return boards


def as_boards(chosen, classes) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for i, c in zip(chosen.tolist(), classes.tolist(), strict=True):
        found.setdefault(c, []).append(i)
    return found


@pytest.mark.parametrize("images, classes, seed", SIZES)
@pytest.mark.parametrize("k", [1, 4, 100])
def test_leaderboards(images, classes, seed, k):
    probs = random_probs(images, classes, seed)
    chosen, boards = leaderboards(probs, k)
    assert as_boards(chosen, boards) == boards_by_hand(probs.tolist(), k)
    assert boards.tolist() == sorted(boards.tolist()) and len(set(chosen.tolist())) == len(chosen)
    assert len(chosen) == min(images, k * classes)  # whoever is over finds room elsewhere
    allowed = candidate_sets(probs, 0.9, 0.6)
    found = as_boards(*leaderboards(probs, k, allowed))
    assert found == boards_by_hand(probs.tolist(), k, as_sets(allowed))


def test_who_is_over_goes_to_the_next_class_and_may_send_another_on():
    probs = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.15, 0.05], [0.3, 0.6, 0.1], [0.5, 0.05, 0.45]])
    # Image 1 is over in class 0, and image 2 keeps class 1 from it; image 3 is over in class 0, and takes class 2.
    assert as_boards(*leaderboards(probs, 1)) == {0: [0], 1: [2], 2: [3]}
    assert as_boards(*leaderboards(torch.full((5, 2), 0.5), 2)) == {0: [0, 1], 1: [2, 3]}  # ties: the earlier
    with pytest.raises(UserError, match="1 or more"):
        leaderboards(probs, 0)


def test_how_many_images_of_a_class():
    assert [per_class(1200, 24, 0.1, r) for r in range(12)] == [*range(5, 51, 5), 50, 50]
    assert [per_class(100, 10, 0.29, r) for r in range(4)] == [2, 5, 8, 10]
    assert per_class(20, 24, 0.1, 0) == 1


def test_the_loss():
    logits = 4 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sets = [{0}, {1, 2}, {0, 1, 2, 3, 4}, {3}, {2, 4}, {0, 4}]
    mask = torch.tensor([[c in inside for c in range(5)] for inside in sets])
    total, gradient = 0.0, []
    for row, inside in zip(logits.tolist(), sets, strict=True):
        powers = [math.exp(x) for x in row]
        share = sum(powers[c] for c in inside)
        total -= math.log(share / sum(powers)) / 6
        gradient.append([(p / sum(powers) - (p / share if c in inside else 0)) / 6 for c, p in enumerate(powers)])
    logits.requires_grad_(True)
    loss = candidate_loss(logits, mask)
    loss.backward()
    assert loss.item() == pytest.approx(total, abs=1e-12)
    torch.testing.assert_close(logits.grad, torch.tensor(gradient, dtype=torch.float64), atol=1e-12, rtol=0)
    single = torch.tensor([1, 0, 3, 2, 4, 1])
    expected = torch.nn.functional.cross_entropy(logits, single)
    torch.testing.assert_close(candidate_loss(logits, torch.nn.functional.one_hot(single).bool()), expected)
