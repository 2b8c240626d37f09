"""LaFTer: its formulas against loops in float64, its views and prompts, and whole runs through train.py."""

import copy
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import train
from PIL import Image
from plain_maths import softmax
from test_fair import CLASSES, EPOCHS, arguments, read, run, save_clip

import trainers.lafter
from fairclip.backbones.openai import load_clip
from fairclip.core.errors import UserError
from fairclip.core.plugins import import_plugins
from fairclip.method.text_classifier import gather_texts, smoothed_cross_entropy, train_text_classifier
from fairclip.method.visual_prompts import PromptedClassifier, encode_with_prompts, initial_prompts
from fairclip.run import config as configs
from fairclip.run import launch
from fairclip.views.lafter_views import RandomBlur, WeakStrong

pytestmark = pytest.mark.usefixtures("console")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def close(actual: torch.Tensor, expected) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


# -- Texts -------------------------------------------------------------------------------------------------------------


def test_all_texts_make_one_training_set():
    names, descriptions = normal(2, 3, 4), normal(3, 2, 4, seed=1)
    mask = torch.tensor([[1, 1], [0, 0], [0, 1]], dtype=torch.bool)  # the second class has its names alone
    descriptions[~mask] = torch.nan  # what is masked must not matter
    texts, labels = gather_texts(names, descriptions, mask)
    by_hand = [(c, descriptions[c, m].tolist()) for c in range(3) for m in range(2) if mask[c, m]]
    by_hand += [(c, names[t, c].tolist()) for t in range(2) for c in range(3)]
    assert sorted(zip(labels.tolist(), texts.tolist(), strict=True)) == sorted(by_hand)
    assert labels.dtype == torch.int64


def loss_by_hand(logits, labels, e: float) -> float:
    total = 0.0
    for row, y in zip(logits, labels, strict=True):
        logs = [math.log(p) for p in softmax(row)]
        total += -(1 - e) * logs[y] - e * sum(logs) / len(logs)
    return total / len(labels)


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("e", [0.0, 0.1, 0.6])
def test_smoothed_cross_entropy(classes, e):
    logits = 3 * normal(6, classes)
    labels = [min(y, classes - 1) for y in (0, 1, 1, 0, 1, 0)]  # classes above the second are never a target
    expected = loss_by_hand(logits.tolist(), labels, e)
    close(smoothed_cross_entropy(logits, torch.tensor(labels), e), expected)


def adamw_by_hand(features, labels, classes, steps, lr, noise, e, decay, seed) -> list[list[float]]:
    """Full-batch AdamW on smoothed cross-entropy with its gradient written out; only the draws are torch's."""
    draws, (count, width) = generator(seed), features.shape
    bound = 1 / math.sqrt(width)
    w = torch.empty(classes, width, dtype=torch.float64).uniform_(-bound, bound, generator=draws).tolist()
    m, v = ([[0.0] * width for _ in range(classes)] for _ in range(2))
    for t in range(1, steps + 1):
        drawn = torch.randn(count, width, generator=draws, dtype=torch.float64)
        x = [[float(features[i, k]) + noise * float(drawn[i, k]) for k in range(width)] for i in range(count)]
        errors = []  # p - target, the gradient in the logits
        for i in range(count):
            p = softmax([sum(a * b for a, b in zip(row, x[i], strict=True)) for row in w])
            errors.append([p[c] - ((1 - e) * (c == labels[i]) + e / classes) for c in range(classes)])
        for c in range(classes):
            for k in range(width):
                g = sum(errors[i][c] * x[i][k] for i in range(count)) / count
                m[c][k] = 0.9 * m[c][k] + 0.1 * g
                v[c][k] = 0.999 * v[c][k] + 0.001 * g * g
                w[c][k] *= 1 - lr * decay  # decoupled
                w[c][k] -= lr * (m[c][k] / (1 - 0.9**t)) / (math.sqrt(v[c][k] / (1 - 0.999**t)) + 1e-8)
    return w


@pytest.mark.parametrize("noise, decay", [(0.1, 0.01), (0.0, 0.0), (0.7, 0.5)])
def test_text_classifier_is_trained_as_written(noise, decay):
    features = torch.nn.functional.normalize(normal(7, 4), dim=1)
    features[3] = features[0]  # one text, two classes
    labels = [0, 1, 1, 2, 0, 2, 0]  # the fourth class has no text at all
    weight = train_text_classifier(
        features,
        torch.tensor(labels),
        4,
        steps=6,
        lr=0.02,
        noise=noise,
        smoothing=0.1,
        weight_decay=decay,
        generator=generator(5),
    )
    close(weight, adamw_by_hand(features, labels, 4, 6, 0.02, noise, 0.1, decay, seed=5))
    assert not weight.requires_grad


def settings(**changed) -> dict:
    return {
        "n_classes": 3,
        "steps": 60,
        "lr": 0.05,
        "noise": 0.1,
        "smoothing": 0.1,
        "weight_decay": 0.01,
        "generator": generator(),
    } | changed


def test_texts_are_learned_and_their_order_does_not_matter():
    labels = torch.arange(3).repeat_interleave(4)
    features = torch.nn.functional.normalize(4 * torch.eye(3, 6, dtype=torch.float64)[labels] + normal(12, 6), dim=1)
    weight = train_text_classifier(features, labels, **settings())
    assert ((features @ weight.t()).argmax(dim=1) == labels).all()
    order = torch.randperm(12, generator=generator(1))
    # Without noise, whose draws belong to places in the batch, the batch is a set.
    a = train_text_classifier(features, labels, **settings(noise=0.0))
    b = train_text_classifier(features[order], labels[order], **settings(noise=0.0))
    torch.testing.assert_close(a, b)
    assert not torch.equal(a, weight)


def test_the_text_stage_follows_its_generator_alone():
    features, labels = torch.nn.functional.normalize(normal(6, 4), dim=1), torch.tensor([0, 1, 2, 0, 1, 2])
    first = train_text_classifier(features, labels, **settings())
    torch.rand(7)  # what others draw
    assert torch.equal(train_text_classifier(features, labels, **settings()), first)
    assert not torch.equal(train_text_classifier(features, labels, **settings(generator=generator(1))), first)


# -- Prompts -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def visual(tiny_clip):
    return copy.deepcopy(tiny_clip.visual)


def test_no_prompts_no_change(visual):
    images = torch.randn(3, 3, 32, 32, generator=generator())
    with torch.no_grad():
        torch.testing.assert_close(encode_with_prompts(visual, images, torch.empty(0, 64)), visual(images))


def test_prompts_stand_behind_the_class_token_after_the_first_norm(visual):
    """The tokens that the first block gets, one by one."""
    images, prompts = torch.randn(2, 3, 32, 32, generator=generator()), torch.randn(5, 64, generator=generator(1))
    seen = []
    visual.ln_pre.register_forward_hook(lambda module, args, output: seen.append(output))
    visual.transformer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    with torch.no_grad():
        visual(images)
        features = encode_with_prompts(visual, images, prompts)
    plain, _, _, tokens = seen
    for b in range(2):
        expected = [plain[b, 0], *prompts, *plain[b, 1:]]
        assert len(tokens) == len(expected) == 1 + 5 + 16
        for token, row in zip(tokens[:, b], expected, strict=True):
            torch.testing.assert_close(token, row)
    assert not torch.allclose(features, visual(images))


def test_prompts_have_no_order(visual):
    images, prompts = torch.randn(2, 3, 32, 32, generator=generator()), torch.randn(5, 64, generator=generator(1))
    with torch.no_grad():
        torch.testing.assert_close(
            encode_with_prompts(visual, images, prompts), encode_with_prompts(visual, images, prompts.flip(0))
        )


def test_prompts_start_within_the_bound_of_this_backbone(visual):
    prompts = initial_prompts(visual, 400, generator())
    bound = math.sqrt(6 / (3 * 8 * 8 + 64))
    assert prompts.shape == (400, 64)
    assert 0.99 * bound < prompts.abs().max() < bound and prompts.mean().abs() < 0.01 * bound


def test_logits_are_of_features_as_long_as_they_are(visual):
    images, weight = torch.randn(3, 3, 32, 32, generator=generator()), torch.randn(4, 16, generator=generator(1))
    model = PromptedClassifier(visual, torch.zeros(2, 64), weight)
    with torch.no_grad():
        features = encode_with_prompts(visual, images, torch.zeros(2, 64))
        logits, permuted = model(images), PromptedClassifier(visual, torch.zeros(2, 64), weight.flip(0))(images)
        torch.testing.assert_close(model.features(images), visual(images))
    expected = [[sum(float(a) * float(b) for a, b in zip(f, w, strict=True)) for w in weight] for f in features]
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(permuted, logits.flip(1))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_other_towers_are_refused():
    with pytest.raises(UserError, match="Sequential.*ViT-B/32"):
        PromptedClassifier(torch.nn.Sequential(), torch.zeros(2, 64), torch.zeros(3, 16))


# -- Views -------------------------------------------------------------------------------------------------------------


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_the_weak_view_is_the_centre_crop_of_testing():
    image = picture(90, 60)
    weak, _ = WeakStrong(30)(image)
    small = image.resize((45, 30), Image.Resampling.BICUBIC)  # the centre is 30 of these 45 columns
    left = round((45 - 30) / 2)
    expected = torch.from_numpy(np.asarray(small.crop((left, 0, left + 30, 30)))).permute(2, 0, 1)
    assert torch.equal(weak, expected)


def test_strong_views_follow_torch_alone():
    view, image = WeakStrong(32), picture(80, 60)
    torch.manual_seed(3)
    first = [view(image) for _ in range(3)]
    random.seed(9), np.random.seed(9), torch.manual_seed(3)
    again = [view(image) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first[0][0], first[1][0]) and not torch.equal(first[0][1], first[1][1])


def test_strong_views_flip_crop_and_lose_colour_as_often_as_they_should():
    """A ramp from left to right: a view says by itself which way it runs, how much of it is left, and what colour."""
    ramp = np.zeros((64, 64, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(0, 255, 64)[None]
    view, image = WeakStrong(16), Image.fromarray(ramp)
    torch.manual_seed(0)
    strong = torch.stack([view(image)[1] for _ in range(400)]).float() / 255
    ends = strong[..., -1].mean(dim=(1, 2)) - strong[..., 0].mean(dim=(1, 2))
    grey = (strong[:, 0] - strong[:, 1]).abs().amax(dim=(1, 2)) < 1e-6
    assert 0.42 < (ends < 0).float().mean() < 0.58
    assert 0.14 < grey.float().mean() < 0.26
    assert ends.abs().min() < 0.6 * ends.abs().max()  # 20 % of the area leave about half of the width


def test_blur_is_in_proportion_to_the_input(monkeypatch):
    drawn = []
    monkeypatch.setattr("fairclip.views.lafter_views.ImageFilter.GaussianBlur", drawn.append)
    monkeypatch.setattr(Image.Image, "filter", lambda image, kind: image)
    for size in (224, 56):
        drawn.clear()
        blur = next(part for part in WeakStrong(size).strong.transforms if isinstance(part, RandomBlur))
        for _ in range(300):
            blur(picture(2, 2))
        share = size / 224
        assert 0.1 * share <= min(drawn) < 0.2 * share and 1.9 * share < max(drawn) <= 2 * share


# -- A whole run -------------------------------------------------------------------------------------------------------


def go(data: Path, backbone: Path, out: Path, *opts: str, seed: int = 1) -> dict:
    return run(data, backbone, out, "TRAINER.LAFTER.N_PROMPTS", "6", *opts, trainer="LaFTer", seed=seed)


def checkpoint(out: Path, epochs: int = EPOCHS) -> dict:
    return torch.load(out / "lafter" / f"model.pth.tar-{epochs}", weights_only=True)


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory) -> Path:
    """A folder with a finished run."""
    out, stdout = tmp_path_factory.mktemp("finished"), sys.stdout
    go(data, backbone, out)
    sys.stdout = stdout
    return out


def test_a_run_leaves_its_results(finished, data, backbone):
    results = read(finished)
    assert (results["trainer"], results["views_per_image"]) == ("LaFTer", 2)
    assert results["descriptions"]["file"] == str(data / "descriptions.json")
    assert [record["epoch"] for record in results["epochs"]] == [1, 2, 3]
    assert {record["lr"] for record in results["epochs"]} == {1e-3}  # constant
    assert all(0 <= record["pseudo_accuracy"] <= 100 for record in results["epochs"])
    log = (finished / "log.txt").read_text()
    # The second class has two descriptions, the others one; and each has its name.
    assert "Text classifier: 1500 steps on 7 texts" in log

    before = load_clip(str(backbone)).visual.state_dict()
    trained = checkpoint(finished)["state_dict"]
    norms = {f"visual.{name}" for name in before if "ln_" in name}
    assert trained.keys() == norms | {"prompts", "head"}
    assert trained["prompts"].shape == (6, 64) and trained["head"].shape == (3, 16)
    assert all((trained[name] != before[name.removeprefix("visual.")]).any() for name in norms)
    assert (trained["head"] != checkpoint(finished)["extra"]["text_classifier"]).any()
    assert results["trainable_parameters"] == sum(value.numel() for value in trained.values())


def built(data: Path, backbone: Path, out: Path, *opts: str) -> trainers.lafter.LaFTer:
    from dassl.engine import build_trainer

    modules, _ = import_plugins("trainers", "datasets")
    args = launch.parse_args(arguments(data, backbone, out, *opts, trainer="LaFTer"))
    return build_trainer(configs.build_cfg(args, modules))


def test_one_step_equals_the_plain_computation(data, backbone, tmp_path):
    """Pseudo-labels from the norms as they are by now, without prompts; the student's loss; what AdamW decays."""
    trainer = built(data, backbone, tmp_path)
    (group, biases) = trainer._optims["lafter"].param_groups
    named = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    assert group["weight_decay"] == 0.01 and biases["weight_decay"] == 0
    assert all(named[id(parameter)].endswith("bias") for parameter in biases["params"])
    assert not any(named[id(parameter)].endswith("bias") for parameter in group["params"])

    with torch.no_grad():
        trainer.model.visual.ln_post.weight.mul_(torch.rand(64, generator=generator()))
    plain, text = copy.deepcopy(trainer.model), trainer.text_classifier.clone()
    views = torch.randn(8, 2, 3, 32, 32, generator=generator(1))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, -1])
    figures = trainer.forward_backward({"img": views, "label": labels})

    with torch.no_grad():
        f = plain.visual(views[:, 0]).double()
        y = [max(range(3), key=lambda c: float(row / row.norm() @ text[c].double())) for row in f]
        logits = encode_with_prompts(plain.visual, views[:, 1], plain.prompts) @ plain.head.t()
    assert figures == {"loss": pytest.approx(loss_by_hand(logits.tolist(), y, 0.1), rel=1e-4)}
    assert torch.equal(trainer.text_classifier, text) and not torch.equal(trainer.model.head, text)

    figures = trainer.forward_backward({"img": views, "label": torch.tensor([*y[:4], *((c + 1) % 3 for c in y[4:])])})
    assert figures["pseudo_accuracy"] == pytest.approx(50, abs=15)  # the norms have moved by one step


@pytest.mark.parametrize(
    "opts",
    [
        {"N_PROMPTS": 0},
        {"PREC": "bf16"},
        {"TEMPLATES": "('a {}.', 'one {}.')", "TEXT_STEPS": 5},
    ],
    ids=str,
)
def test_settings_work(data, backbone, tmp_path, opts):
    pairs = [text for key, value in opts.items() for text in (f"TRAINER.LAFTER.{key}", str(value))]
    results = go(data, backbone, tmp_path, *pairs, "OPTIM.MAX_EPOCH", "1")
    assert len(results["epochs"]) == 1 and math.isfinite(results["epochs"][0]["loss"])
    log = (tmp_path / "log.txt").read_text()
    if "TEMPLATES" in opts:
        assert "5 steps on 10 texts" in log
    assert checkpoint(tmp_path, 1)["state_dict"]["prompts"].shape == (opts.get("N_PROMPTS", 6), 64)


def test_steps_of_the_text_stage_by_data_set(data, backbone, tmp_path, monkeypatch):
    monkeypatch.setitem(trainers.lafter.TEXT_STEPS, "Toy", 7)
    seen = []
    original = train_text_classifier
    monkeypatch.setattr(
        "trainers.lafter.train_text_classifier", lambda *args, **kw: seen.append(kw["steps"]) or original(*args, **kw)
    )
    for steps in ("0", "3"):
        built(data, backbone, tmp_path, "TRAINER.LAFTER.TEXT_STEPS", steps)
    assert seen == [7, 3]


def test_without_descriptions_names_are_the_texts(data, backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fairclip.run.texts.find_descriptions", lambda path, dataset: None)
    built(data, backbone, tmp_path, "TRAINER.LAFTER.TEXT_STEPS", "3")
    assert "3 steps on 3 texts" in capsys.readouterr().out


# -- Same seed; a run that goes on -------------------------------------------------------------------------------------


def test_the_seed_decides(finished, data, backbone, tmp_path):
    go(data, backbone, tmp_path, seed=2)
    for part in (lambda state: state["state_dict"]["prompts"], lambda state: state["extra"]["text_classifier"]):
        assert not torch.equal(part(checkpoint(tmp_path)), part(checkpoint(finished)))


def test_a_run_goes_on_with_its_own_text_classifier(finished, data, backbone, tmp_path, monkeypatch):
    """It comes from the checkpoint: whatever the text stage would make now does not matter."""
    monkeypatch.setattr("trainers.lafter.train_text_classifier", lambda texts, *args, **kw: -texts[: len(CLASSES)])
    trainer = built(data, backbone, tmp_path, "TRAINER.LAFTER.N_PROMPTS", "6")
    kept = checkpoint(finished)["extra"]["text_classifier"]
    assert not torch.equal(trainer.text_classifier, kept)
    assert trainer.resume_model_if_exist(str(finished)) == EPOCHS
    assert torch.equal(trainer.text_classifier, kept)


# -- Mistakes end in one message ---------------------------------------------------------------------------------------


def refused(capsys, *args, **kwargs) -> str:
    assert train(arguments(*args, trainer="LaFTer", **kwargs)) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and "Traceback" not in error
    return error


def test_a_resnet_is_refused(data, tmp_path, capsys):
    path = save_clip(tmp_path / "rn.pt", "resnet")
    error = refused(capsys, data, path, tmp_path / "out")
    assert "ModifiedResNet" in error and "ViT-B/32" in error
    # A known one is not even downloaded.
    for name in ("RN50", "RN50x64"):
        assert f"{name} is a ResNet" in refused(capsys, data, Path(name), tmp_path / "out")


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.LAFTER.N_PROMPT", "4"), "did you mean TRAINER.LAFTER.N_PROMPTS?"),
        (("TRAINER.LAFTER.TEXT_STEPS", "-1"), "TEXT_STEPS -1"),
        (("TRAINER.LAFTER.TEXT_LR", "0.0"), "TEXT_LR"),
        (("TRAINER.LAFTER.TEXT_WEIGHT_DECAY", "-0.1"), "TEXT_WEIGHT_DECAY"),
        (("TRAINER.LAFTER.TEXT_NOISE", "-0.1"), "TEXT_NOISE"),
        (("TRAINER.LAFTER.N_PROMPTS", "-5"), "N_PROMPTS -5"),
        (("TRAINER.LAFTER.SMOOTHING", "1.0"), "SMOOTHING"),
        (("TRAINER.LAFTER.PREC", "fp8"), "PREC"),
        (("TRAINER.LAFTER.DESCRIPTIONS", "absent.json"), "absent.json"),
        (("DATALOADER.K_TRANSFORMS", "2"), "K_TRANSFORMS"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, opts, message):
    assert message in refused(capsys, data, backbone, tmp_path, *opts)
