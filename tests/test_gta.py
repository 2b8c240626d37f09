"""GTA-CLIP's rounds: their pieces against loops in float64, and runs through train.py."""

import csv
import json
import math

import pytest
import torch
from plain_maths import dot, units
from toys import (
    CLASSES,
    arguments,
    build,
    check_refused,
    checkpoint,
    run,
)

from fairclip import Predictor
from fairclip.backbones.openai import clip_module
from fairclip.method import gta, transclip

pytestmark = pytest.mark.usefixtures("console")

FASTER = ("OPTIM.LR", "1e-3", "TRAINER.GTA.PER_CLASS", "6", "TRAINER.GTA.PROJECTION_RATE", "5.0")


def log_softmax(row):
    total = math.log(sum(math.exp(x) for x in row))
    return [x - total for x in row]


# -- Golden values -----------------------------------------------------------------------------------------------------


def test_means_of_texts():
    features, classes = units(7, 5), [0, 0, 1, 2, 2, 2, 1]
    means = gta.class_means(features, torch.tensor(classes), 3)
    for c in range(3):
        mine = [f for f, k in zip(features.tolist(), classes, strict=True) if k == c]
        assert means[c].tolist() == pytest.approx([sum(column) / len(mine) for column in zip(*mine, strict=True)])


def test_surest_images_and_their_classes():
    z = units(12, 3, seed=1).softmax(dim=1)
    top = [sorted(range(12), key=lambda i, c=c: -z[i, c].item())[:5] for c in range(3)]
    found = gta.surest(z, 5)
    assert found.t().tolist() == top and gta.surest(z, 99).shape == (12, 3)
    chosen = gta.choose(found)
    assert chosen.images.tolist() == sorted({i for mine in top for i in mine})
    assert chosen.classes.tolist() == [[i in top[c] for c in range(3)] for i in chosen.images.tolist()]


def test_drawn_texts_are_of_the_images_classes(monkeypatch):
    monkeypatch.setattr(gta, "ROWS", 7)
    images, texts = torch.tensor([[True, False, True], [False, True, False]] * 300), torch.tensor([0, 1, 1, 2, 2, 2])
    drawn = gta.draw_texts(images, texts, torch.Generator().manual_seed(0))
    assert images[torch.arange(600), texts[drawn]].all()
    shares = drawn[::2].bincount(minlength=6) / 300
    assert shares[[1, 2]].sum() == 0 and (shares[[0, 3, 4, 5]] - 0.25).abs().max() < 0.08  # each text as likely


def test_contrastive_loss():
    images, texts, tau = units(5, 4), units(5, 4, seed=1), 9.0
    positives = torch.eye(5, dtype=torch.bool)
    positives[0, 3] = positives[3, 0] = positives[2, 4] = True
    logits = [[tau * dot(f, t) for t in texts.tolist()] for f in images.tolist()]
    total = 0.0
    for i in range(5):
        row, column = log_softmax(logits[i]), log_softmax([logits[j][i] for j in range(5)])
        mine = [j for j in range(5) if positives[i, j]]
        total -= sum(row[j] for j in mine) / len(mine) / 5
        mine = [j for j in range(5) if positives[j, i]]
        total -= sum(column[j] for j in mine) / len(mine) / 5
    assert gta.contrastive_loss(images, texts, positives, tau).item() == pytest.approx(total, abs=1e-6)


def test_the_head_is_transclips_score_of_one_image():
    q, texts, means, tau = units(20, 6), units(4, 6, seed=1), units(4, 6, seed=2), 30.0
    variances = 0.05 + units(6, seed=3).abs()
    vectors, bias = gta.linear_head(texts, means, variances, tau)
    expected = []
    for x in q.tolist():
        energies = [
            tau * dot(x, t) - sum((a - b) ** 2 / s for a, b, s in zip(x, m, variances.tolist(), strict=True)) / 100
            for t, m in zip(texts.tolist(), means.tolist(), strict=True)
        ]
        expected.append([math.exp(e) for e in log_softmax(energies)])
    found = (tau * q @ vectors.t() + bias).softmax(dim=1)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)
    prior = (tau * q @ texts.t()).log_softmax(dim=1)
    by_solver = transclip.update_assignments(prior, transclip.log_likelihood(q, means, variances), None)
    torch.testing.assert_close(found, by_solver, rtol=0, atol=1e-6)


# -- A whole run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return out, run("GTA", data, backbone, out, *FASTER)


def test_a_run_leaves_its_results_and_predicts(finished, data, backbone, tmp_path):
    out, results = finished
    assert (results["uses_labels"], results["transductive"], results["stream"]) == (False, False, False)
    assert results["descriptions"]["file"].endswith("descriptions.json")
    trainer = build("GTA", data, backbone, tmp_path, *FASTER)
    saved = checkpoint(out, "GTA")
    before = dict(trainer.model.named_parameters())
    assert saved["extra"]["top"].shape == (6, 3)
    moved = {name for name, value in saved["state_dict"].items() if (value != before[name]).any()}
    assert {"visual.proj", "text.model.text_projection", "visual.conv1.weight", "bias"} <= moved
    assert "text.model.logit_scale" not in saved["state_dict"]

    trainer.load_model(str(out))  # --eval-only
    logits = trainer.predict(trainer.test_loader, "test")
    predictor = Predictor.load(out, device="cpu")
    with open(out / "predictions.csv", newline="") as stream:
        said = list(csv.DictReader(stream))
    answers = predictor([data / row["image"] for row in said])
    torch.testing.assert_close(answers, logits.softmax(dim=1), atol=1e-5, rtol=0)
    best = answers.max(dim=1)
    assert [predictor.classnames[i] for i in best.indices] == [row["prediction"] for row in said]
    assert best.values.tolist() == pytest.approx([float(row["probability"]) for row in said], abs=6e-5)

    # The head is that of a transduction after the last round.
    trainer.transduct()
    torch.testing.assert_close(trainer.predict(trainer.test_loader, "test"), logits, rtol=1e-3, atol=1e-3)
    assert torch.equal(trainer.top, saved["extra"]["top"])


def test_descriptions_follow_the_name_of_their_class(data, backbone, tmp_path):
    file = tmp_path / "some.json"
    file.write_text(json.dumps({CLASSES[0]: ["has one wheel.", "is red."], CLASSES[1]: ["is blue."]}), encoding="utf-8")
    chosen = ("TRAINER.GTA.DESCRIPTIONS", str(file))
    first, second, third = (f"a photo of a {name}." for name in CLASSES)
    named = [f"{first} has one wheel.", f"{first} is red.", f"{second} is blue.", third]
    for option, texts in (("True", named), ("False", ["has one wheel.", "is red.", "is blue.", third])):
        trainer = build("GTA", data, backbone, tmp_path, *chosen, "TRAINER.GTA.NAMED", option)
        assert torch.equal(trainer.tokens.cpu(), clip_module().tokenize(texts))
        assert trainer.text_classes.tolist() == [0, 0, 1, 2]


def test_projections_learn_faster_and_all_else_is_in_the_other_group(data, backbone, tmp_path):
    trainer = build("GTA", data, backbone, tmp_path, *FASTER)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = trainer._optims["gta"].param_groups
    (others, rate), (projections, faster) = [({names[id(p)] for p in g["params"]}, g["lr"]) for g in groups]
    assert projections == {"visual.proj", "text.model.text_projection"} and (rate, faster) == (1e-3, 5e-3)
    assert names.keys() - {id(p) for g in groups for p in g["params"]} == {
        id(p) for p in (trainer.model.anchors.weight, trainer.model.bias, trainer.model.text.model.logit_scale)
    }
    assert [(g["eps"], g["betas"], g["weight_decay"]) for g in groups] == [(1e-6, (0.9, 0.98), 1e-4)] * 2


def test_projections_stay_at_a_rate_of_0(data, backbone, tmp_path):
    trainer = build("GTA", data, backbone, tmp_path, *FASTER, "TRAINER.GTA.PROJECTION_RATE", "0.0")
    learned = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert "visual.conv1.weight" in learned and not {"visual.proj", "text.model.text_projection"} & learned
    assert len(trainer._optims["gta"].param_groups) == 1


def test_classes_without_descriptions_have_their_name_prompt(data, backbone, tmp_path):
    empty = tmp_path / "descriptions.json"
    empty.write_text('{"red car": ["a red car."], "green car": ["a green car.", "a car in green."]}')
    trainer = build("GTA", data, backbone, tmp_path / "out", "TRAINER.GTA.DESCRIPTIONS", str(empty))
    assert trainer.text_classes.tolist() == [0, 1, 1, 2]
    assert torch.equal(trainer.tokens[3:], build_tokens("a photo of a blue car."))


def build_tokens(text: str) -> torch.Tensor:
    from fairclip.backbones.openai import ClipTokenizer

    return ClipTokenizer(77)([text])


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.GTA.PER_CLASS", "0"), "at least 1 image"),
        (("TRAINER.GTA.PROJECTION_RATE", "-1.0"), "must not be negative"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, opts, message):
    check_refused(arguments("GTA", data, backbone, tmp_path, *opts), message, capsys)
