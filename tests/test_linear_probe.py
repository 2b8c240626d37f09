"""The linear probe: its fit against another solver's, how its penalty is chosen, and runs through train.py."""

import json
import math
import time

import pytest
import torch
from commands import train
from toys import CLASSES, arguments, build, check_refused, make_data, permute_labels, run, save_clip

from fairclip.core.errors import UserError
from fairclip.method.linear_probe import fit_logistic_regression, regularisation_path
from fairclip.views import features as features_module

pytestmark = pytest.mark.usefixtures("console")


def loop_loss_and_gradient(features, labels, weight, bias, penalty):
    """Mean cross-entropy + penalty / 2 ||W||^2 and its gradient, by loops over plain numbers."""
    n, classes, dim = len(features), len(weight), len(features[0])
    loss, by_weight, by_bias = 0.0, [[penalty * w for w in row] for row in weight], [0.0] * classes
    for x, label in zip(features, labels, strict=True):
        logits = [sum(a * b for a, b in zip(x, row, strict=True)) + b0 for row, b0 in zip(weight, bias, strict=True)]
        total = sum(math.exp(v) for v in logits)
        loss += (math.log(total) - logits[label]) / n
        for c in range(classes):
            error = (math.exp(logits[c]) / total - (c == label)) / n
            by_bias[c] += error
            for d in range(dim):
                by_weight[c][d] += error * x[d]
    return loss, by_weight, by_bias


def random_case(n=30, dim=5, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, dim, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 3, dim) + 2
    labels = torch.randint(classes, (n,), generator=generator)
    return features, labels


@pytest.mark.parametrize("penalty", [1.0, 0.01])
@pytest.mark.parametrize("classes", [1, 3, 4])  # with 4, one class has no image
def test_the_fit_is_the_minimum(penalty, classes):
    features, labels = random_case(classes=min(classes, 3))
    probe = fit_logistic_regression(features, labels, classes, penalty, 1000)
    loss, by_weight, by_bias = loop_loss_and_gradient(
        features.tolist(), labels.tolist(), probe.weight.tolist(), probe.bias.tolist(), penalty
    )
    assert probe.loss == pytest.approx(loss, rel=1e-9, abs=1e-12)
    assert all(abs(g) < 1e-5 for row in by_weight for g in row)
    if classes == 3:
        assert all(abs(g) < 1e-5 for g in by_bias)
    # bias of the class without images goes to minus infinity, and its gradient to 0 slowly


@pytest.mark.parametrize("penalty", [1e-5, 1e-6])
def test_weak_penalties_are_fitted_to_the_end(penalty):
    """The objective is penalty-strongly convex, so its gradient bounds how far above the minimum it is."""
    generator = torch.Generator().manual_seed(0)
    centres, labels = torch.randn(10, 50, generator=generator, dtype=torch.float64), torch.arange(200) % 10
    features = centres[labels] + torch.randn(200, 50, generator=generator, dtype=torch.float64)
    probe = fit_logistic_regression(features, labels, 10, penalty, 1000)
    weight = probe.weight.clone().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(features @ weight.t() + probe.bias, labels)
    objective = loss + penalty / 2 * weight.square().sum()
    (gradient,) = torch.autograd.grad(objective, weight)
    assert gradient.square().sum() / (2 * penalty) < 1e-5 * objective


def test_the_start_does_not_change_the_result():
    features, labels = random_case()
    there = fit_logistic_regression(features, labels, 3, 0.1, 1000)
    start = fit_logistic_regression(features, labels, 3, 10.0, 1000)
    from_start = fit_logistic_regression(features, labels, 3, 0.1, 1000, start)
    torch.testing.assert_close(from_start.weight, there.weight, rtol=0, atol=1e-5)


def test_penalties_are_on_standardised_features_and_probes_on_plain_ones():
    features, labels = random_case()
    features = torch.cat([features, torch.full((30, 1), 7.0)], dim=1)  # a dimension that never changes
    path = regularisation_path(features, labels, 3, (0.01, 1.0, 0.01), 1000)
    assert list(path) == [1.0, 0.01]
    rows = features.tolist()
    means = [sum(row[d] for row in rows) / 30 for d in range(6)]
    stds = [math.sqrt(sum((row[d] - means[d]) ** 2 for row in rows) / 30) or 1.0 for d in range(6)]
    standard = torch.tensor([[(row[d] - means[d]) / stds[d] for d in range(6)] for row in rows], dtype=torch.float64)
    for penalty, probe in path.items():
        plain = fit_logistic_regression(standard, labels, 3, penalty, 1000)
        expected = standard @ plain.weight.t() + plain.bias
        torch.testing.assert_close(probe(features), expected, rtol=0, atol=1e-5)
    scaled = regularisation_path(features * 100 - 3, labels, 3, (0.01,), 1000)[0.01]
    torch.testing.assert_close(scaled(features * 100 - 3), path[0.01](features), rtol=0, atol=1e-5)


# -- Runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=12, val=4, test=4)


@pytest.fixture(scope="module", params=["vit", "resnet"])
def backbone(tmp_path_factory, request):
    return save_clip(tmp_path_factory.mktemp("clip") / "clip.pt", request.param)


def head(out):
    return torch.load(out / "linear_probe" / "model.pth.tar-1", weights_only=True)["state_dict"]


def test_a_run(data, backbone, tmp_path):
    results = run("LinearProbe", data, backbone, tmp_path)
    assert (results["transductive"], results["uses_labels"]) == (False, True)
    assert results["trainable_parameters"] == 16 * 3 + 3 and results["views_per_image"] == 1
    (record,) = results["epochs"]
    assert record["epoch"] == 1 and record["l2"] in (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6)
    assert 0 <= record["val_accuracy"] <= 100
    assert results["seconds"] == pytest.approx(record["seconds"] + results["test_seconds"])
    assert head(tmp_path).keys() == {"head.weight", "head.bias"}
    trainer = build("LinearProbe", data, backbone, tmp_path)
    trainer.load_model(str(tmp_path))
    batches = list(trainer.test_loader)
    predicted = torch.cat([trainer.model_inference(b["img"]).argmax(dim=1) for b in batches])
    labels = torch.cat([b["label"] for b in batches])
    assert results["accuracy"] == pytest.approx(100 * (predicted == labels).double().mean().item())


FEW = ("TRAINER.LINEARPROBE.ITERATIONS", "100")  # labels at random take their time


def test_labels_are_learned(data, vit, tmp_path):
    results = run("LinearProbe", data, vit, tmp_path / "a", *FEW)
    assert results["accuracy"] > 60  # chance is 33


def with_splits(data, folder, **splits):
    """A copy of ``data`` (its images are links) in which some splits are others."""
    folder.mkdir()
    for file in data.iterdir():
        (folder / file.name).symlink_to(file)
    original = json.loads((data / "split.json").read_text())
    (folder / "split.json").unlink()
    (folder / "split.json").write_text(json.dumps(original | splits))
    return folder


def test_the_validation_images_choose_and_test_labels_do_not(data, vit, tmp_path):
    # Labels at random, and the training images again for validation: who learns them by heart is right.
    mixed = permute_labels(data, tmp_path / "mixed")
    split = json.loads((mixed / "split.json").read_text())
    by_heart = with_splits(mixed, tmp_path / "by_heart", val=split["train"])
    results = run("LinearProbe", by_heart, vit, tmp_path / "a", *FEW)
    lines = [line for line in (tmp_path / "a" / "log.txt").read_text().splitlines() if line.startswith("L2 ")]
    table = {float(line.split(":")[0][3:]): float(line.split("images ")[1].split(",")[0]) for line in lines}
    chosen = results["epochs"][0]["l2"]
    assert len(table) == 7 and table[1.0] < max(table.values())
    assert chosen == max(penalty for penalty, accuracy in table.items() if accuracy == max(table.values()))

    def rotated(part):
        return [(name, (label + 1) % 3) for name, label in part]

    for name, same, splits in (
        ("test", True, {"val": split["train"], "test": rotated(split["test"])}),
        ("val", False, {"val": rotated(split["train"])}),
    ):
        results = run("LinearProbe", with_splits(mixed, tmp_path / name, **splits), vit, tmp_path / f"{name}_out", *FEW)
        trained = head(tmp_path / f"{name}_out")["head.weight"]
        assert torch.equal(trained, head(tmp_path / "a")["head.weight"]) == same
        assert (results["epochs"][0]["l2"] == chosen) == same


def test_one_penalty_is_fixed_and_validation_images_are_left_alone(data, vit, tmp_path, cache):
    results = run("LinearProbe", data, vit, tmp_path, "TRAINER.LINEARPROBE.L2", "(0.05,)")
    assert results["epochs"][0]["l2"] == 0.05 and "val_accuracy" not in results["epochs"][0]
    assert len(list((cache / "features").iterdir())) == 2  # train and test


def test_without_validation_images_the_penalty_is_fixed(vit, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    data = make_data(tmp_path / "data", train=4, test=2)
    results = run("LinearProbe", data, vit, tmp_path / "out")
    assert results["epochs"][0]["l2"] == 1e-3
    assert "no validation images" in capsys.readouterr().out


def test_seed_and_interruption_do_not_change_the_result(data, vit, tmp_path, cache, monkeypatch):
    run("LinearProbe", data, vit, tmp_path / "a")
    run("LinearProbe", data, vit, tmp_path / "b", seed=2)

    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("trainers.linear_probe.LinearProbe.after_train", stop)  # fitted and saved, not tested
        assert train(arguments("LinearProbe", data, vit, tmp_path / "c")) == 130
    for file in (cache / "features").iterdir():
        file.unlink()
    run("LinearProbe", data, vit, tmp_path / "c")
    for other in "bc":
        assert all(torch.equal(head(tmp_path / "a")[key], value) for key, value in head(tmp_path / other).items())
        assert (tmp_path / "a/predictions.csv").read_text() == (tmp_path / other / "predictions.csv").read_text()


def test_reported_seconds_do_not_depend_on_the_cache(data, vit, tmp_path, monkeypatch):
    encode = features_module._encode

    def slow(*args):
        time.sleep(0.5)
        return encode(*args)

    monkeypatch.setattr(features_module, "_encode", slow)
    first, second = (run("LinearProbe", data, vit, tmp_path / name) for name in "ab")
    for results in (first, second):
        assert results["epochs"][0]["seconds"] > 1.0 and results["test_seconds"] > 0.5  # train, val; test


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.LINEARPROBE.L1", "(1.0,)"), "did you mean TRAINER.LINEARPROBE.L2?"),
        (("TRAINER.LINEARPROBE.L2", "()"), "above 0"),
        (("TRAINER.LINEARPROBE.L2", "(0.1, -1.0)"), "above 0"),
        (("TRAINER.LINEARPROBE.ITERATIONS", "0"), "at least 1"),
        (("TEST.FINAL_MODEL", "best_val"), "last_step"),
    ],
)
def test_mistakes(data, vit, tmp_path, capsys, opts, message):
    check_refused(arguments("LinearProbe", data, vit, tmp_path, *opts), message, capsys)


def test_training_images_without_labels_are_refused(data, vit, tmp_path):
    trainer = build("LinearProbe", data, vit, tmp_path / "out")
    trainer.train_loader_x.dataset.labels[:5] = [-1] * 5
    with pytest.raises(UserError, match=f"5 of {12 * len(CLASSES)} train images"):
        trainer.fit()
