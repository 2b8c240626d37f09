"""MUST without masked image modelling: its formulas against loops in float64, and the trainer as a user runs it."""

import math
import shutil

import pytest
import torch
from commands import train
from plain_maths import softmax
from torch import nn
from torch.nn import functional as F
from toys import (
    EPOCHS,
    arguments,
    build,
    check_refused,
    checkpoint,
    run,
    same,
    save_clip,
)

from fairclip.backbones.openai import load_clip
from fairclip.method.confidence import confident_labels, masked_cross_entropy
from fairclip.method.ema import EMA, ramped_decay
from fairclip.method.rates import layer_depths

B, K = 6, 4
RATE = ("OPTIM.LR", "1e-3")


def logits(seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(B, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- Confidence mask ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.0, 0.6, 0.999])
def test_confident_labels(threshold):
    probs = logits().softmax(dim=1)
    labels, mask = confident_labels(probs, threshold)
    for row, label, sure in zip(probs.tolist(), labels.tolist(), mask.tolist(), strict=True):
        assert label == max(range(K), key=row.__getitem__) and sure == (max(row) > threshold)
    assert 0 < confident_labels(probs, 0.6)[1].sum() < B  # the middle case has both kinds


def test_a_confidence_at_the_threshold_is_not_enough():
    assert confident_labels(torch.tensor([[0.5, 0.25, 0.25]]), 0.5)[1].tolist() == [False]


@pytest.mark.parametrize("mask", [[1, 1, 1, 1, 1, 1], [0, 1, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]])
def test_masked_cross_entropy(mask):
    given, labels = logits(), torch.tensor([0, 3, 1, 1, 2, 0])
    kept = [
        -math.log(softmax(row)[label])
        for row, label, keep in zip(given.tolist(), labels.tolist(), mask, strict=True)
        if keep
    ]
    loss = masked_cross_entropy(given, labels, torch.tensor(mask).bool())
    assert loss.item() == pytest.approx(sum(kept) / len(kept), rel=1e-12)


def test_an_empty_mask_gives_no_loss_and_no_gradient():
    given = logits().requires_grad_()
    loss = masked_cross_entropy(given, torch.zeros(B).long(), torch.zeros(B).bool())
    loss.backward()
    assert loss == 0 and (given.grad == 0).all()


def test_one_class_costs_nothing():
    labels, mask = confident_labels(torch.ones(B, 1), 0.7)
    assert mask.all() and masked_cross_entropy(torch.randn(B, 1), labels, mask) == 0


# -- Teacher -----------------------------------------------------------------------------------------------------------


def test_ramped_decay():
    by_hand = [0.99 + (0.9998 - 0.99) * min(1, it / 4) for it in range(7)]
    assert [ramped_decay(it, 0.99, 0.9998, 4) for it in range(7)] == pytest.approx(by_hand, rel=1e-12)
    assert ramped_decay(0, 0.5, 0.9, 0) == 0.5 and ramped_decay(1, 0.5, 0.9, 0) == 0.9


def test_teacher_is_the_moving_average_of_what_is_trained():
    student = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    student[1].requires_grad_(False)
    ema = EMA(student)
    average = student[0].weight.detach().tolist()
    for step, decay in enumerate((0.9, 0.5, 0.99)):
        with torch.no_grad():
            student[0].weight.add_(torch.randn(2, 3, generator=torch.Generator().manual_seed(step)))
        ema.update(student, decay)
        average = [
            [decay * a + (1 - decay) * w for a, w in zip(old, new, strict=True)]
            for old, new in zip(average, student[0].weight.tolist(), strict=True)
        ]
    torch.testing.assert_close(ema.model[0].weight, torch.tensor(average, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert ema.model[1].weight is student[1].weight and ema.model[1].running_mean is student[1].running_mean
    assert not any(p.requires_grad for p in ema.model.parameters()) and student[0].weight.requires_grad

    other = EMA(student)
    assert not same(other.state_dict(), ema.state_dict()) and ema.state_dict().keys() == {"0.weight", "0.bias"}
    other.load_state_dict(ema.state_dict())
    assert same(other.state_dict(), ema.state_dict())


# -- Layers ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip") / "rn.pt", "resnet")


def test_depths_of_a_vit(backbone):
    depths, head = layer_depths(load_clip(str(backbone)).visual)
    assert head == 3  # embeddings, two blocks, head
    at = {depth: {name for name in depths if depths[name] == depth} for depth in range(4)}
    assert at[0] == {"class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias"}
    assert at[1] and all(name.startswith("transformer.resblocks.0.") for name in at[1])
    assert at[2] and all(name.startswith("transformer.resblocks.1.") for name in at[2])
    assert at[3] == {"proj", "ln_post.weight", "ln_post.bias"}


def test_depths_of_a_resnet(resnet):
    visual = load_clip(str(resnet)).visual
    depths, head = layer_depths(visual)
    assert head == 5 and depths.keys() == dict(visual.named_parameters()).keys()
    for name, depth in depths.items():
        part = name.split(".")[0]
        assert depth == (5 if part == "attnpool" else int(part[5:]) if part.startswith("layer") else 0), name


def test_depths_of_another_tower_follow_its_longest_list():
    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
            self.blocks = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(3))
            self.fc = nn.Linear(4, 2, bias=False)

    depths, head = layer_depths(Tower())
    stem = dict.fromkeys(("stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"), 0)
    assert head == 4
    assert depths == stem | {"blocks.0.weight": 1, "blocks.1.weight": 2, "blocks.2.weight": 3, "fc.weight": 4}
    assert layer_depths(nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())) == ({"0.weight": 1}, 3)


def test_a_tower_without_a_list_of_layers_has_one_rate():
    assert layer_depths(nn.Linear(2, 2)) == ({"weight": 0, "bias": 0}, 0)


def built(data, backbone, out, *opts):
    return build("MUST", data, backbone, out, *RATE, *opts)


def test_rates_fall_with_the_depth_and_vectors_do_not_decay(data, backbone, tmp_path):
    trainer = built(data, backbone, tmp_path, "TRAINER.MUST.LAYER_DECAY", "0.5")
    depths, _ = layer_depths(trainer.model.visual)
    groups = trainer._optims["must"].param_groups
    of = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    parameters = dict(trainer.model.named_parameters())
    assert len(of) == len(parameters) == sum(len(group["params"]) for group in groups)
    for name, parameter in parameters.items():
        depth = depths.get(name.removeprefix("visual."), 3)
        rate = 1e-3 * 8 / 256 * 0.5 ** (3 - depth)
        assert of[id(parameter)] == (pytest.approx(rate), 0.05 if parameter.ndim > 1 else 0.0), name
    assert groups[0]["lr"] == pytest.approx(1e-3 * 8 / 256)  # the one that is logged


# -- A whole run -------------------------------------------------------------------------------------------------------

# The public threshold suits a CLIP that knows something; a random one is never sure.
SURE = ("TRAINER.MUST.THRESHOLD", "0.4", "TRAINER.MUST.EMA_STEPS", "6")


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return out, run("MUST", data, backbone, out, *RATE, *SURE)


def test_a_run_leaves_its_results(finished, backbone):
    out, results = finished
    assert results["trainer"] == "MUST" and results["views_per_image"] == 2
    assert 0 <= results["accuracy"] <= 100 and 0 <= results["ema_accuracy"] <= 100
    for record in results["epochs"]:
        assert record["loss"] == pytest.approx(record["loss_st"] + 3 * record["loss_fair"], rel=1e-5)  # tiny.yaml
        assert 0 <= record["pseudo_accuracy"] <= 100
    assert any(0 < record["confident"] < 1 for record in results["epochs"])
    base, end = (rate * 8 / 256 for rate in (1e-3, 1e-6))
    rates = [end + (base - end) * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in (1, 2, 3)]
    assert [record["lr"] for record in results["epochs"]] == pytest.approx(rates)

    saved, before = checkpoint(out, "MUST"), load_clip(str(backbone)).visual.state_dict()
    assert saved["state_dict"].keys() == {f"visual.{name}" for name in before} | {"anchors.weight"}  # all of the tower
    assert all((saved["state_dict"][f"visual.{name}"] != before[name]).any() for name in before)
    assert saved["extra"]["teacher"].keys() == saved["state_dict"].keys()
    assert not same(saved["extra"]["teacher"], saved["state_dict"])


def test_one_step_equals_the_plain_computation(data, backbone, tmp_path):
    trainer = built(data, backbone, tmp_path, *SURE, "TRAINER.MUST.EMA_START", "0.99")
    trainer.before_train()
    trainer.epoch = 0
    trainer.before_epoch()
    trainer.batch_idx, trainer.num_batches = 0, 4
    # Teacher and student differ, and rows of W have lengths of their own, which must count.
    with torch.no_grad():
        trainer.teacher.model.anchors.weight.mul_(torch.tensor([[1.5], [0.8], [1.0]]))
        trainer.model.anchors.weight.mul_(torch.tensor([[0.7], [1.2], [1.1]]))
        views = torch.randn(8, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        scores = []
        for model, view in ((trainer.teacher.model, 0), (trainer.model, 1)):
            f = F.normalize(model.visual(views[:, view]), dim=-1)
            scores.append((trainer.model.tau * f.double() @ model.anchors.weight.double().t()).tolist())
    teacher, student = ([softmax(row) for row in rows] for rows in scores)
    kept = [-math.log(s[t.index(max(t))]) for t, s in zip(teacher, student, strict=True) if max(t) > 0.4]
    assert 0 < len(kept)
    mean = [sum(s[c] for s in student) / 8 for c in range(3)]
    before, old = trainer.model.anchors.weight.detach().clone(), trainer.teacher.model.anchors.weight.clone()

    figures = trainer.forward_backward({"img": views, "label": torch.full((8,), -1)})
    assert figures["loss_st"] == pytest.approx(sum(kept) / len(kept), rel=1e-3)
    assert figures["loss_fair"] == pytest.approx(-sum(map(math.log, mean)) / 3, rel=1e-3)
    assert figures["confident"] == pytest.approx(len(kept) / 8)
    assert "pseudo_accuracy" not in figures  # the images have no labels
    new = trainer.model.anchors.weight.detach()
    assert not torch.equal(new, before)
    torch.testing.assert_close(trainer.teacher.model.anchors.weight, 0.99 * old + 0.01 * new)
    trainer.close_writer()


def test_without_a_confident_image_fairness_trains_alone(data, backbone, tmp_path):
    results = run("MUST", data, backbone, tmp_path, *RATE, "TRAINER.MUST.THRESHOLD", "0.9999999")
    for record in results["epochs"]:
        assert record["confident"] == record["loss_st"] == 0 and record["loss_fair"] > 0
        assert record["loss"] == pytest.approx(3 * record["loss_fair"])
    before = load_clip(str(backbone)).visual.state_dict()
    assert (checkpoint(tmp_path, "MUST")["state_dict"]["visual.proj"] != before["proj"]).any()


def test_resnet_tower(data, resnet, tmp_path):
    run("MUST", data, resnet, tmp_path, *RATE, *SURE)
    trained = checkpoint(tmp_path, "MUST")["state_dict"]
    parameters = dict(load_clip(str(resnet)).visual.named_parameters())
    assert trained.keys() == {f"visual.{name}" for name in parameters} | {"anchors.weight"}


def test_many_classes_turn_on_the_running_average(finished, data, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.must.MANY_CLASSES", 3)
    run("MUST", data, backbone, tmp_path, *RATE, *SURE)
    assert not same(checkpoint(tmp_path, "MUST")["state_dict"], checkpoint(finished[0], "MUST")["state_dict"])


def test_eval_only_tests_the_student_alone(finished, data, backbone, tmp_path, capsys):
    argv = arguments("MUST", data, backbone, tmp_path, *RATE)
    assert train(["--eval-only", "--model-dir", str(finished[0]), *argv]) == 0
    assert "teacher" not in capsys.readouterr().out  # it was not loaded


def test_the_seed_decides(finished, data, backbone, tmp_path):
    run("MUST", data, backbone, tmp_path, *RATE, *SURE, seed=0)
    assert not same(checkpoint(tmp_path, "MUST")["state_dict"], checkpoint(finished[0], "MUST")["state_dict"])


def test_a_finished_run_that_is_tested_again_has_its_teacher(finished, data, backbone, tmp_path):
    out, results = finished
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "results.json").unlink()
    again = run("MUST", data, backbone, tmp_path / "out", *RATE, *SURE)
    assert again["ema_accuracy"] == results["ema_accuracy"]


@pytest.mark.parametrize(
    "opts",
    [
        {"THRESHOLD": 0.6},
        {"FAIRNESS": 0.0},
        {"EMA_START": 0.5},
        {"EMA_END": 0.99},
        {"EMA_STEPS": 3},
        {"LAYER_DECAY": 1.0},
        {"LR_MIN": 1e-3},
        {"PREC": "bf16"},
    ],
    ids=str,
)
def test_every_option_matters(finished, data, backbone, tmp_path, opts):
    pairs = [text for key, value in opts.items() for text in (f"TRAINER.MUST.{key}", str(value))]
    run("MUST", data, backbone, tmp_path, *RATE, *SURE, *pairs)
    a, b = checkpoint(tmp_path, "MUST"), checkpoint(finished[0], "MUST")
    assert not same(a["extra"]["teacher"], b["extra"]["teacher"])


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.MUST.TRESHOLD", "0.5"), "did you mean TRAINER.MUST.THRESHOLD?"),
        (("TRAINER.MUST.THRESHOLD", "1.0"), "a confidence lies in [0, 1)"),
        (("TRAINER.MUST.EMA_START", "0.99999"), "EMA_START <= EMA_END"),
        (("TRAINER.MUST.LAYER_DECAY", "0.0"), "LAYER_DECAY"),
        (("TRAINER.MUST.PREC", "fp8"), "PREC"),
        (("OPTIM.LR", "0.0"), "above 0"),
        (("OPTIM.LR", "1e-7"), "LR_MIN"),
        (("OPTIM.WARMUP_EPOCH", "1"), "without warm-up"),
        (("DATALOADER.K_TRANSFORMS", "2"), "leave it at 1"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, opts, message):
    check_refused(arguments("MUST", data, backbone, tmp_path, *RATE, *opts), message, capsys)
