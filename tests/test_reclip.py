"""ReCLIP: its labels against loops in float64, and runs through train.py."""

import csv
import math
import time

import pytest
import torch
from plain_maths import dot, unit
from toys import (
    arguments,
    build,
    check_refused,
    checkpoint,
    make_data,
    run,
)

from fairclip import Predictor
from fairclip.backbones.backbone import norm_parameters
from fairclip.core.errors import UserError
from fairclip.method import reclip
from trainers.reclip import ReCLIP

pytestmark = pytest.mark.usefixtures("console")

FASTER = ("OPTIM.LR", "1e-2", "TRAINER.RECLIP.VISUAL_WEIGHT", "1.0", "TRAINER.RECLIP.NEIGHBOURS", "5")

# -- Independent loops over plain numbers, from the description of the method ------------------------------------------


def loop_directions(texts):
    """Left singular vectors of the texts' matrix, by powers of T^T T with those found before taken away."""
    found = []
    for _ in range(len(texts)):
        v = [math.sin(i + 1.0) for i in range(len(texts[0]))]
        for _ in range(600):
            sums = [dot(t, v) for t in texts]
            v = [sum(s * t[i] for s, t in zip(sums, texts, strict=True)) for i in range(len(v))]
            for u in found:
                share = dot(u, v)
                v = [x - share * y for x, y in zip(v, u, strict=True)]
            v = unit(v)
        found.append(v)
    return found


def loop_graph(nodes, k):
    n = len(nodes)
    w = [[0.0] * n for _ in range(n)]
    for i in range(n):
        for weight, j in sorted((((dot(nodes[i], nodes[j]) + 1) / 2, j) for j in range(n) if j != i), reverse=True)[:k]:
            w[i][j] += weight / 2
            w[j][i] += weight / 2
    degrees = [sum(row) for row in w]
    return [[w[i][j] / math.sqrt(degrees[i] * degrees[j]) for j in range(n)] for i in range(n)]


def loop_gradients(s, b, alpha, steps):
    """Conjugate gradients on (I - alpha S) x = b."""

    def times(v):
        return [x - alpha * dot(row, v) for x, row in zip(v, s, strict=True)]

    x, r, p = [0.0] * len(b), list(b), list(b)
    for _ in range(steps):
        if dot(r, r) <= 1e-12 * dot(b, b):
            break
        q = times(p)
        a = dot(r, r) / dot(p, q)
        x = [u + a * v for u, v in zip(x, p, strict=True)]
        new = [u - a * v for u, v in zip(r, q, strict=True)]
        p = [u + dot(new, new) / dot(r, r) * v for u, v in zip(new, p, strict=True)]
        r = new
    return x


def loop_labels(features, texts, directions, k, alpha):
    basis = loop_directions(texts)[1:directions]
    nodes = [unit([sum(dot(x, u) * u[i] for u in basis) for i in range(len(x))]) for x in texts + features]
    s = loop_graph(nodes, k)
    scores = [loop_gradients(s, [float(i == c) for i in range(len(s))], alpha, 20) for c in range(len(texts))]
    return [max(range(len(texts)), key=lambda c, i=i: scores[c][i]) for i in range(len(s))], s


def random_case(n=30, classes=5, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    both = torch.randn(n + classes, dim, generator=generator, dtype=torch.float64)
    both[:classes] += 2  # texts have something in common
    both = torch.nn.functional.normalize(both, dim=1)
    return both[classes:], both[:classes]


# -- Golden values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes, directions", [(5, 768), (5, 3), (2, 768)])
def test_projection(classes, directions):
    _, texts = random_case(classes=classes)
    basis = torch.tensor(loop_directions(texts.tolist())[1:directions], dtype=torch.float64)
    p = reclip.projection(texts, directions)
    torch.testing.assert_close(p, basis.t() @ basis, rtol=0, atol=1e-6)
    torch.testing.assert_close(p @ p, p)


@pytest.mark.parametrize("n, classes, k, directions", [(30, 5, 4, 768), (30, 5, 20, 4), (4, 3, 20, 768)])
def test_labels(n, classes, k, directions):
    features, texts = random_case(n, classes, seed=n)
    labels, s = loop_labels(features.tolist(), texts.tolist(), directions, k, 0.99)
    assert reclip.pseudo_labels(features, texts, directions, k, 0.99).tolist() == labels
    nodes = torch.cat([texts, features]) @ reclip.projection(texts, directions)
    graph = reclip.affinity_graph(torch.nn.functional.normalize(nodes, dim=1), k)
    torch.testing.assert_close(graph.to_dense(), torch.tensor(s, dtype=torch.float64), rtol=0, atol=1e-6)
    assert reclip.propagate_labels(graph, classes, 0.99, columns=2).tolist() == labels


def test_the_graph_is_sparse_and_one_class_will_do():
    features, texts = random_case(2500, 1, 4)
    nodes = torch.cat([texts, features])
    assert reclip.affinity_graph(nodes, 20)._nnz() <= 2 * 2501 * 20
    assert not reclip.pseudo_labels(features[:9], texts, 768).any()
    two = torch.tensor(
        [[1.0, 0.1], [1.0, -0.1]], dtype=torch.float64
    )  # what is left of each is one direction or the other
    assert reclip.pseudo_labels(two[[0, 1, 1]], two, 768).tolist() == [0, 1, 0, 1, 1]
    assert (reclip.usual_directions(500), reclip.usual_directions(501)) == (768, 250)


# -- A whole run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=8)


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return out, run("ReCLIP", data, backbone, out, *FASTER)


def test_a_run_leaves_its_results(finished, data, backbone, tmp_path):
    out, results = finished
    assert (results["uses_labels"], results["transductive"], results["stream"]) == (False, False, False)
    for record in results["epochs"]:
        assert record["loss"] == pytest.approx(record["loss_t"] + record["loss_v"], rel=1e-5)
        assert 0 < record["agreed"] <= 1
    trainer = build("ReCLIP", data, backbone, tmp_path, *FASTER)
    trained = checkpoint(out, "ReCLIP")["state_dict"]
    visual = {f"visual.{name}" for name in norm_parameters(trainer.model.visual)}
    texts = trained.keys() - visual
    assert visual < trained.keys() and texts and all(".ln_" in name and "visual" not in name for name in texts)
    before = dict(trainer.model.named_parameters())
    assert all((trained[name] != before[name]).any() for name in trained)
    # --eval-only: both learners come back, and the tower as it was has stayed so.
    trainer.load_model(str(out))
    logits = trainer.predict(trainer.test_loader, "test")
    with open(out / "predictions.csv", newline="") as stream:
        said = list(csv.DictReader(stream))
    best = logits.softmax(dim=1).max(dim=1)
    assert [trainer.classnames[i] for i in best.indices] == [row["prediction"] for row in said]
    assert best.values.tolist() == pytest.approx([float(row["probability"]) for row in said], abs=6e-5)
    images = torch.cat([batch["img"] for batch in trainer.test_loader])
    torch.testing.assert_close(trainer.model_inference(images[3:5]), logits[3:5], rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="a run of ReCLIP, whose model is more than"):
        Predictor.load(out)


def test_labels_and_prediction_equal_the_plain_computation(data, backbone, tmp_path):
    trainer = build("ReCLIP", data, backbone, tmp_path, *FASTER)
    trainer.epoch = 0
    model, start = trainer.model, trainer.first_texts
    torch.testing.assert_close(trainer.texts(), start, rtol=0, atol=1e-6)  # before a step
    trainer.label_all()
    labels, _ = loop_labels(trainer.frozen.double().tolist(), start.double().tolist(), 768, 5, 0.99)
    assert trainer.labels_t.tolist() == trainer.labels_v.tolist() == labels[3:]
    nodes = torch.cat([start, trainer.frozen]).tolist()
    for c in range(3):
        mine = [node for node, label in zip(nodes, labels, strict=True) if label == c]
        mean = unit([sum(column) for column in zip(*mine, strict=True)]) if mine else start[c].tolist()
        assert model.anchors.weight[c].tolist() == pytest.approx(mean, abs=1e-6)
    with torch.no_grad():
        images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        for parameter in norm_parameters(model.visual).values():
            parameter.mul_(1.2)
        moved, frozen = (torch.nn.functional.normalize(tower(images), dim=1) for tower in (model.visual, model.frozen))
    assert not torch.allclose(moved, frozen)
    expected = model.tau * (moved @ model.anchors().t() + frozen @ start.t()) / 2
    torch.testing.assert_close(trainer.model_inference(images), expected, rtol=1e-4, atol=1e-4)


def test_seconds_of_an_epoch_have_the_labels_made_before_it(data, backbone, tmp_path, monkeypatch):
    label_all = ReCLIP.label_all

    def slow(trainer):
        time.sleep(1.0)
        label_all(trainer)

    monkeypatch.setattr(ReCLIP, "label_all", slow)
    results = run("ReCLIP", data, backbone, tmp_path, *FASTER, "OPTIM.MAX_EPOCH", "1")
    (epoch,) = results["epochs"]
    assert epoch["seconds"] >= 1.0 and results["seconds"] == pytest.approx(epoch["seconds"] + results["test_seconds"])


def test_only_agreed_images_train(data, backbone, tmp_path):
    trainer = build("ReCLIP", data, backbone, tmp_path, *FASTER, "OPTIM.WEIGHT_DECAY", "0.0")
    trainer.epoch = 0
    trainer.label_all()
    batch = next(iter(trainer.in_order))
    trainer.labels_v = (trainer.labels_t + 1) % 3
    trainer.labels_v[0] = trainer.labels_t[0]
    figures = trainer.forward_backward(batch)
    assert figures["agreed"] == 1 / 8
    tau, label = trainer.model.tau, trainer.labels_t[:1]
    expected = torch.nn.functional.cross_entropy(tau * trainer.frozen[:1] @ trainer.first_texts.t(), label)
    assert figures["loss_t"].item() == pytest.approx(expected.item(), rel=1e-4)
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer._optims["reclip"].state.clear()
    trainer.labels_v = (trainer.labels_t + 1) % 3
    assert trainer.forward_backward(batch)["loss"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.RECLIP.DIRECTIONS", "1"), "at least 2"),
        (("TRAINER.RECLIP.NEIGHBOURS", "0"), "at least 1"),
        (("TRAINER.RECLIP.ALPHA", "1.0"), "below 1"),
        (("TRAINER.RECLIP.VISUAL_WEIGHT", "-1.0"), "must be at least 0"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, opts, message):
    check_refused(arguments("ReCLIP", data, backbone, tmp_path, *opts), message, capsys)
