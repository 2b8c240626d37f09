"""Backbones by name: what can be told about them, encoders of one's own, devices."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toys import arguments, as_backbone, build, check_refused, make_data, run, save_clip

from fairclip import Predictor
from fairclip.backbones import makers
from fairclip.backbones.backbone import Backbone, Options, UnknownBackbone, norm_parameters
from fairclip.backbones.makers import MAKERS, is_openai, load_backbone, pixels_of, register_backbone
from fairclip.backbones.pixels import CLIP_PIXELS, Pixels
from fairclip.core.devices import choose_device
from fairclip.core.errors import UserError

GREY = Pixels((0.5,) * 3, (0.5,) * 3, "bilinear", "squash")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), train=6, test=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {tower: save_clip(folder / f"{tower}.pt", tower) for tower in ("vit", "resnet")}


# -- What can be told --------------------------------------------------------------------------------------------------


def test_heads_and_activation_change_features_and_fingerprint(weights):
    usual, x = load_backbone(str(weights["vit"])), torch.randn(2, 3, 32, 32)
    prints = {usual.fingerprint}
    for options in (Options(heads=(2, 2)), Options(heads=(1, 2)), Options(activation="gelu")):
        told = load_backbone(str(weights["vit"]), options=options)
        assert torch.equal(told.visual(x), usual.visual(x)) == (options.heads == (1, 2))  # the image tower as it was
        prints.add(told.fingerprint)
    assert len(prints) == 4
    same = load_backbone(str(weights["vit"]), options=Options(heads=(1, 1), activation="quick_gelu"))
    assert same.fingerprint == usual.fingerprint


@pytest.mark.parametrize(("tower", "size"), [("vit", 48), ("vit", 24), ("resnet", 64)])
def test_resize_interpolates_positions(weights, tower, size):
    usual, resized = (load_backbone(str(weights[tower]), options=options) for options in (Options(), Options(size)))
    assert (resized.size, resized.pixels) == (size, usual.pixels)
    assert resized.visual(torch.zeros(1, 3, size, size)).shape == (1, usual.width)
    assert resized.fingerprint != usual.fingerprint
    name = "positional_embedding" if tower == "vit" else "attnpool.positional_embedding"
    old, new = usual.visual.state_dict()[name], resized.visual.state_dict()[name]
    assert torch.equal(old[0], new[0])  # of the class token, or of the mean
    # A table that is linear in a direction stays so.
    side, patches = round((len(old) - 1) ** 0.5), round((len(new) - 1) ** 0.5)
    assert torch.allclose(new[1:].mean(0), old[1:].mean(0), atol=0.02) and patches == side * size // 32
    assert torch.equal(load_backbone(str(weights[tower]), options=Options(32)).visual.state_dict()[name], old)


def test_a_run_on_images_of_another_size(weights, data, tmp_path, capsys):
    opts = ("MODEL.BACKBONE.RESIZE", "True", "INPUT.SIZE", "(48, 48)", "OPTIM.MAX_EPOCH", "1")
    run("FAIR", data, weights["vit"], tmp_path / "out", *opts)
    predictor = Predictor.load(tmp_path / "out")
    assert predictor.settings["size"] == 48 and predictor.settings["backbone_options"] == [48, [], ""]
    loaded = Predictor.load(predictor.save(tmp_path / "saved.pt"))
    image = data / "test_0_0.png"
    assert torch.equal(loaded(image), predictor(image)) and len(predictor.with_classes(["a", "b"]).classnames) == 2
    argv = arguments("FAIR", data, weights["vit"], tmp_path / "odd", *opts[:2], "INPUT.SIZE", "(50, 50)")
    check_refused(argv, "INPUT.SIZE 50", capsys)
    argv = arguments("FAIR", data, weights["vit"], tmp_path / "odd", "INPUT.SIZE", "(48, 48)")
    check_refused(argv, "MODEL.BACKBONE.RESIZE True", capsys)
    argv = arguments("FAIR", data, weights["vit"], tmp_path / "odd", "MODEL.BACKBONE.HEADS", "(3,)")
    check_refused(argv, "MODEL.BACKBONE.HEADS (3,): give two numbers", capsys)


# -- Encoders of one's own ---------------------------------------------------------------------------------------------


class Colours(nn.Module):
    """An image tower without attention: means of a convolution's channels, behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 4, stride=4), nn.GroupNorm(4, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(images)).mean(dim=(2, 3))


class Letters(nn.Module):
    """A text tower: the mean of an embedding of each letter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(128, 16)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table(tokens).mean(dim=1)


def spell(texts) -> torch.Tensor:
    return torch.tensor([[min(127, ord(letter)) for letter in text[:60].ljust(60)] for text in texts])


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setattr(makers, "MAKERS", {})

    @register_backbone("colours", GREY)
    def colours() -> Backbone:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Backbone("colours", Colours(), Letters(), spell, tau=20.0, size=24, width=16, pixels=GREY)

    return colours


@pytest.mark.parametrize("trainer", ["FAIR", "DPA", "CuPL", "WCA"])
def test_encoders_of_ones_own(own, data, tmp_path, trainer):
    out = tmp_path / "out"
    results = run(trainer, data, "colours", out, "OPTIM.MAX_EPOCH", "1")
    assert results["backbone"] == "colours" and 0 <= results["accuracy"] <= 100
    if trainer == "FAIR":
        assert results["trainable_parameters"] == 3 * 16 + 2 * 16  # anchors and the norm
        predictor = Predictor.load(out)
        image = F.interpolate(torch.rand(1, 3, 30, 50), (30, 50))[0]
        assert predictor(image).shape == (1, 3) and predictor.settings["resize"] == "squash"


def test_what_own_encoders_cannot_do_is_said(own, data, tmp_path, capsys):
    check_refused(arguments("UPL", data, "colours", tmp_path / "a"), "needs a CLIP in OpenAI's layout", capsys)
    argv = arguments("FAIR", data, "colours", tmp_path / "b", "MODEL.BACKBONE.ACTIVATION", "gelu")
    check_refused(argv, "for CLIPs of OpenAI's and open_clip", capsys)
    with pytest.raises(UserError, match="is not a CLIP in OpenAI's layout"):
        _ = load_backbone("colours").openai
    assert not is_openai("colours") and is_openai("ViT-B/32") and pixels_of("colours") == GREY
    with pytest.raises(UserError, match="two backbones of the name 'colours'"):
        register_backbone("colours", GREY)(norm_parameters)  # of another file


def test_files_of_trainers_are_looked_through_for_an_unknown_name(monkeypatch, weights):
    """A prediction imports no trainer before: the name is looked for when it is needed."""
    monkeypatch.setattr(makers, "MAKERS", {})
    toy = dataclasses.replace(load_backbone(str(weights["vit"])), name="late")
    monkeypatch.setattr(makers, "import_plugins", lambda kind: register_backbone("late", CLIP_PIXELS)(lambda: toy))
    assert load_backbone("late").name == "late"
    monkeypatch.setattr(makers, "import_plugins", lambda kind: None)
    with pytest.raises(UnknownBackbone, match="'later' is neither a known backbone nor a file"):
        load_backbone("later")


def test_everything_is_in_the_key_of_texts(tiny_clip):
    """Tokens, the text tower and what no tensor says; the image tower is not."""
    backbone, tokens = as_backbone(tiny_clip), torch.ones(1, 77, dtype=torch.long)
    key = backbone.text_fingerprint(tokens)
    assert key != backbone.text_fingerprint(tokens + 1)
    assert key != dataclasses.replace(backbone, facts="other").text_fingerprint(tokens)
    assert key == dataclasses.replace(backbone, visual=nn.Linear(1, 1)).text_fingerprint(tokens)
    assert MAKERS is makers.MAKERS


@pytest.mark.parametrize(
    ("layer", "count"),
    [(nn.LayerNorm(4), 2), (nn.GroupNorm(2, 4), 2), (nn.BatchNorm1d(4), 2), (nn.RMSNorm(4), 1), (nn.Linear(4, 4), 0)],
)
def test_all_kinds_of_norms(layer, count):
    tower = nn.Sequential(nn.Linear(4, 4), layer)
    if count:
        assert len(norm_parameters(tower)) == count
    else:
        with pytest.raises(UserError, match="nothing to adapt"):
            norm_parameters(tower)


# -- Devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", ["LinearProbe", "TransCLIP", "ZLaP", "StatA", "TDA", "ReCLIP", "GTA"])
def test_what_mps_cannot_compute_is_said_before_anything_is_loaded(
    trainer, data, weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("fairclip.run.build.choose_device", lambda *args: torch.device("mps"))
    check_refused(arguments(trainer, data, weights["vit"], tmp_path), "float64, which mps does not have", capsys)


def test_devices(monkeypatch, data, weights, tmp_path, capsys):
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().type == "cpu"
    for name, part in (("gpu", "choose one of cpu"), ("cuda", "This torch finds no CUDA GPU"), ("mps", "is not here")):
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        with pytest.raises(UserError, match=part):
            choose_device(name)
    check_refused(arguments("FAIR", data, weights["vit"], tmp_path, "DEVICE", "cuda:7"), "device 'cuda:7'", capsys)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device().type == "cuda" and choose_device(cuda=False).type == "cpu"
    assert choose_device("cuda:1").index == 1
    assert build("CuPL", data, weights["vit"], tmp_path / "cpu", "DEVICE", "cpu").device.type == "cpu"
