"""An adapted CLIP taken out of a run, loaded by the software that each layout is for."""

import json

import numpy as np
import pytest
import torch
import toys
from clip import clip
from commands import export as fair_export
from test_fair import CLASSES
from torch.nn import functional as F

from fairclip import Predictor
from fairclip.backbones.openai import load_clip
from fairclip.export.layouts import LAYOUTS


@pytest.fixture(scope="module")
def run(data, backbone, tmp_path_factory):  # noqa: F811
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    toys.run("FAIR", data, backbone, folder, "OPTIM.MAX_EPOCH", "1", "OPTIM.LR", "1e-2")
    return folder


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def expected(run, pixels):
    """Unit features and probabilities by the predictor."""
    model = Predictor.load(run, device="cpu").model
    with torch.no_grad():
        return model.encode(pixels), model(pixels).softmax(dim=1)


def export(run, layout, tmp_path):
    """The folder, the class vectors and export.json of ``fair export``."""
    assert fair_export([str(run), "--to", layout, "--out", str(tmp_path / layout)]) == 0
    folder = tmp_path / layout
    about = json.loads((folder / "export.json").read_text())
    assert {path.name for path in folder.iterdir()} == {*about["files"], "classes.npy", "export.json"}
    assert about["classes"] == CLASSES and about["layout"] == layout and about["images"]["size"] == 32
    return folder, torch.from_numpy(np.load(folder / "classes.npy", allow_pickle=False)), about


def check(features: torch.Tensor, anchors: torch.Tensor, about: dict, expected) -> None:
    """The features are the predictor's, and with the class vectors beside them so are the predictions."""
    features = F.normalize(features.detach().float(), dim=-1)
    torch.testing.assert_close(features, expected[0], rtol=1e-4, atol=1e-5)
    probabilities = (about["tau"] * features @ anchors.t()).softmax(dim=1)
    torch.testing.assert_close(probabilities, expected[1], rtol=1e-4, atol=1e-5)


def test_openai(run, pixels, expected, tmp_path):
    folder, anchors, about = export(run, "openai", tmp_path)
    model, _ = clip.load(str(folder / "model.pt"), device="cpu", jit=False)
    check(model.float().encode_image(pixels), anchors, about, expected)
    check(load_clip(str(folder / "model.pt")).encode_image(pixels), anchors, about, expected)


def test_safetensors(run, pixels, expected, tmp_path):
    folder, anchors, about = export(run, "safetensors", tmp_path)
    check(load_clip(str(folder / "model.safetensors")).encode_image(pixels), anchors, about, expected)


def test_open_clip(run, pixels, expected, tmp_path):
    import open_clip

    folder, anchors, about = export(run, "open_clip", tmp_path)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    check(model.eval().encode_image(pixels), anchors, about, expected)
    tokens = clip.tokenize(["a red car", "two cars"])
    with torch.no_grad():
        text = load_clip(about["backbone"]).encode_text(tokens)
        torch.testing.assert_close(model.encode_text(tokens), text, rtol=1e-4, atol=1e-4)
    assert tuple(preprocess.transforms[-1].mean) == tuple(about["images"]["mean"])


def test_hugging_face(run, pixels, expected, tmp_path):
    from transformers import CLIPModel

    folder, anchors, about = export(run, "hf", tmp_path)
    model = CLIPModel.from_pretrained(folder).eval()
    check(model.visual_projection(model.vision_model(pixels).pooler_output), anchors, about, expected)
    tokens = clip.tokenize(["a red car", "two cars"])
    with torch.no_grad():
        text = load_clip(about["backbone"]).encode_text(tokens)
        theirs = model.text_projection(model.text_model(tokens).pooler_output)
        torch.testing.assert_close(theirs, text, rtol=1e-4, atol=1e-4)
    check(load_clip(str(folder)).encode_image(pixels), anchors, about, expected)  # and back again


@pytest.mark.filterwarnings("ignore")  # of the exporters, on their own inside
@pytest.mark.parametrize("layout", ["torchscript", "onnx"])
def test_classifiers_take_any_number_of_images(run, pixels, expected, tmp_path, layout):
    folder, anchors, about = export(run, layout, tmp_path)
    if layout == "torchscript":
        loaded = torch.jit.load(str(folder / "classifier.ts"))
    else:
        from onnxruntime import InferenceSession

        session = InferenceSession(str(folder / "classifier.onnx"))

        def loaded(images):
            return [torch.from_numpy(out) for out in session.run(["features", "logits"], {"images": images.numpy()})]

    for count in (5, 1, 3):
        features, logits = loaded(pixels[:count])
        torch.testing.assert_close(features, expected[0][:count], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logits.softmax(dim=1), expected[1][:count], rtol=1e-4, atol=1e-5)


def test_a_resnet_goes_out_too(data, tmp_path):  # noqa: F811
    import open_clip

    weights = toys.save_clip(tmp_path / "resnet.pt", "resnet")
    toys.run("FAIR", data, weights, tmp_path / "run", "OPTIM.MAX_EPOCH", "1")
    folder, anchors, about = export(tmp_path / "run", "open_clip", tmp_path)
    predictor = Predictor.load(tmp_path / "run", device="cpu")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = predictor.model.encode(images), predictor.model(images).softmax(dim=1)
    check(open_clip.create_model(f"local-dir:{folder}").eval().encode_image(images), anchors, about, expected)
    assert fair_export([str(tmp_path / "run"), "--to", "hf", "--out", str(tmp_path / "hf")]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "tensorflow", "--out", "x"), "--to tensorflow: choose one of openai, open_clip"),
        (("--to", "openai", "--out", "FILE"), "is a file: name a folder"),
    ],
)
def test_mistakes(run, tmp_path, capsys, words, message):
    (tmp_path / "file").write_text("")
    assert fair_export([str(run), *(str(tmp_path / "file") if word == "FILE" else word for word in words)]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "x").exists()
    assert set(LAYOUTS) == {"openai", "open_clip", "hf", "safetensors", "onnx", "torchscript"}
