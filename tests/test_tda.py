"""TDA: the stream against a loop in float64, and runs through train.py."""

import math

import pytest
import torch
from test_transclip import dot
from toys import arguments, build, check_refused, make_data, run

from fairclip.core.errors import UserError
from fairclip.method.tda import Negative, Positive, stream_scores

pytestmark = pytest.mark.usefixtures("console")

# -- An independent loop over plain numbers, from the description of the method ----------------------------------------


def loop_stream(q, logits, slots, negative_slots, alphas=(2.0, 0.117), betas=(5.0, 1.0)):
    positive, negative, result = {}, {}, []  # class -> [(entropy, image, classes that it speaks against)]
    for f, row in zip(q, logits, strict=True):
        total = sum(math.exp(x - max(row)) for x in row)
        p = [math.exp(x - max(row)) / total for x in row]
        entropy = -sum(x * math.log(x) for x in p if x > 0)
        c = row.index(max(row))
        item = (entropy, f, [0.03 < x < 1.0 for x in p])
        take(positive.setdefault(c, []), item, slots)
        if 0.2 < entropy / math.log2(max(len(row), 2)) < 0.5:
            take(negative.setdefault(c, []), item, negative_slots)
        scores = list(row)
        for known, items in positive.items():
            scores[known] += alphas[0] * sum(math.exp(-betas[0] * (1 - dot(f, g))) for _, g, _ in items)
        for items in negative.values():
            for _, g, against in items:
                for j in range(len(row)):
                    scores[j] -= against[j] * alphas[1] * math.exp(-betas[1] * (1 - dot(f, g)))
        result.append(scores)
    return result


def take(items, item, slots):
    items.append(item)
    items.sort(key=lambda other: other[0])
    del items[slots:]


def random_case(n=40, classes=4, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    logits = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(q, dim=1), logits * torch.linspace(0.5, 8, n, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("classes", [2, 4, 1])
@pytest.mark.parametrize("slots, negative_slots", [(3, 2), (1, 1), (2, 40)])
def test_the_stream(classes, slots, negative_slots):
    q, logits = random_case(classes=classes)
    found = stream_scores(q, logits, Positive(slots), Negative(negative_slots))
    expected = torch.tensor(loop_stream(q.tolist(), logits.tolist(), slots, negative_slots), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    if classes > 1:  # both caches are of use
        assert not torch.equal(found, stream_scores(q, logits, Positive(slots), Negative(negative_slots, 0.0)))


def test_the_defaults_are_those_of_the_public_code():
    q, logits = random_case()
    expected = torch.tensor(loop_stream(q.tolist(), logits.tolist(), 3, 2), dtype=torch.float64)
    torch.testing.assert_close(stream_scores(q, logits), expected, rtol=0, atol=1e-9)


def test_later_images_play_no_part():
    q, logits = random_case()
    torch.testing.assert_close(stream_scores(q[:25], logits[:25]), stream_scores(q, logits)[:25], rtol=0, atol=0)


# -- Runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=2, test=6)


def test_a_run_is_a_stream_in_the_order_of_the_seed(data, vit, tmp_path):
    results = run("TDA", data, vit, tmp_path / "run")
    assert (results["transductive"], results["stream"], results["uses_labels"]) == (False, True, False)
    trainer = build("TDA", data, vit, tmp_path)
    logits, labels = trainer.predict(trainer.test_loader, "test"), torch.tensor(trainer.test_loader.dataset.labels)
    assert results["accuracy"] == pytest.approx(100 * (logits.argmax(dim=1) == labels).double().mean().item())
    order = torch.randperm(18, generator=torch.Generator().manual_seed(1))
    q = trainer.encode_all(trainer.test_loader.dataset, "test")[order]
    expected = loop_stream(q.tolist(), (trainer.model.tau * q @ trainer.model.anchors().t()).tolist(), 3, 2)
    torch.testing.assert_close(logits[order], torch.tensor(expected), rtol=1e-5, atol=1e-5)
    other = build("TDA", data, vit, tmp_path, seed=2)
    assert not torch.equal(other.predict(other.test_loader, "test"), logits)
    with pytest.raises(UserError, match="one after another"):
        trainer.model_inference(next(iter(trainer.test_loader))["img"])


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.TDA.SLOTS", "0"), "at least 1"),
        (("TRAINER.TDA.BETA", "-1.0"), "at least 0"),
        (("TRAINER.TDA.ENTROPY", "(0.2,)"), "two numbers"),
    ],
)
def test_mistakes(data, vit, tmp_path, capsys, opts, message):
    check_refused(arguments("TDA", data, vit, tmp_path, *opts), message, capsys)
