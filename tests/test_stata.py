"""StatA: its updates against a loop in float64, and runs through train.py."""

import math

import pytest
import torch
from test_transclip import dot, loop_neighbours, random_case, unit
from toys import arguments, build, check_refused, make_data, run

from fairclip.core.errors import UserError
from fairclip.method.stata import claimed_share, fit
from fairclip.method.transclip import SMALLEST_VARIANCE

pytestmark = pytest.mark.usefixtures("console")

# -- An independent loop over plain numbers, from the description of the method ----------------------------------------


def loop_fit(q, t, y, k=3, outer=10, inner=5, lam=1.0, alpha=1.0):
    n, dims, classes = range(len(q)), range(len(q[0])), range(len(t))
    anchor = [sum(y[i][c] * (q[i][d] - t[c][d]) ** 2 for i in n for c in classes) / len(q) for d in dims]
    w, z, mu, sigma = loop_neighbours(q, k), y, t, [anchor for _ in classes]
    for step in range(outer + 1):
        gauss = [
            [-0.5 * sum((q[i][d] - mu[c][d]) ** 2 / sigma[c][d] + math.log(sigma[c][d]) for d in dims) for c in classes]
            for i in n
        ]
        for _ in range(inner):
            new = []
            for i in n:
                votes = [sum((w[i].get(j, 0.0) + w[j].get(i, 0.0)) * z[j][c] for j in n) for c in classes]
                energies = [(gauss[i][c] + 50 / (2 * k) * votes[c]) / 50 for c in classes]
                row = [y[i][c] ** lam * math.exp(energies[c] - max(energies)) for c in classes]
                new.append([x / sum(row) for x in row])
            z = new
        if step < outer:
            winners = [max(classes, key=z[i].__getitem__) for i in n]
            mu, sigma = [], []
            for c in classes:
                beta = winners.count(c) / (alpha + winners.count(c))
                mass = sum(z[i][c] for i in n)
                mean = unit([sum(z[i][c] * q[i][d] for i in n) / mass for d in dims])
                centre = unit([beta * mean[d] + (1 - beta) * t[c][d] for d in dims])
                own = [sum(z[i][c] * (q[i][d] - centre[d]) ** 2 for i in n) / mass for d in dims]
                pulled = [beta * own[d] + (1 - beta) * (anchor[d] + (t[c][d] - centre[d]) ** 2) for d in dims]
                mu.append(centre)
                sigma.append([max(s, SMALLEST_VARIANCE) for s in pulled])
    return z, mu, sigma


def case(sharpness=4.0, classes=4):
    q, y = random_case(sharpness=sharpness, classes=classes)
    t, _ = random_case(n=classes, seed=1)
    return q, t, y


def near(found, expected):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, torch.tensor(b, dtype=torch.float64), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["random", "sharp", "one class", "duplicates", "class never predicted"])
def test_the_whole_fit(kind):
    q, t, y = case(30.0 if kind == "sharp" else 4.0, 1 if kind == "one class" else 4)
    if kind == "duplicates":
        q, y = torch.cat([q[:7], q[:7]]), torch.cat([y[:7], y[:7]])
    elif kind == "class never predicted":
        y[:, 2] = 1e-12
        y = y / y.sum(dim=1, keepdim=True)
    found = fit(q, t, y.log())  # the defaults are the paper's
    near(found, loop_fit(q.tolist(), t.tolist(), y.tolist()))
    if kind == "class never predicted":  # it stays what the text says
        torch.testing.assert_close(found.mu[2], t[2])


def test_other_settings_reach_the_updates():
    q, t, y = case()
    settings = {"outer": 3, "inner": 2, "lam": 0.7, "alpha": 4.0}
    near(fit(q, t, y.log(), neighbours=2, **settings), loop_fit(q.tolist(), t.tolist(), y.tolist(), 2, **settings))


def test_more_claims_weigh_more():
    z = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.7, 0.3, 0.0], [0.4, 0.6, 0.0]])
    assert claimed_share(z, 1.0).flatten().tolist() == pytest.approx([3 / 4, 1 / 2, 0])


def test_degenerate_inputs_stay_finite():
    q, t, y = case()
    y[:, 1] = 0  # probability 0, log -inf
    y = y / y.sum(dim=1, keepdim=True)
    for features, prior in ((q, y), (q[:1].expand(14, -1), y), (q[:1], y[:1])):
        assert all(tensor.isfinite().all() for tensor in fit(features, t, prior.log()))


# -- Runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=2, test=4)


def test_a_run_is_the_solver_on_the_test_features(data, vit, tmp_path):
    results = run("StatA", data, vit, tmp_path / "run")
    assert (results["transductive"], results["stream"], results["uses_labels"]) == (True, False, False)
    trainer = build("StatA", data, vit, tmp_path)
    logits, labels = trainer.predict(trainer.test_loader, "test"), torch.tensor(trainer.test_loader.dataset.labels)
    assert results["accuracy"] == pytest.approx(100 * (logits.argmax(dim=1) == labels).double().mean().item())
    q, t = trainer.encode_all(trainer.test_loader.dataset, "test").tolist(), trainer.model.anchors().tolist()
    y = torch.tensor([[trainer.model.tau * dot(a, b) for b in t] for a in q], dtype=torch.float64).softmax(dim=1)
    expected = torch.tensor(loop_fit(q, t, y.tolist())[0])
    torch.testing.assert_close(logits.softmax(dim=1), expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(UserError, match="a whole split at once"):
        trainer.model_inference(next(iter(trainer.test_loader))["img"])


def test_online_each_batch_is_fitted_by_itself_in_the_order_of_the_seed(data, vit, tmp_path):
    results = run("StatA", data, vit, tmp_path / "run", "TRAINER.STATA.ONLINE", "True", "TRAINER.STATA.BATCH", "5")
    assert (results["transductive"], results["stream"], results["uses_labels"]) == (False, True, False)
    trainer = build("StatA", data, vit, tmp_path, "TRAINER.STATA.ONLINE", "True", "TRAINER.STATA.BATCH", "5")
    logits, labels = trainer.predict(trainer.test_loader, "test"), torch.tensor(trainer.test_loader.dataset.labels)
    assert results["accuracy"] == pytest.approx(100 * (logits.argmax(dim=1) == labels).double().mean().item())
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    q = trainer.encode_all(trainer.test_loader.dataset, "test")[order]
    whole = build("StatA", data, vit, tmp_path)
    for start in (0, 5, 10):  # the last batch has two images
        part = slice(start, start + 5)
        torch.testing.assert_close(logits[order][part], whole.scores(q[part]))


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.STATA.NEIGHBOURS", "0"), "at least 1"),
        (("TRAINER.STATA.OUTER", "-1"), "at least 0"),
        (("TRAINER.STATA.ALPHA", "0.0"), "above 0"),
        (("TRAINER.STATA.BATCH", "0"), "at least 1"),
    ],
)
def test_mistakes(data, vit, tmp_path, capsys, opts, message):
    check_refused(arguments("StatA", data, vit, tmp_path, *opts), message, capsys)
