"""DPA: its formulas against loops in float64, and the trainer as a user runs it."""

import math

import pytest
import torch
from dassl.data.data_manager import DatasetWrapper
from plain_maths import dot, softmax, units
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

from fairclip.backbones.backbone import norm_parameters
from fairclip.backbones.openai import load_clip
from fairclip.core.errors import UserError
from fairclip.method.memory import UNSEEN, MemoryBank, Queue
from fairclip.method.prototypes import (
    agreement_weights,
    align_distribution,
    alignment_loss,
    image_prototypes,
    mix_predictions,
)
from fairclip.method.rates import cosine
from fairclip.text.templates import PROMPTS, prompts_of

RATE = ("OPTIM.LR", "1e-3", "TRAINER.DPA.IMAGE_SHARE", "0.5", "TRAINER.DPA.FAIRNESS", "1.0")
B, N, K, D = 5, 12, 4, 8


def predictions(b: int = B, k: int = K, seed: int = 0) -> torch.Tensor:
    return (4 * units(b, k, seed=seed)).softmax(dim=1)


def best(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def close(actual: torch.Tensor, expected, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        actual.detach().double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=tolerance
    )


# -- Prototypes --------------------------------------------------------------------------------------------------------


def prototypes_by_hand(features, labels, fallback):
    rows = []
    for c in range(len(fallback)):
        mine = [f for f, label in zip(features.tolist(), labels.tolist(), strict=True) if label == c]
        if not mine:
            rows.append(fallback[c].tolist())
            continue
        mean = [sum(column) / len(mine) for column in zip(*mine, strict=True)]
        length = math.sqrt(sum(x * x for x in mean))
        rows.append([x / length for x in mean])
    return rows


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3],
        [0, 0, 3, 3, 0, 0, 3, 3, 0, 0, 0, 3],  # classes 1 and 2 are never predicted
        [2] * N,
        [UNSEEN] * N,
        [0, UNSEEN, 1, 3, UNSEEN, 1, 1, 3, 0, 0, UNSEEN, 3],
    ],
)
def test_image_prototypes(labels):
    features, fallback, labels = units(N, D), units(K, D, seed=1), torch.tensor(labels)
    close(image_prototypes(features, labels, fallback), prototypes_by_hand(features, labels, fallback))


def test_image_prototypes_of_duplicates_and_of_one_class():
    image = units(1, D)
    torch.testing.assert_close(image_prototypes(image.expand(3, D), torch.zeros(3).long(), units(1, D, seed=1)), image)


# -- Pseudo-labels and weights -----------------------------------------------------------------------------------------


def test_distribution_alignment():
    probs, marginal = predictions(), predictions(1, seed=3)[0]
    rows = []
    for p in probs.tolist():
        ratios = [x / m for x, m in zip(p, marginal.tolist(), strict=True)]
        rows.append([r / sum(ratios) for r in ratios])
    close(align_distribution(probs, marginal), rows)
    prior = predictions(1, seed=4)[0]
    rows = [[x * pi for x, pi in zip(row, prior.tolist(), strict=True)] for row in rows]
    close(align_distribution(probs, marginal, prior), [[x / sum(row) for x in row] for row in rows])


def test_a_class_that_was_never_predicted_does_not_break_the_alignment():
    aligned = align_distribution(torch.tensor([[0.3, 0.7, 0.0]]), torch.tensor([0.6, 0.4, 0.0]))
    close(aligned, [[0.5 / 2.25, 1.75 / 2.25, 0.0]], 1e-6)


def test_one_class_is_certain():
    one = torch.ones(B, 1)
    assert (align_distribution(one, one[0]) == 1).all()
    assert (agreement_weights(one, one, torch.zeros(B).long()) == 1).all()
    assert alignment_loss(torch.ones(1, D), torch.ones(1, D), 100.0) == 0


def test_mixed_predictions():
    text, image = predictions(), predictions(seed=1)
    expected = [
        [0.2 * i + 0.8 * t for t, i in zip(ts, im, strict=True)]
        for ts, im in zip(text.tolist(), image.tolist(), strict=True)
    ]
    close(mix_predictions(text, image, 0.2), expected)


def test_agreement_weights():
    text, image, labels = predictions(), predictions(seed=1), torch.tensor([0, 1, 2, 3, 0])
    expected = [
        t[y] / max(t) * (i[y] / max(i)) for t, i, y in zip(text.tolist(), image.tolist(), labels.tolist(), strict=True)
    ]
    close(agreement_weights(text, image, labels), expected)
    assert (agreement_weights(text, text, text.argmax(dim=1)) == 1).all()


def test_alignment_loss_moves_the_text_prototypes_alone():
    image, text = units(K, D).requires_grad_(), units(K, D, seed=1).requires_grad_()
    loss = alignment_loss(image, text, 7.0)
    terms = [-math.log(softmax([7 * dot(p, z) for z in text.tolist()])[c]) for c, p in enumerate(image.tolist())]
    close(loss, sum(terms) / K)
    loss.backward()
    assert image.grad is None and text.grad.norm() > 0


# -- Memory, queue, schedule, templates --------------------------------------------------------------------------------


def test_memory_keeps_the_newest():
    memory = MemoryBank(4, 2)
    assert memory.labels.tolist() == [UNSEEN] * 4
    memory.write(torch.tensor([3, 0]), torch.tensor([[1.0, 2], [3, 4]], requires_grad=True), torch.tensor([7, 8]))
    memory.write(torch.tensor([3]), torch.tensor([[5.0, 6]]), torch.tensor([9]))
    assert memory.labels.tolist() == [8, UNSEEN, UNSEEN, 9] and not memory.features.requires_grad
    assert memory.features.tolist() == [[3, 4], [0, 0], [0, 0], [5, 6]]

    other = MemoryBank(4, 2)
    other.load_state_dict(memory.state_dict())
    memory.write(torch.tensor([0]), torch.zeros(1, 2), torch.tensor([0]))  # not the same storage
    assert other.labels.tolist() == [8, UNSEEN, UNSEEN, 9]
    with pytest.raises(UserError, match="remembers 4 training images"):
        MemoryBank(5, 2).load_state_dict(other.state_dict())


def test_queue_forgets_the_oldest():
    queue = Queue(3)
    for i in range(5):
        queue.push(torch.tensor([float(i), 1.0]))
    assert queue.mean().tolist() == [3, 1]
    assert queue.mean(torch.tensor([8.0, 1.0])).tolist() == [5, 1] and queue.mean().tolist() == [3, 1]
    other = Queue(3)
    other.load_state_dict(queue.state_dict())
    other.push(torch.tensor([8.0, 1.0]))
    assert other.mean().tolist() == [5, 1] and queue.mean().tolist() == [3, 1]


def test_cosine():
    share = cosine(8, 0.2)
    by_hand = [0.2 + 0.5 * 0.8 * (1 + math.cos(math.pi * i / 8)) for i in range(9)]
    assert [share(i) for i in range(9)] == pytest.approx(by_hand)
    assert share(0) == 1 and share(8) == share(100) == pytest.approx(0.2)
    assert cosine(8, 2.0)(4) == pytest.approx(1.5)  # upwards, where the end lies above


def test_ensembles_are_those_of_clip():
    sizes = {name: len(templates) for name, templates in PROMPTS.items()}
    assert sizes == {
        "AID": 18,
        "Birdsnap": 1,
        "CUB200": 1,
        "Caltech101": 34,
        "DescribableTextures": 8,
        "EuroSAT": 3,
        "FGVCAircraft": 2,
        "Food101": 1,
        "OxfordFlowers": 1,
        "OxfordPets": 1,
        "RESISC45": 18,
        "StanfordCars": 8,
        "SUN397": 2,
        "UCF101": 48,
    }
    assert all(len(set(templates)) == len(templates) for templates in PROMPTS.values())
    assert all(template.count("{}") == 1 for templates in PROMPTS.values() for template in templates)
    assert prompts_of("SynthCars") == prompts_of("Unheard of") == ("a photo of a {}.",)


# -- A whole run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return out, run("DPA", data, backbone, out, *RATE)


def test_a_run_leaves_its_results(finished, backbone):
    out, results = finished
    assert results["trainer"] == "DPA" and 0 <= results["accuracy"] <= 100
    assert results["views_per_image"] == 2 and results["descriptions"] is None
    for record in results["epochs"]:
        assert record["loss"] == pytest.approx(record["loss_st"] + record["loss_fair"] + record["loss_align"], rel=1e-5)
        assert 0 <= record["pseudo_accuracy"] <= 100 and 0 < record["weight"] <= 1
    rates = [2e-6 + (1e-3 - 2e-6) * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in (1, 2, 3)]
    assert [record["lr"] for record in results["epochs"]] == pytest.approx(rates)

    before = norm_parameters(load_clip(str(backbone)).visual)
    trained = checkpoint(out, "DPA")["state_dict"]
    assert trained.keys() == {f"visual.{name}" for name in before} | {"anchors.weight"}
    assert all((trained[f"visual.{name}"] != parameter).any() for name, parameter in before.items())


def test_the_checkpoint_remembers_every_image(finished):
    saved = checkpoint(finished[0], "DPA")
    memory, z = saved["extra"]["memory"], F.normalize(saved["state_dict"]["anchors.weight"], dim=-1)
    assert (memory["labels"] >= 0).all()
    torch.testing.assert_close(memory["features"].norm(dim=1), torch.ones(36))
    # P is made at the end of the epoch, of the memory as it is then.
    close(saved["extra"]["prototypes"], prototypes_by_hand(memory["features"], memory["labels"], z), 1e-5)
    assert len(saved["extra"]["recent"]["items"]) == EPOCHS * (36 // 8)


def built(data, backbone, out, *opts):
    return build("DPA", data, backbone, out, *RATE, *opts)


def test_pseudo_labels_equal_the_plain_computation(data, backbone, tmp_path):
    trainer = built(data, backbone, tmp_path, "TRAINER.DPA.IMAGE_SHARE", "0.4", "TRAINER.DPA.QUEUE", "2")
    trainer.prototypes = units(3, 16, seed=5).float()
    tau, means, seen = trainer.model.tau, [], set()
    for step in range(4):
        weak = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        z, labels, weights, mean = trainer.pseudo_label(weak)
        trainer.recent.push(mean)  # as a step does, at its end
        with torch.no_grad():
            f = F.normalize(trainer.model.visual(weak), dim=-1).double().tolist()
        text = [softmax([tau * dot(x, c) for c in trainer.model.anchors().tolist()]) for x in f]
        image = [softmax([tau * dot(x, c) for c in trainer.prototypes.tolist()]) for x in f]
        means = [*means, [sum(p[c] for p in text) / 6 for c in range(3)]][-2:]
        late = [sum(m[c] for m in means) / len(means) for c in range(3)]
        for i in range(6):
            ratios = [text[i][c] / late[c] for c in range(3)]
            mixed = [0.4 * image[i][c] + 0.6 * ratios[c] / sum(ratios) for c in range(3)]
            y = best(mixed)
            assert labels[i] == y
            raw = text[i][y] / max(text[i]) * image[i][y] / max(image[i])  # of p_txt before alignment
            assert weights[i].item() == pytest.approx(raw, rel=1e-3)
            seen.add((y, best(text[i])))
        close(z, f, 1e-5)
    assert any(y != by_text for y, by_text in seen)  # the second set of prototypes and the alignment did matter


def test_only_biases_are_spared_weight_decay(data, backbone, tmp_path):
    trainer = built(data, backbone, tmp_path)
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    groups = trainer._optims["dpa"].param_groups
    (decayed, rate), (spared, zero) = [({names[id(p)] for p in g["params"]}, g["weight_decay"]) for g in groups]
    assert (rate, zero) == (0.1, 0) and "anchors.weight" in decayed
    assert all(name.endswith("bias") for name in spared) and not any(name.endswith("bias") for name in decayed)


def test_resnet_tower_and_a_wrapper_without_index(data, tmp_path, monkeypatch):
    """Both at once: neither changes what the other is about."""
    item = DatasetWrapper.__getitem__
    monkeypatch.setattr(
        DatasetWrapper, "__getitem__", lambda self, i: {k: v for k, v in item(self, i).items() if k != "index"}
    )
    backbone = save_clip(tmp_path / "rn.pt", "resnet")
    run("DPA", data, backbone, tmp_path / "out", *RATE)
    saved = checkpoint(tmp_path / "out", "DPA")
    norms = norm_parameters(load_clip(str(backbone)).visual)
    assert saved["state_dict"].keys() == {f"visual.{name}" for name in norms} | {"anchors.weight"}
    assert (saved["extra"]["memory"]["labels"] >= 0).all()


def test_the_seed_decides(finished, data, backbone, tmp_path):
    run("DPA", data, backbone, tmp_path, *RATE, seed=0)
    assert not same(checkpoint(tmp_path, "DPA")["state_dict"], checkpoint(finished[0], "DPA")["state_dict"])


@pytest.mark.parametrize(
    "opts",
    [
        {"IMAGE_SHARE": 0.0},
        {"FAIRNESS": 0.0},
        {"ALIGN": 0.0},
        {"ALIGN_SCALE": 1.0},
        {"TEMPLATES": "('a {}.', 'the {}.')"},
        {"PREC": "bf16"},
    ],
    ids=str,
)
def test_every_option_matters(finished, data, backbone, tmp_path, opts):
    pairs = [text for key, value in opts.items() for text in (f"TRAINER.DPA.{key}", str(value))]
    run("DPA", data, backbone, tmp_path, *RATE, *pairs)
    assert not same(checkpoint(tmp_path, "DPA")["state_dict"], checkpoint(finished[0], "DPA")["state_dict"])


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.DPA.IMAGE_SHARES", "1"), "did you mean TRAINER.DPA.IMAGE_SHARE?"),
        (("TRAINER.DPA.IMAGE_SHARE", "1.5"), "between 0 and 1"),
        (("TRAINER.DPA.QUEUE", "0"), "at least 1 batch"),
        (("TRAINER.DPA.ALIGN_SCALE", "0.0"), "ALIGN_SCALE"),
        (("TRAINER.DPA.PREC", "fp8"), "PREC"),
        (("OPTIM.LR", "0.0"), "above 0"),
        (("OPTIM.WARMUP_EPOCH", "1"), "without warm-up"),
        (("DATALOADER.K_TRANSFORMS", "2"), "leave it at 1"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, opts, message):
    check_refused(arguments("DPA", data, backbone, tmp_path, *RATE, *opts), message, capsys)
