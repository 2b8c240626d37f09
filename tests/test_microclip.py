"""microCLIP: its parts against loops in float64, and the trainer as a user runs it."""

import math

import numpy as np
import pytest
import torch
from plain_maths import dot, softmax, unit, units
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

from fairclip import Predictor
from fairclip.backbones.backbone import norm_parameters
from fairclip.backbones.network import Block
from fairclip.backbones.openai import load_clip
from fairclip.core.errors import UserError
from fairclip.method.microclip import (
    AttentionPool,
    FusedClassifier,
    foreground,
    last_tokens,
    likeness_anchors,
    masked_mean,
    unmixed,
)

pytestmark = pytest.mark.usefixtures("console")
RATE = ("OPTIM.LR", "1e-3", "TRAINER.MICROCLIP.N_CROPS", "2")
B, P, W = 5, 9, 6


def matrix(rows: list[list[float]], vector: list[float]) -> list[float]:
    return [dot(row, vector) for row in rows]


def close(ours: torch.Tensor, theirs: list) -> None:
    torch.testing.assert_close(ours.double(), torch.tensor(theirs, dtype=torch.float64), rtol=0, atol=1e-6)


# -- Tokens ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("clip") / "rn.pt", "resnet")


def random_block() -> Block:
    torch.manual_seed(0)
    block = Block(W, 2, "quick_gelu", None).double()
    for name in ("ln_1", "ln_2"):
        setattr(block, name, nn.LayerNorm(W, dtype=torch.float64))  # the block's own computes in float32
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def test_tokens_that_are_not_mixed():
    block, x = random_block(), 3 * units(4, W)
    state = {name: value.tolist() for name, value in block.state_dict().items()}

    def norm(row: list[float], name: str) -> list[float]:
        mean = sum(row) / W
        spread = math.sqrt(sum((value - mean) ** 2 for value in row) / W + 1e-5)
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return [weight[i] * (row[i] - mean) / spread + bias[i] for i in range(W)]

    def linear(row: list[float], weight: list, bias: list) -> list[float]:
        return [a + b for a, b in zip(matrix(weight, row), bias, strict=True)]

    expected = []
    for row in x.tolist():
        value = linear(norm(row, "ln_1"), state["attn.in_proj_weight"][2 * W :], state["attn.in_proj_bias"][2 * W :])
        value = linear(value, state["attn.out_proj.weight"], state["attn.out_proj.bias"])
        u = [a + b for a, b in zip(value, row, strict=True)]
        inside = linear(norm(u, "ln_2"), state["mlp.c_fc.weight"], state["mlp.c_fc.bias"])
        inside = [value / (1 + math.exp(-1.702 * value)) for value in inside]
        out = linear(inside, state["mlp.c_proj.weight"], state["mlp.c_proj.bias"])
        expected.append([a + b for a, b in zip(u, out, strict=True)])
    close(unmixed(block, x), expected)
    torch.testing.assert_close(block(x[None]), unmixed(block, x[None]))  # one token alone attends to itself


def test_the_class_token_is_the_towers(backbone):
    visual = load_clip(str(backbone)).visual
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = last_tokens(visual, images)
        assert tokens.shape == (3, 17, 64)
        torch.testing.assert_close(tokens[:, 0] @ visual.proj, visual(images))
        kept = {}
        visual.transformer.resblocks[-1].register_forward_pre_hook(lambda _, given: kept.update(x=given[0]))
        visual(images)
        patch = visual.ln_post(unmixed(visual.transformer.resblocks[-1], kept["x"][5, 2]))
    torch.testing.assert_close(tokens[2, 5], patch)


# -- Foreground --------------------------------------------------------------------------------------------------------


def by_hand(patches: list[list[float]], threshold: float) -> list[bool]:
    n = len(patches)
    edges = [[1.0 if dot(a, b) > threshold else 1e-6 for b in patches] for a in patches]
    degree = [sum(row) for row in edges]
    laplacian = [
        [((i == j) * degree[i] - edges[i][j]) / math.sqrt(degree[i] * degree[j]) for j in range(n)] for i in range(n)
    ]
    vector = np.linalg.eigh(np.array(laplacian)).eigenvectors[:, 1].tolist()
    if max(vector) < -min(vector):
        vector = [-value for value in vector]
    mean = sum(vector) / n
    std = math.sqrt(sum((value - mean) ** 2 for value in vector) / (n - 1))
    return [value > std for value in vector]


def test_foreground():
    object_, rest = units(1, W), units(1, W, seed=1)
    few = torch.arange(P)[None] < torch.tensor([2, 3, 4, 2, 3])[:, None]
    patches = F.normalize(torch.where(few[..., None], object_, rest) + 0.35 * units(B, P, W, seed=2), dim=-1)
    found = foreground(patches, 0.5)
    assert found.tolist() == [by_hand(image, 0.5) for image in patches.tolist()]
    assert found.any(dim=1).all() and not found.all(dim=1).any()
    order = torch.tensor([3, 0, 8, 1, 2, 7, 6, 4, 5])
    assert torch.equal(foreground(patches[:, order], 0.5), found[:, order])
    assert torch.equal(foreground(patches[3:4].float(), 0.5), found[3:4])  # alone, in single precision


def test_foreground_is_the_smaller_of_two_groups():
    patches = torch.eye(2)[[0, 1, 1, 0, 1, 1, 1]][None]
    assert foreground(patches, 0.2).tolist() == [[True, False, False, True, False, False, False]]


@pytest.mark.parametrize("rows", [[0, 0, 0, 0], [0, 1, 0, 1]], ids=["all alike", "two halves"])
def test_there_may_be_no_foreground(rows):
    patches = torch.eye(2)[rows][None]
    mask = foreground(patches, 0.2)
    assert not mask.any() and (masked_mean(patches, mask) == 0).all()


def test_masked_mean():
    patches, mask = units(B, P, W), units(B, P) > 0.1
    expected = []
    for image, kept in zip(patches.tolist(), mask.tolist(), strict=True):
        rows = [row for row, keep in zip(image, kept, strict=True) if keep]
        expected.append([sum(row[i] for row in rows) / max(1, len(rows)) for i in range(W)])
    close(masked_mean(patches, mask), expected)


def test_attention_pool():
    pool, query, patches = AttentionPool(W).double(), 2 * units(B, W), 3 * units(B, P, W, seed=1)
    assert all(torch.equal(parameter, torch.eye(W).double()) for parameter in pool.parameters())
    with torch.no_grad():
        for number, parameter in enumerate(pool.parameters()):
            parameter.add_(units(W, W, seed=number))
    q_map, k_map, v_map = (parameter.tolist() for parameter in (pool.query, pool.key, pool.value))
    expected = []
    for asked, image in zip(query.tolist(), patches.tolist(), strict=True):
        rows, q = [*image, [0.0] * W], matrix(q_map, asked)
        weights = softmax([dot(q, matrix(k_map, row)) / math.sqrt(W) for row in rows])
        values = [matrix(v_map, row) for row in rows]
        expected.append([sum(w * value[i] for w, value in zip(weights, values, strict=True)) for i in range(W)])
    close(pool(query, patches), expected)
    close(AttentionPool(W).double()(torch.zeros(B, W).double(), patches), (patches.sum(dim=1) / (P + 1)).tolist())


# -- Classes -----------------------------------------------------------------------------------------------------------


def test_likeness_anchors():
    names, descriptions = units(4, W), units(4, 3, W, seed=1)
    mask = torch.tensor([[True, True, True], [True, False, True], [False, False, False], [True, False, False]])
    descriptions[3, 0] = -names[3]  # alone, and it does not count
    expected = []
    for name, texts, there in zip(names.tolist(), descriptions.tolist(), mask.tolist(), strict=True):
        kept = [(max(0.0, dot(text, name)), text) for text, keep in zip(texts, there, strict=True) if keep]
        total = [sum(weight * text[i] for weight, text in kept) for i in range(W)]
        expected.append(unit(total) if any(weight > 0 for weight, _ in kept) else name)
    close(likeness_anchors(names, descriptions.masked_fill(~mask[..., None], math.nan), mask), expected)


# -- A whole run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return out, run("microCLIP", data, backbone, out, *RATE)


@pytest.fixture(scope="module")
def short(data, backbone, tmp_path_factory):
    """The weights after a run of one epoch."""
    out = tmp_path_factory.mktemp("short")
    run("microCLIP", data, backbone, out, *RATE, "OPTIM.MAX_EPOCH", "1")
    return checkpoint(out, "microCLIP", 1)["state_dict"]


def test_a_run_leaves_its_results(finished, backbone):
    out, results = finished
    assert results["trainer"] == "microCLIP" and results["views_per_image"] == 4
    for record in results["epochs"]:
        assert record["loss"] == pytest.approx(record["loss_st"] + 3 * record["loss_fair"], rel=1e-5)  # tiny.yaml
        assert 0 <= record["pseudo_accuracy"] <= 100
    rates = [2e-6 + (1e-3 - 2e-6) * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2 for epoch in (1, 2, 3)]
    assert [record["lr"] for record in results["epochs"]] == pytest.approx(rates)
    visual = load_clip(str(backbone)).visual
    norms = {f"visual.{name}" for name in norm_parameters(visual)}
    maps = {f"pool.{name}" for name in ("query", "key", "value")}
    saved = checkpoint(out, "microCLIP")
    assert saved["state_dict"].keys() == norms | maps | {"anchors.weight"}
    assert all((saved["state_dict"][name] != torch.eye(64)).any() for name in maps)
    (group,) = saved["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.1


def test_two_steps_equal_the_plain_computation(data, backbone, tmp_path):
    trainer = build("microCLIP", data, backbone, tmp_path, *RATE, "TRAINER.MICROCLIP.GAMMA", "0.3")
    trainer.before_train()
    trainer.epoch = 0
    trainer.before_epoch()
    model, before = trainer.model, None
    weight = trainer.cfg.TRAINER.MICROCLIP.FAIRNESS
    for number in range(2):
        views = torch.randn(8, 4, 3, 32, 32, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            features = [F.normalize(model.visual(views[:, view]), dim=-1).tolist() for view in (0, 2, 3)]
            local = [model.encode_both(views[:, view])[1].tolist() for view in (0, 1)]
            strong = F.normalize(model.visual(views[:, 1]), dim=-1).tolist()
        learned, fixed = ([unit(row) for row in rows.tolist()] for rows in (model.anchors.weight, trainer.fixed))
        labels, probs, losses = [], [], []
        for i in range(8):
            f, *crops = (rows[i] for rows in features)
            shares = softmax([dot(f, crop) for crop in crops])
            c = unit([sum(s * crop[j] for s, crop in zip(shares, crops, strict=True)) for j in range(len(f))])
            e = unit([(a + b) / 2 for a, b in zip(f, local[0][i], strict=True)])
            scores = [0.3 * dot(c, w0) + 0.7 * dot(e, w) for w0, w in zip(fixed, learned, strict=True)]
            labels.append(scores.index(max(scores)))
            logits = [model.tau * (dot(strong[i], w) + dot(local[1][i], w)) / 2 for w in learned]
            probs.append(softmax(logits))
            losses.append(-math.log(probs[-1][labels[-1]]))
        mean = [sum(p[c] for p in probs) / 8 for c in range(3)]
        used = mean if before is None else [(a + b) / 2 for a, b in zip(before, mean, strict=True)]
        fair = -sum(math.log(m) for m in used) / 3 * (1 if before is None else 2)
        before = used
        assert trainer.pseudo_label(views[:, 0], views[:, 2:]).tolist() == labels

        figures = trainer.forward_backward({"img": views, "label": torch.full((8,), -1)})
        assert figures["loss_st"] == pytest.approx(sum(losses) / 8, rel=1e-4)
        assert figures["loss_fair"] == pytest.approx(fair, rel=1e-4)
        assert figures["loss"] == pytest.approx(figures["loss_st"] + weight * figures["loss_fair"])
        assert "pseudo_accuracy" not in figures  # the images have no labels
    trainer.close_writer()


def test_crops_alone_label_with_the_learned_classifier(data, resnet, tmp_path):
    """On any backbone; its model is a tower with one vector a class, so that its predictions are to be had."""
    options = (*RATE, "TRAINER.MICROCLIP.CROPS_ONLY", "True")
    run("microCLIP", data, resnet, tmp_path, *options)
    assert not [name for name in checkpoint(tmp_path, "microCLIP")["state_dict"] if name.startswith("pool.")]
    trainer = build("microCLIP", data, resnet, tmp_path / "again", *options)
    trainer.load_model(str(tmp_path))
    views = torch.randn(8, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        f, *crops = (trainer.model.encode(views[:, view]) for view in range(3))
        shares = torch.stack([(f * crop).sum(dim=1) for crop in crops]).softmax(dim=0)
        mean = sum(share[:, None] * crop for share, crop in zip(shares, crops, strict=True))
        expected = (mean @ trainer.model.anchors().t()).argmax(dim=1)
    assert torch.equal(trainer.pseudo_label(views[:, 0], views[:, 1:]), expected)
    predictor = Predictor.load(tmp_path, device="cpu")
    answers = predictor(sorted(data.glob("test_*.png")))
    said = trainer.predict(trainer.test_loader, "test").softmax(dim=1)
    order = sorted(range(12), key=lambda i: trainer.dm.dataset.test[i].impath)
    torch.testing.assert_close(answers, said[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["likeness", "mean"])
def test_the_fixed_classifier(data, backbone, tmp_path, kind):
    """That of descriptions weighted alike is where the learned one starts; weighted by likeness it is another."""
    trainer = build("microCLIP", data, backbone, tmp_path, *RATE, "TRAINER.MICROCLIP.FIXED", kind)
    start = F.normalize(trainer.model.anchors.weight.detach(), dim=-1)
    assert torch.allclose(trainer.fixed, start, atol=1e-6) == (kind == "mean")
    trainer.close_writer()


def test_the_predictor_does_not_take_it(finished):
    with pytest.raises(UserError, match="a run of microCLIP, whose model is more than .* pools patches"):
        Predictor.load(finished[0])


@pytest.mark.parametrize(
    "opts",
    [
        {"ALPHA": 0.3, "BETA": 0.4},
        {"CUT": 0.9},
        {"CUT_COSINES": False},
        {"LR_MIN": 1e-3},
    ],
    ids=str,
)
def test_options_that_the_computation_above_leaves_alone(short, data, backbone, tmp_path, opts):
    pairs = [text for key, value in opts.items() for text in (f"TRAINER.MICROCLIP.{key}", str(value))]
    run("microCLIP", data, backbone, tmp_path, *RATE, *pairs, "OPTIM.MAX_EPOCH", "1")
    assert not same(checkpoint(tmp_path, "microCLIP", 1)["state_dict"], short)


@pytest.mark.parametrize(
    "opts, message",
    [
        (("TRAINER.MICROCLIP.N_CROPS", "0"), "at least 1 is needed"),
        (("TRAINER.MICROCLIP.BETA", "0.2"), "ALPHA <= BETA"),
        (("TRAINER.MICROCLIP.FIXED", "name"), "choose likeness or mean"),
        (("TRAINER.MICROCLIP.GAMMA", "1.5"), "a share lies between 0 and 1"),
        (("TRAINER.MICROCLIP.CUT", "1.0"), "a cosine lies between -1 and 1"),
        (("OPTIM.LR", "1e-7"), "LR_MIN"),
        (("MODEL.BACKBONE.NAME", "RN50"), "microCLIP pools the patches of a Vision Transformer, and RN50 is a ResNet"),
    ],
)
def test_mistakes(data, backbone, tmp_path, capsys, opts, message):
    check_refused(arguments("microCLIP", data, backbone, tmp_path, *RATE, *opts), message, capsys)


def test_a_file_of_a_resnet_is_refused(resnet):
    with pytest.raises(UserError, match=r"pools the patches of a Vision Transformer, .* Set MODEL.BACKBONE.NAME to"):
        FusedClassifier(load_clip(str(resnet)).visual, torch.eye(3, 16), 100.0, "fp32", 0.2, True)
