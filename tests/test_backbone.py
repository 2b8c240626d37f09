"""Loading CLIP: names, files of every accepted form, the clip package's seam."""

import os
import socket
import sys

import pytest
import torch
from clip import clip
from clip.model import CLIP, build_model
from torch import nn

from fairclip.backbones import openai, precision
from fairclip.backbones.backbone import norm_parameters
from fairclip.backbones.makers import load_backbone
from fairclip.backbones.openai import (
    load_clip,
    share_with_clip,
)
from fairclip.backbones.precision import autocast, choose_precision
from fairclip.core.download import checksum_of
from fairclip.core.errors import UserError


def random_clip(tower: str) -> CLIP:
    torch.manual_seed(0)
    layers, width, patch = (2, 64, 16) if tower == "vit" else ((1, 1, 1, 1), 16, None)
    return CLIP(24, 32, layers, width, patch, 77, 49408, 64, 1, 1).eval()


@pytest.fixture(scope="module")
def models() -> dict[str, CLIP]:
    return {tower: random_clip(tower) for tower in ("vit", "resnet")}


@pytest.fixture(scope="module")
def checkpoint(models, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("checkpoints") / "vit.pt"
    torch.save(models["vit"].state_dict(), path)
    return str(path)


def assert_same_weights(model: nn.Module, other: nn.Module) -> None:
    state, expected = model.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    for name in expected:
        assert torch.equal(state[name], expected[name]), name


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints
# ---------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_state_dict_keeps_full_precision(models, tower, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(models[tower].state_dict(), path)
    model = load_clip(str(path))
    assert not model.training
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert_same_weights(model, models[tower])  # clip.build_model alone would round to float16
    backbone = load_backbone(str(path))
    assert (backbone.size, backbone.width, backbone.facts) == (32, 24, "")
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.encode_image(image), models[tower].encode_image(image))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"epoch": 1, "state_dict": {f"module.clip_model.{key}": v for key, v in state.items()}},
        lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
        lambda state: {key: value.half() for key, value in state.items()},
    ],
    ids=["state_dict", "model and module.", "two prefixes", "compiled", "half"],
)
def test_wrapped_state_dicts(models, wrap, tmp_path):
    torch.save(wrap(models["vit"].state_dict()), tmp_path / "model.pt")
    model = load_clip(str(tmp_path / "model.pt"))
    torch.testing.assert_close(model.visual.conv1.weight, models["vit"].visual.conv1.weight, atol=1e-3, rtol=1e-3)
    assert model.visual.conv1.weight.dtype == torch.float32


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_archive(models, tmp_path):
    """As OpenAI publishes them: half precision, three facts kept as buffers."""
    model = build_model(dict(models["vit"].state_dict())).float()
    for fact in ("input_resolution", "context_length", "vocab_size"):
        value = torch.tensor(getattr(model.visual if fact == "input_resolution" else model, fact))
        if fact != "input_resolution":
            delattr(model, fact)
        model.register_buffer(fact, value)
    example = torch.rand(1, 3, 32, 32), clip.tokenize("a car")
    torch.jit.trace(model, example, check_trace=False).save(tmp_path / "model.pt")
    loaded = load_clip(str(tmp_path / "model.pt"))
    assert torch.equal(loaded.text_projection, model.text_projection)
    assert torch.equal(loaded.encode_text(example[1]), model.encode_text(example[1]))


class Unsafe:
    def __reduce__(self):
        return os.system, ("echo unpickled",)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"not a checkpoint", "neither a TorchScript archive nor a state dict"),
        (b"", "neither a TorchScript archive nor a state dict"),
        (Unsafe(), "holds pickled objects besides tensors"),
        ([torch.zeros(1)], "holds no state dict"),
        ({"epoch": 1}, "holds no state dict"),
        ({"vision_model.x": torch.zeros(1)}, "a CLIPModel of Transformers, which has no vision_model.x"),
        (
            {"vision.x": torch.zeros(1)},
            "not a CLIP checkpoint in OpenAI's layout: it lacks text_.*has vision.x",
        ),
        ({"visual.proj": torch.tensor([1.0, float("nan")])}, "values in visual.proj are not finite"),
    ],
)
def test_wrong_files(content, message, tmp_path, capfd):
    path = tmp_path / "model.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(UserError, match=message) as error:
        load_clip(str(path))
    assert str(path) in str(error.value)
    assert "unpickled" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("visual.ln_pre.weight"), "it lacks visual.ln_pre.weight"),
        (lambda state: state.update({"head.weight": torch.zeros(2)}), "no place for: head.weight"),
        (lambda state: state.update({"visual.proj": torch.zeros(3, 24)}), "does not fit the CLIP architecture"),
        (lambda state: [state.pop(key) for key in list(state) if key.startswith("visual.")], "has no image tower"),
    ],
    ids=["missing", "unexpected", "shape", "no image tower"],
)
def test_state_dict_that_does_not_fit(models, spoil, message, tmp_path):
    state = dict(models["vit"].state_dict())
    spoil(state)
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=message):
        load_clip(str(tmp_path / "model.pt"))


def test_unknown_name_lists_choices():
    with pytest.raises(UserError, match=r"'ViT-B-32' is neither .* Did you mean 'ViT-B/32'\?.*RN50.*tiny_rn"):
        load_clip("ViT-B-32")


@pytest.mark.parametrize("name", openai.BUNDLED)
def test_bundled_backbones(name):
    assert checksum_of(openai.WEIGHTS / f"{name}.pt") == openai.BUNDLED[name]
    model = load_clip(name)
    image = torch.rand(1, 3, model.architecture.side, model.architecture.side)
    assert model.encode_image(image).shape == model.encode_text(clip.tokenize("a car")).shape


def test_damaged_or_absent_bundled_file(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(openai, "WEIGHTS", tmp_path)
    monkeypatch.setitem(openai.BUNDLED, "tiny_rn", "0" * 64)
    with pytest.raises(UserError, match="the checkout is incomplete"):
        load_clip("tiny_rn")
    (tmp_path / "tiny_rn.pt").write_bytes(b"half a file")
    with pytest.raises(UserError, match="is damaged"):
        load_clip("tiny_rn")


def test_missing_pkg_resources_is_explained(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "clip"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(UserError, match="setuptools<81"):
        load_clip("tiny_rn")


# ---------------------------------------------------------------------------------------------------------------------
# Parts of the model, precision
# ---------------------------------------------------------------------------------------------------------------------
def test_norm_parameters(models):
    vit, resnet = norm_parameters(models["vit"].visual), norm_parameters(models["resnet"].visual)
    assert list(vit) == [
        "ln_pre.weight",
        "ln_pre.bias",
        *(f"transformer.resblocks.{i}.{ln}.{p}" for i in (0, 1) for ln in ("ln_1", "ln_2") for p in ("weight", "bias")),
        "ln_post.weight",
        "ln_post.bias",
    ]
    assert list(resnet)[:2] == ["bn1.weight", "bn1.bias"] and "layer4.0.downsample.1.bias" in resnet
    assert len(resnet) == 2 * (3 + 4 * 3 + 4)  # stem, three in each block, its shortcut
    for tower, found in ("vit", vit), ("resnet", resnet):
        named = dict(models[tower].visual.named_parameters())
        assert all(named[name] is parameter for name, parameter in found.items())
    with pytest.raises(UserError, match="nothing to adapt"):
        norm_parameters(nn.Linear(2, 2))


@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_bf16_is_near_fp32(models, tower):
    image = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        with autocast("cpu", "fp32"):
            exact = models[tower].encode_image(image)
        with autocast("cpu", "bf16"):
            rough = models[tower].encode_image(image)
    assert torch.equal(exact, models[tower].encode_image(image))
    assert not torch.equal(exact, rough.float())
    assert torch.cosine_similarity(exact, rough.float()).min() > 0.99


@pytest.mark.parametrize("prec, message", [("amp", "needs a GPU"), ("fp16", "is unknown"), ("FP32", "is unknown")])
def test_precision_that_cannot_be(prec, message):
    with pytest.raises(UserError, match=f"{message}.*Use .*fp32"):
        autocast(torch.device("cpu"), prec)


def test_gradients_in_bf16_are_near_those_in_fp32(models):
    """Where there is a gradient, attention is computed another way than where there is none."""
    visual, image = models["vit"].visual, torch.rand(4, 3, 32, 32)
    norms, found = list(norm_parameters(visual).values()), {}
    for prec in ("fp32", "bf16"):
        with autocast("cpu", prec):
            loss = visual(image).float().square().sum()
        found[prec] = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, norms)])
    assert torch.cosine_similarity(found["fp32"], found["bf16"], dim=0) > 0.99


@pytest.mark.parametrize("ratio, expected", [(2.3, "bf16"), (1.1, "fp32"), (0.2, "fp32")])
def test_auto_is_bf16_where_the_device_is_clearly_faster_in_it(monkeypatch, ratio, expected):
    monkeypatch.setattr(precision, "bfloat16_speed", lambda device: ratio)
    prec, why = choose_precision(torch.device("cpu"), "auto")
    assert prec == expected and f"{ratio} times as fast" in why
    assert choose_precision(torch.device("cpu"), "fp32") == ("fp32", "")  # what is asked for is not probed


def test_no_network(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/{'a' * 64}/ViT.pt"
    monkeypatch.setenv("FAIR_CACHE", str(tmp_path))
    monkeypatch.setitem(clip._MODELS, "ViT-test", url)
    with pytest.raises(UserError, match="cannot reach") as error:
        load_clip("ViT-test")
    for fact in (url, "a" * 64, str(tmp_path / "ViT.pt")):
        assert fact in str(error.value)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# CoOp's way to a backbone
# ---------------------------------------------------------------------------------------------------------------------
def load_as_coop_does(name: str, *root: str) -> nn.Module:
    path = clip._download(clip._MODELS[name], *root)
    return clip.build_model(torch.load(path, map_location="cpu", weights_only=True))


def test_share_with_clip(serve, checkpoint, models, monkeypatch, tmp_path):
    (tmp_path / "bundled").mkdir()
    os.link(checkpoint, tmp_path / "bundled" / "tiny_rn.pt")
    with open(checkpoint, "rb") as file:
        server = serve(file.read())
    monkeypatch.setattr(clip, "_MODELS", dict(clip._MODELS))  # restored with the test, and so is _download
    monkeypatch.setattr(clip, "_download", clip._download)
    monkeypatch.setattr(openai, "WEIGHTS", tmp_path / "bundled")
    monkeypatch.setitem(openai.BUNDLED, "tiny_rn", server.sha256)
    monkeypatch.setenv("FAIR_CACHE", str(tmp_path / "cache"))

    share_with_clip()
    clip._MODELS["remote"] = server.url
    patched = clip._MODELS, clip._download
    share_with_clip()
    assert patched == (clip._MODELS, clip._download)

    for name in ("tiny_rn", checkpoint, "remote"):
        model = load_as_coop_does(name)
        torch.testing.assert_close(model.visual.class_embedding, models["vit"].visual.class_embedding)
    load_as_coop_does("remote", os.path.expanduser("~/.cache/clip"))  # what clip.load passes: the cache folder decides
    assert len(server.ranges) == 1
    load_as_coop_does("remote", str(tmp_path / "own"))
    assert (tmp_path / "own" / "weights.pt").is_file()
    assert {"tiny_rn", "ViT-B/32"} <= set(clip.available_models())
    assert_same_weights(load_clip("tiny_rn"), models["vit"])
    with pytest.raises(UserError, match="neither a known backbone nor a file"):
        load_as_coop_does("ViT-B/64")


OTHERS = {"clip.py": "x = 1", "clip/__init__.py": "", "clip/clip.py": "def tokenize(): pass", "clip.py broken": "1 / 0"}


@pytest.mark.parametrize("file", OTHERS)
def test_another_clip_is_named(tmp_path, monkeypatch, file):
    path = tmp_path / file.split()[0]
    path.parent.mkdir(exist_ok=True)
    if file == "clip/clip.py":
        (path.parent / "__init__.py").write_text("")
    path.write_text(OTHERS[file])
    for name in [name for name in sys.modules if name == "clip" or name.startswith("clip.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    what = path if path.parent == tmp_path else path.parent
    with pytest.raises(UserError, match=f"{what} is in the way of the package clip. Rename or remove it"):
        openai.clip_module()
    for name in [name for name in sys.modules if name == "clip" or name.startswith("clip.")]:
        monkeypatch.delitem(sys.modules, name)
