"""ZLaP: its graph and its scores against loops in float64, and runs through train.py."""

import json
import math

import pytest
import torch
from plain_maths import dot
from toys import CLASSES, arguments, build, check_refused, make_data, run

from fairclip.core.errors import UserError
from fairclip.method import zlap
from fairclip.method.neighbours import nearest_to

pytestmark = pytest.mark.usefixtures("console")

# -- An independent loop over plain numbers, from the description of the method ----------------------------------------


def loop_weights(q, features, texts, k_images, k_texts, gamma, itself=None):
    """Node -> weight of an image's neighbours; texts are nodes 0 to K - 1."""
    cosines = sorted(((dot(q, f), j) for j, f in enumerate(features) if j != itself), reverse=True)[:k_images]
    found = {len(texts) + j: max(c, 0.0) for c, j in cosines}
    cosines = sorted(((dot(q, t), j) for j, t in enumerate(texts)), reverse=True)[:k_texts]
    return found | {j: max(c, 0.0) ** gamma for c, j in cosines}


def loop_graph(features, texts, k, gamma):
    n = len(texts) + len(features)
    w = [[0.0] * n for _ in range(n)]
    for i, q in enumerate(features):
        for j, weight in loop_weights(q, features, texts, k - 1, k, gamma, itself=i).items():
            w[len(texts) + i][j] += weight
            w[j][len(texts) + i] += weight
    degrees = [sum(row) or 1.0 for row in w]
    return [[w[i][j] / math.sqrt(degrees[i] * degrees[j]) for j in range(n)] for i in range(n)]


def loop_series(s, b, alpha):
    """(I - alpha S)^-1 b as the sum of (alpha S)^m b."""
    total, term = list(b), list(b)
    for _ in range(60):
        term = [alpha * dot(row, term) for row in s]
        total = [x + y for x, y in zip(total, term, strict=True)]
    return total


def loop_z(s, classes, alpha):
    """Z by column; [class][node]."""
    return [loop_series(s, [float(i == c) for i in range(len(s))], alpha) for c in range(classes)]


def random_case(n=14, classes=4, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(n + classes, dim, generator=generator, dtype=torch.float64)
    both = torch.nn.functional.normalize(both, dim=1)
    return both[:n], both[n:]


def close(a, b, tolerance=1e-6):
    torch.testing.assert_close(a, torch.tensor(b, dtype=torch.float64), rtol=0, atol=tolerance)


def solve(features, texts, k=5, gamma=5.0, alpha=0.3):
    return zlap.propagate(zlap.similarity_graph(features, texts, k, gamma), len(texts), alpha)


# -- Golden values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, classes, k", [(14, 4, 5), (14, 4, 2), (14, 8, 1), (3, 2, 5), (1, 1, 5)])
def test_graph_and_propagation(n, classes, k):
    features, texts = random_case(n, classes)
    s = loop_graph(features.tolist(), texts.tolist(), k, 5.0)
    graph = zlap.similarity_graph(features, texts, k, 5.0)
    close(graph.to_dense(), s, 1e-12)
    close(zlap.propagate(graph, classes, 0.3, columns=3).t(), loop_z(s, classes, 0.3))


@pytest.mark.parametrize("chosen", ["inductive", "sparse"])
def test_scores_of_other_images(chosen):
    (features, texts), (queries, _) = random_case(), random_case(n=5, seed=1)
    z = solve(features, texts, gamma=3.0, alpha=0.6)
    s = loop_graph(features.tolist(), texts.tolist(), 5, 3.0)
    expected_z = list(zip(*loop_z(s, 4, 0.6), strict=True))
    if chosen == "sparse":
        z = zlap.keep_strongest(z)
        expected_z = [[x if x == max(row) else 0.0 for x in row] for row in expected_z]
    expected = []
    for q in queries.tolist():
        weights = loop_weights(q, features.tolist(), texts.tolist(), 5, 5, 3.0)
        expected.append([sum(w * expected_z[j][c] for j, w in weights.items()) for c in range(4)])
        # The public code's way: a propagation from the neighbours, read at the texts.
        from_neighbours = loop_series(s, [weights.get(j, 0.0) for j in range(18)], 0.6)
        if chosen == "inductive":
            assert from_neighbours[:4] == pytest.approx(expected[-1], abs=1e-9)
    close(zlap.scores_of_others(queries, features, texts, z, 5, 3.0), expected)


def test_degenerate_inputs_stay_finite():
    features, texts = random_case()
    for q in (features[:1].expand(14, -1), -texts[:1].expand(3, -1), features[:1]):
        shares = zlap.log_shares(solve(q, texts[:1].expand(2, -1))[2:])
        assert shares.isfinite().all() and torch.allclose(shares.exp().sum(dim=1), torch.ones(len(q)).double())


def test_gradients_stop_after_so_many_steps():
    features, texts = random_case()
    graph = zlap.similarity_graph(features, texts)
    b = torch.eye(18, dtype=torch.float64)
    assert torch.equal(zlap.conjugate_gradients(graph, b, 0.3, steps=0), torch.zeros_like(b))
    exact = torch.linalg.inv(b - 0.99 * graph.to_dense())
    torch.testing.assert_close(zlap.conjugate_gradients(graph, b, 0.99, tolerance=1e-12), exact, rtol=0, atol=1e-8)


def test_the_graph_is_sparse():
    features, texts = random_case(n=2500, dim=4)
    graph = zlap.similarity_graph(features, texts)
    assert graph._nnz() <= 2 * 2500 * (4 + 4)
    cosines, indices = nearest_to(features, texts, 5, chunk=1000)
    assert cosines.shape == indices.shape == (2500, 4)


# -- Runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=8, test=4)


@pytest.mark.parametrize("setup", ["inductive", "sparse-inductive", "transductive"])
def test_a_run(data, vit, tmp_path, setup):
    options = ("TRAINER.ZLAP.SETUP", setup)
    results = run("ZLaP", data, vit, tmp_path / "run", *options)
    assert (results["transductive"], results["stream"]) == (setup == "transductive", False)
    assert (results["uses_labels"], results["trainable_parameters"]) == (False, 0)
    trainer = build("ZLaP", data, vit, tmp_path, *options)
    logits, labels = trainer.predict(trainer.test_loader, "test"), torch.tensor(trainer.test_loader.dataset.labels)
    assert results["accuracy"] == pytest.approx(100 * (logits.argmax(dim=1) == labels).double().mean().item())
    train_q, test_q = (
        trainer.encode_all(loader.dataset, title).double()
        for loader, title in ((trainer.train_loader_x, "train"), (trainer.test_loader, "test"))
    )
    texts = trainer.model.anchors().double()
    images = torch.cat([batch["img"] for batch in trainer.test_loader])
    if setup == "transductive":
        expected = solve(test_q, texts)[3:]
        with pytest.raises(UserError, match="SETUP inductive"):
            trainer.model_inference(images)
    else:
        z = solve(train_q, texts)
        z = zlap.keep_strongest(z) if setup == "sparse-inductive" else z
        expected = zlap.scores_of_others(test_q, train_q, texts, z)
        alone = trainer.model_inference(images[5:6])
        torch.testing.assert_close(alone, logits[5:6], rtol=1e-4, atol=1e-4)
    shares = expected.clamp_min(0) / expected.clamp_min(0).sum(dim=1, keepdim=True)
    torch.testing.assert_close(logits.softmax(dim=1).double(), shares, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["ZLaP", "TransCLIP", "StatA", "TDA"])
def test_descriptions_in_the_place_of_names(data, vit, tmp_path, name):
    file = tmp_path / "own.json"
    file.write_text(json.dumps({classname: ["a red one", f"the {classname}"] for classname in CLASSES}))
    node = f"TRAINER.{name.upper()}"
    made = build(name, data, vit, tmp_path, f"{node}.TEXTS", "descriptions", f"{node}.DESCRIPTIONS", str(file))
    cupl = build("CuPL", data, vit, tmp_path, "TRAINER.CUPL.DESCRIPTIONS", str(file))
    assert torch.equal(made.model.anchors(), cupl.model.anchors())
    assert not torch.equal(made.model.anchors(), build(name, data, vit, tmp_path).model.anchors())
    assert made.descriptions["file"] == str(file)


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.ZLAP.SETUP", "online"), "choose one of inductive, sparse-inductive, transductive"),
        (("TRAINER.ZLAP.NEIGHBOURS", "0"), "at least 1"),
        (("TRAINER.ZLAP.GAMMA", "0.0"), "above 0"),
        (("TRAINER.ZLAP.ALPHA", "1.0"), "below 1"),
        (("DATASET.NUM_SHOTS", "4"), "without labels"),
        (("TRAINER.ZLAP.TEXTS", "both"), "choose one of names, descriptions"),
        (("TRAINER.ZLAP.DESCRIPTIONS", "own.json"), "with TRAINER.ZLAP.TEXTS descriptions alone"),
    ],
)
def test_mistakes(data, vit, tmp_path, capsys, opts, message):
    check_refused(arguments("ZLaP", data, vit, tmp_path, *opts), message, capsys)
