"""TransCLIP: each update against a loop in float64, and runs through train.py."""

import math
from pathlib import Path

import pytest
import torch
from plain_maths import dot, unit
from toys import CLASSES, arguments, build, check_refused, make_data, run, save_clip

from fairclip.backbones.makers import load_backbone
from fairclip.core.errors import UserError
from fairclip.method import transclip as module
from fairclip.method.transclip import (
    SMALLEST_VARIANCE,
    fit,
    initial_means,
    log_likelihood,
    nearest_neighbours,
    neighbour_votes,
    update_assignments,
    update_means,
    update_variances,
)
from fairclip.text.embeddings import name_prompts

pytestmark = pytest.mark.usefixtures("console")

# -- An independent loop over plain numbers, from the description of the method ----------------------------------------


def loop_neighbours(q, k):
    rows = []
    for i in range(len(q)):
        cosines = sorted(((dot(q[i], q[j]), j) for j in range(len(q)) if j != i), reverse=True)[:k]
        rows.append({j: c for c, j in cosines})
    return rows


def loop_likelihood(q, mu, sigma):
    return [
        [-0.5 * sum((x - m) ** 2 / s for x, m, s in zip(row, centre, sigma, strict=True)) for centre in mu] for row in q
    ]


def loop_assignments(y, likelihood, w, z, k, lam):
    result = []
    for i in range(len(y)):
        energies = []
        for c in range(len(y[0])):
            vote = sum((w[i].get(j, 0.0) + w[j].get(i, 0.0)) * z[j][c] for j in range(len(z)))
            energies.append(likelihood[i][c] / 50 + vote / (2 * k))
        top = max(energies)
        row = [y[i][c] ** lam * math.exp(e - top) for c, e in enumerate(energies)]
        result.append([x / sum(row) for x in row])
    return result


def loop_means(q, z, old):
    means = []
    for c in range(len(z[0])):
        mass = sum(row[c] for row in z)
        means.append(
            unit([sum(z[i][c] * q[i][d] for i in range(len(q))) / mass for d in range(len(q[0]))])
            if mass > 0
            else old[c]
        )
    return means


def loop_variances(q, z, mu):
    return [
        sum(z[i][c] * (q[i][d] - mu[c][d]) ** 2 for i in range(len(q)) for c in range(len(mu))) / len(q)
        for d in range(len(q[0]))
    ]


def loop_initial(q, z, count):
    means = []
    for c in range(len(z[0])):
        top = sorted(range(len(q)), key=lambda i: -z[i][c])[:count]
        means.append(unit([sum(z[i][c] * q[i][d] for i in top) / count for d in range(len(q[0]))]))
    return means


def loop_fit(q, y, k, outer, inner, init, lam):
    w, z, mu, sigma = loop_neighbours(q, k), y, loop_initial(q, y, init), [1 / len(q[0])] * len(q[0])
    for step in range(outer + 1):
        likelihood = loop_likelihood(q, mu, sigma)
        for _ in range(inner):
            z = loop_assignments(y, likelihood, w, z, k, lam)
        if step < outer:
            mu = loop_means(q, z, mu)
            sigma = [max(s, SMALLEST_VARIANCE) for s in loop_variances(q, z, mu)]
    return z, mu, sigma


def random_case(n=14, classes=4, dim=6, sharpness=4.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.nn.functional.normalize(torch.randn(n, dim, generator=generator, dtype=torch.float64), dim=1)
    y = (sharpness * torch.randn(n, classes, generator=generator, dtype=torch.float64)).softmax(dim=1)
    return q, y


def close(a, b):
    torch.testing.assert_close(a, torch.tensor(b, dtype=torch.float64), rtol=1e-9, atol=1e-11)


# -- Golden values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 5, 100])
@pytest.mark.parametrize("n", [2, 3, 14])
def test_neighbours(n, chunk):
    q, _ = random_case(n)
    values, indices = nearest_neighbours(q, 3, chunk)
    assert indices.shape == (n, min(3, n - 1))
    for i, row in enumerate(loop_neighbours(q.tolist(), 3)):
        assert dict(zip(indices[i].tolist(), values[i].tolist(), strict=True)) == pytest.approx(row)


def test_no_image_is_its_own_neighbour_even_among_duplicates():
    q, _ = random_case()
    _, indices = nearest_neighbours(q[torch.tensor([0, 0, 0, 0, 0, 1, 2, 3])], 3)
    assert (indices != torch.arange(8)[:, None]).all()
    assert all(len(set(row)) == 3 for row in indices.tolist())


def test_votes_go_both_ways():
    q, z = random_case()
    expected = [
        [sum((w.get(j, 0) + v[j].get(i, 0)) * z[j, c].item() for j in range(14)) for c in range(4)]
        for v in [loop_neighbours(q.tolist(), 3)]
        for i, w in enumerate(v)
    ]
    close(neighbour_votes(z, *nearest_neighbours(q, 3)), expected)


def test_each_update():
    q, y = random_case()
    z = random_case(seed=1)[1]
    mu = initial_means(q, y, 8)
    close(mu, loop_initial(q.tolist(), y.tolist(), 8))
    sigma = torch.linspace(0.1, 0.5, 6, dtype=torch.float64)
    likelihood = log_likelihood(q, mu, sigma)
    close(likelihood, loop_likelihood(q.tolist(), mu.tolist(), sigma.tolist()))
    votes = neighbour_votes(z, *nearest_neighbours(q, 3))
    w = loop_neighbours(q.tolist(), 3)
    for lam in (0.0, 0.5, 1.0):
        close(
            update_assignments(y.log(), likelihood, votes, 3, lam),
            loop_assignments(y.tolist(), likelihood.tolist(), w, z.tolist(), 3, lam),
        )
    close(update_means(q, z, mu), loop_means(q.tolist(), z.tolist(), mu.tolist()))
    close(update_variances(q, z, mu), loop_variances(q.tolist(), z.tolist(), mu.tolist()))
    z[:, 1] *= 1e-30  # a class that hardly claims an image has a unit mean too
    close(initial_means(q, z, 8), loop_initial(q.tolist(), z.tolist(), 8))
    close(update_means(q, z, mu), loop_means(q.tolist(), z.tolist(), mu.tolist()))


@pytest.mark.parametrize(
    "case",
    ["random", "sharp", "few images", "one class", "duplicates", "class never predicted", "class all but impossible"],
)
def test_the_whole_fit(case):
    q, y = random_case(sharpness=30.0 if case == "sharp" else 4.0)
    init = 8
    if case == "few images":
        q, y, init = q[:5], y[:5], 5  # fewer than 8
    elif case == "one class":
        y = torch.ones_like(y[:, :1])
    elif case == "duplicates":
        q, y = torch.cat([q[:7], q[:7]]), torch.cat([y[:7], y[:7]])
    elif case == "class never predicted":
        y[:, 2] = 1e-12
        y = y / y.sum(dim=1, keepdim=True)
    elif case == "class all but impossible":
        y[:, 2] *= 1e-40
        y = y / y.sum(dim=1, keepdim=True)
    outer, inner, lam = 10, 5, 1.0
    z, mu, sigma = fit(q, y.log())  # the defaults are the public code's
    expected = loop_fit(q.tolist(), y.tolist(), 3, outer, inner, init, lam)
    for found, wanted in zip((z, mu, sigma), expected, strict=True):
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-8)
    assert torch.allclose(z.sum(dim=1), torch.ones(len(z), dtype=torch.float64))


def test_other_settings_reach_the_updates():
    q, y = random_case()
    settings = {"neighbours": 2, "outer": 3, "inner": 2, "init": 4, "lam": 0.7}
    z, _, _ = fit(q, y.log(), **settings)
    expected, _, _ = loop_fit(q.tolist(), y.tolist(), 2, 3, 2, 4, 0.7)
    close(z, expected)


def test_degenerate_inputs_stay_finite():
    q, y = random_case()
    y[:, 1] = 0  # probability 0, log -inf
    y = y / y.sum(dim=1, keepdim=True)
    same = q[:1].expand(14, -1)
    for features, prior in ((q, y), (same, y), (q[:1], y[:1])):
        result = fit(features, prior.log())
        assert all(tensor.isfinite().all() for tensor in result)
    assert torch.equal(update_means(q, torch.zeros_like(y), y.new_ones(4, 6)), y.new_ones(4, 6))


def test_the_matrix_of_cosines_is_never_whole(monkeypatch):
    """20,000 images must fit: the largest array on the way has chunk x N numbers."""
    sizes = []
    topk = torch.Tensor.topk

    def watched(self, *args, **kwargs):
        sizes.append(self.numel())
        return topk(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "topk", watched)
    q, _ = random_case(n=2500, dim=4)
    module.nearest_neighbours(q)
    assert max(sizes) == 1024 * 2500 and len(sizes) == 3


# -- Runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=8, test=4)


@pytest.fixture(scope="module", params=["vit", "resnet"])
def backbone(tmp_path_factory, request):
    return save_clip(tmp_path_factory.mktemp("clip") / "clip.pt", request.param)


INDUCTIVE = ("TRAINER.TRANSCLIP.INDUCTIVE", "True")


def names(trainer, backbone: Path) -> torch.Tensor:
    """Embedded class names: a trainer drops the text tower once it has them."""
    return name_prompts(load_backbone(str(backbone)), trainer.classnames, ("a photo of a {}.",))


def test_a_run_is_the_solver_on_the_test_features(data, backbone, tmp_path):
    results = run("TransCLIP", data, backbone, tmp_path)
    assert (results["transductive"], results["uses_labels"], results["trainable_parameters"]) == (True, False, 0)
    trainer = build("TransCLIP", data, backbone, tmp_path)
    batches = list(trainer.test_loader)
    images, labels = torch.cat([b["img"] for b in batches]), torch.cat([b["label"] for b in batches])
    with torch.no_grad():
        q = torch.nn.functional.normalize(trainer.model.visual(images), dim=-1).double()
        t = names(trainer, backbone).double()
    y = (trainer.model.tau * q @ t.t()).softmax(dim=1)
    expected = torch.tensor(loop_fit(q.tolist(), y.tolist(), 3, 10, 5, 8, 1.0)[0])  # float32, as the logits
    logits, listed = trainer.predict(trainer.test_loader, "test"), trainer.test_loader.dataset
    torch.testing.assert_close(logits.softmax(dim=1), expected, rtol=1e-3, atol=1e-5)
    assert listed.labels == labels.tolist() and listed.paths == [p for b in batches for p in b["impath"]]
    accuracy = 100 * (expected.argmax(dim=1) == labels).double().mean().item()
    assert results["accuracy"] == pytest.approx(accuracy)
    with pytest.raises(UserError, match="INDUCTIVE"):
        trainer.model_inference(images)


def test_inductive_scores_images_one_by_one(data, backbone, tmp_path):
    results = run("TransCLIP", data, backbone, tmp_path, *INDUCTIVE)
    assert results["transductive"] is False
    trainer = build("TransCLIP", data, backbone, tmp_path, *INDUCTIVE)
    logits, labels = trainer.predict(trainer.test_loader, "test"), torch.tensor(trainer.test_loader.dataset.labels)
    assert results["accuracy"] == pytest.approx(100 * (logits.argmax(dim=1) == labels).double().mean().item())
    images = torch.cat([batch["img"] for batch in trainer.test_loader])
    for i in (0, 5, 11):  # alone as in company
        alone = trainer.model_inference(images[i : i + 1])
        torch.testing.assert_close(alone, logits[i : i + 1], rtol=1e-4, atol=1e-4)
        # y^lambda exp(l / 50) under the Gaussians of the training images
        q = trainer.model.encode(images[i : i + 1]).double()
        mu, sigma = trainer.gaussians
        y = (trainer.model.tau * q @ names(trainer, backbone).double().t()).softmax(dim=1)[0].tolist()
        likelihood = loop_likelihood(q.tolist(), mu.tolist(), sigma.tolist())[0]
        row = [a * math.exp(b / 50) for a, b in zip(y, likelihood, strict=True)]
        assert alone.softmax(dim=1)[0].tolist() == pytest.approx([x / sum(row) for x in row], rel=1e-3, abs=1e-6)
    train_q = trainer.encode_all(trainer.train_loader_x.dataset, "train")
    z, mu, sigma = trainer.fit(train_q)
    assert len(z) == 24 and torch.equal(mu, trainer.gaussians[0]) and torch.equal(sigma, trainer.gaussians[1])


def test_a_run_again_gives_the_same(data, vit, tmp_path, cache):
    first = run("TransCLIP", data, vit, tmp_path / "a", *INDUCTIVE)
    for file in (cache / "features").iterdir():
        file.unlink()
    assert run("TransCLIP", data, vit, tmp_path / "b", *INDUCTIVE)["macro_f1"] == first["macro_f1"]
    kept = [(tmp_path / name / "predictions.csv").read_text() for name in "ab"]
    assert kept[0] == kept[1] and kept[0].count("\n") == 1 + 4 * len(CLASSES)


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.TRANSCLIP.NEIGHBOUR", "3"), "did you mean TRAINER.TRANSCLIP.NEIGHBOURS?"),
        (("TRAINER.TRANSCLIP.NEIGHBOURS", "0"), "at least 1"),
        (("TRAINER.TRANSCLIP.OUTER", "-1"), "at least 0"),
        (("TRAINER.TRANSCLIP.PREC", "fp8"), "PREC"),
        ((*INDUCTIVE, "DATASET.NUM_SHOTS", "4"), "without labels"),
    ],
)
def test_mistakes(data, vit, tmp_path, capsys, opts, message):
    check_refused(arguments("TransCLIP", data, vit, tmp_path, *opts), message, capsys)
