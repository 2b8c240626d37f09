"""WCA: weights and both scores against loops in float64, and runs through train.py."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from plain_maths import dot
from torch.nn.functional import normalize
from toys import arguments, build, check_refused, make_data, run, save_clip

from fairclip.backbones.openai import clip_module, load_clip
from fairclip.method.anchors import description_anchors, relevance_mean
from fairclip.method.wca import cross_alignment

pytestmark = pytest.mark.usefixtures("console")


def weights(whole, parts, scale):
    energies = [math.exp(scale * dot(whole, part)) for part in parts]
    return [e / sum(energies) for e in energies]


def rows(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def similarity_matrix_score(x, crops, t, texts):
    """The paper's: the sum of w_i v_j <f(x_i), g(y_j)> over the whole matrix."""
    w, v = weights(x, crops, math.exp(4)), weights(t, texts, math.exp(2))
    return sum(w[i] * v[j] * dot(crops[i], texts[j]) for i in range(len(crops)) for j in range(len(texts)))


@pytest.mark.parametrize("normalize_class", [False, True])
@pytest.mark.parametrize("crops", [1, 7])
def test_scores_are_the_sums_over_the_similarity_matrix(normalize_class, crops):
    x, parts = rows(5, 6), rows(5, crops, 6, seed=1)
    t, texts = rows(4, 6, seed=2), rows(4, 3, 6, seed=3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]], dtype=torch.bool)
    images = relevance_mean(x, parts, math.exp(4))
    classes = relevance_mean(t, texts.masked_fill(~mask[..., None], torch.nan), math.exp(2), mask)
    found = cross_alignment(images, classes, normalize_class)
    for i in range(5):
        for c in range(4):
            present = [texts[c, j].tolist() for j in range(3) if mask[c, j]]
            expected = similarity_matrix_score(x[i].tolist(), parts[i].tolist(), t[c].tolist(), present)
            if normalize_class:  # the public code's: both weighted sums are made unit
                w = weights(x[i].tolist(), parts[i].tolist(), math.exp(4))
                v = weights(t[c].tolist(), present, math.exp(2))
                a = [sum(wi * p[d] for wi, p in zip(w, parts[i].tolist(), strict=True)) for d in range(6)]
                b = [sum(vj * p[d] for vj, p in zip(v, present, strict=True)) for d in range(6)]
                expected /= math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
            assert found[i, c].item() == pytest.approx(expected, rel=1e-9)


def test_the_two_scores_can_rank_differently():
    images = torch.tensor([[1.0, 0.0]])
    classes = torch.tensor([[0.9, 0.4], [0.7, 0.0]])
    assert cross_alignment(images, classes, normalize_class=False).argmax() == 0
    assert cross_alignment(images, classes, normalize_class=True).argmax() == 1


def test_edge_cases():
    x, parts = rows(3, 6), rows(3, 4, 6, seed=1)
    none = torch.zeros(3, 4, dtype=torch.bool)
    torch.testing.assert_close(relevance_mean(x, parts, 7.0, none), x)  # a class without descriptions is its name
    same = parts[:, :1].expand(-1, 4, -1)
    torch.testing.assert_close(relevance_mean(x, same, math.exp(4)), parts[:, 0])  # duplicates
    one = cross_alignment(x, relevance_mean(x[:1], parts[:1], 7.0), False)
    assert one.shape == (3, 1) and one.isfinite().all()


def test_unit_sums_are_the_weighted_anchors():
    t, texts = rows(4, 6), rows(4, 3, 6, seed=1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    torch.testing.assert_close(
        normalize(relevance_mean(t, texts, math.exp(2), mask), dim=-1), description_anchors(t, texts, mask, math.exp(2))
    )


# -- Runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), train=3, test=4)


@pytest.fixture(scope="module", params=["vit", "resnet"])
def backbone(tmp_path_factory, request):
    return save_clip(tmp_path_factory.mktemp("clip") / "clip.pt", request.param)


PUBLIC = {"ALPHA": 0.1, "BETA": 0.9, "IMAGE_SCALE": math.exp(4), "TEXT_SCALE": math.exp(2)}  # tiny weights all alike
FEW = (
    "TRAINER.WCA.N_CROPS",
    "5",
    *(word for key, value in PUBLIC.items() for word in (f"TRAINER.WCA.{key}", str(value))),
)


def logits_of(trainer):
    logits = trainer.predict(trainer.test_loader, "test")
    return logits


@pytest.mark.parametrize("normalize_class", ["False", "True"])
def test_a_run_is_the_plain_computation(data, backbone, tmp_path, normalize_class):
    opts = (*FEW, "TRAINER.WCA.NORMALIZE_CLASS", normalize_class)
    results = run("WCA", data, backbone, tmp_path, *opts)
    assert (results["transductive"], results["uses_labels"]) == (False, False)
    assert (results["views_per_image"], results["trainable_parameters"], results["epochs"]) == (6, 0, [])

    trainer = build("WCA", data, backbone, tmp_path, *opts)
    logits = logits_of(trainer)
    described = json.loads((data / "descriptions.json").read_text())
    model = load_clip(str(backbone))
    image = Image.open(trainer.dm.dataset.test[7].impath).convert("RGB")
    with torch.no_grad():
        torch.manual_seed(int(np.random.SeedSequence([1, 7]).generate_state(1)[0]))  # run's seed 1, image 7
        views = trainer.pixels(trainer.test_transform()(image))
        views = normalize(model.encode_image(views), dim=-1).double().tolist()
        for c, name in enumerate(trainer.classnames):
            t = normalize(model.encode_text(clip_module().tokenize(f"a photo of a {name}.")), dim=-1).double()[0]
            texts = normalize(model.encode_text(clip_module().tokenize(described[name])), dim=-1).double()
            expected = similarity_matrix_score(views[0], views[1:], t.tolist(), texts.tolist())
            if normalize_class == "True":
                a = relevance_mean(torch.tensor(views[:1]), torch.tensor([views[1:]]), math.exp(4)).norm()
                expected /= a.item() * relevance_mean(t[None], texts[None], math.exp(2)).norm().item()
            expected *= model.logit_scale.exp().item()
            assert logits[7, c].item() == pytest.approx(expected, rel=1e-3, abs=1e-3)
    labels = torch.tensor([item.label for item in trainer.dm.dataset.test])
    assert results["accuracy"] == pytest.approx(100 * (logits.argmax(dim=1) == labels).double().mean().item())


def test_crops_follow_the_seed(data, vit, tmp_path, cache):
    first = logits_of(build("WCA", data, vit, tmp_path, *FEW))
    assert torch.equal(first, logits_of(build("WCA", data, vit, tmp_path, *FEW)))
    for file in (cache / "features").iterdir():
        file.unlink()
    again = logits_of(build("WCA", data, vit, tmp_path, *FEW, "DATALOADER.TEST.BATCH_SIZE", "100"))
    torch.testing.assert_close(again, first, rtol=1e-4, atol=1e-4)
    other = logits_of(build("WCA", data, vit, tmp_path, *FEW, seed=2))
    assert ((other - first).abs().amax(dim=1) > 1e-2).all()


def test_the_crop_range_takes_effect(data, vit, tmp_path):
    first = logits_of(build("WCA", data, vit, tmp_path, *FEW))
    other = logits_of(build("WCA", data, vit, tmp_path, *FEW, "TRAINER.WCA.ALPHA", "0.5"))
    assert ((other - first).abs().amax(dim=1) > 1e-2).all()
    sharp = logits_of(build("WCA", data, vit, tmp_path, *FEW, "TRAINER.WCA.IMAGE_SCALE", "0.0"))
    assert ((sharp - first).abs().amax(dim=1) > 1e-2).any()  # cached sums of other weights are not taken for these


def test_views_of_a_batch_score_as_in_the_run(data, vit, tmp_path):
    trainer = build("WCA", data, vit, tmp_path, *FEW)
    image = Image.open(data / "test_0_0.png")
    views = torch.stack([trainer.test_transform()(image) for _ in range(2)])
    assert views.shape == (2, 6, 3, 32, 32) and trainer.model_inference(views).shape == (2, 3)


def test_training_images_are_not_looked_at(data, vit, tmp_path, cache):
    run("WCA", data, vit, tmp_path, *FEW)
    assert len(list((cache / "features").iterdir())) == 1


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.WCA.N_CROP", "4"), "did you mean TRAINER.WCA.N_CROPS?"),
        (("TRAINER.WCA.N_CROPS", "0"), "at least one crop"),
        (("TRAINER.WCA.ALPHA", "0.95", "TRAINER.WCA.BETA", "0.9"), "ALPHA <= BETA"),
        (("TRAINER.WCA.NORMALIZE_CLASS", "maybe"), "NORMALIZE_CLASS"),
        (("TRAINER.WCA.DESCRIPTIONS", "absent.json"), "absent.json"),
    ],
)
def test_mistakes(data, vit, tmp_path, capsys, opts, message):
    check_refused(arguments("WCA", data, vit, tmp_path, *opts), message, capsys)
