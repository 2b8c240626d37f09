"""Backbones of open_clip: their facts, their features, and FAIR on each of them, whole runs in small.

`-m full` does the same with the architectures in their real size: minutes, and some GB of memory.
"""

import json
from pathlib import Path

import pytest
import torch
from commands import export
from PIL import Image
from toys import arguments, build, check_refused, checkpoint, make_data, run, same, untimed

from fairclip import Predictor
from fairclip.backbones.backbone import Options, norm_parameters
from fairclip.backbones.makers import load_backbone, pixels_of
from fairclip.backbones.open_clip_models import OpenClipTokenizer
from fairclip.backbones.pixels import CLIP_PIXELS, Pixels
from fairclip.core.errors import UserError
from fairclip.views.views import RandomCrops

open_clip = pytest.importorskip("open_clip")

HALF = (0.5, 0.5, 0.5)
# Of each architecture: a tag, what its images need, context, and a small image tower of its kind (timm's name, or the
# sizes of open_clip's own).
OWN_VIT = {"layers": 2, "width": 64, "patch_size": 16, "image_size": 64}
OWN_RESNET = {"layers": [1, 1, 1, 1], "width": 16, "patch_size": None, "image_size": 64}
MODELS = {
    "ViT-B-32": ("laion2b_s34b_b79k", CLIP_PIXELS, 77, OWN_VIT),
    "ViT-B-32-quickgelu": ("metaclip_400m", CLIP_PIXELS, 77, OWN_VIT),
    "RN50": ("yfcc15m", CLIP_PIXELS, 77, OWN_RESNET),
    "ViT-B-16-SigLIP2": ("webli", Pixels(HALF, HALF, "bicubic", "squash"), 64, "vit_tiny_patch16_224"),
    "EVA02-B-16": ("merged2b_s8b_b131k", CLIP_PIXELS, 77, "eva02_tiny_patch14_224"),
    "MobileCLIP2-S0": ("dfndr2b", Pixels((0.0,) * 3, (1.0,) * 3, "bilinear"), 77, "fastvit_mci0"),
    "PE-Core-S-16-384": ("meta", Pixels(HALF, HALF, "bilinear", "squash"), 32, "vit_pe_core_tiny_patch16_384"),
    "convnext_base": ("laion400m_s13b_b51k", CLIP_PIXELS, 77, "convnext_atto"),
}
ANY_SIZE = ("MobileCLIP2-S0", "convnext_base")  # image towers that take whatever comes
RESIZED = {"EVA02-B-16": 56, "PE-Core-S-16-384": 64}  # positions interpolated, to be faster
SIZES = [*MODELS, *(pytest.param(name, marks=pytest.mark.full, id=f"{name}-full") for name in MODELS)]
CROPS = ("TRAINER.FAIR.N_CROPS", "2", "TRAINER.FAIR.TOP_K", "2", "TRAINER.FAIR.PREC", "fp32")
WORDS = ["a", "photo", "of", "red", "green", "blue", "car", "on", "road", "with", "four", "wheels"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), train=4, test=2)


def save_model(name: str, folder: Path, full: bool) -> object:
    """A model with random weights, saved as a folder that open_clip reads. Returns it, as open_clip has it."""
    tag, _, _, tower = MODELS[name]
    config = open_clip.get_model_config(name)
    text, vision = config["text_cfg"], config["vision_cfg"]
    if not full:
        text |= {"layers": 1, "width": 64, "heads": 1}
        config["embed_dim"] = 192 if name == "ViT-B-16-SigLIP2" else 32  # SigLIP's image tower has no projection
        vision |= {"timm_model_name": tower} if isinstance(tower, str) else tower
        if name in ANY_SIZE:
            vision["image_size"] = 64
    if "hf_tokenizer_name" in text:
        save_tokenizer(folder)
        text["vocab_size"] = 64
    images = {
        key: open_clip.get_pretrained_cfg(name, tag)[key] for key in ("mean", "std", "interpolation", "resize_mode")
    }
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": images}))
    torch.manual_seed(0)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return model


def save_tokenizer(folder: Path) -> None:
    """One of the class that SigLIP 2 has, of a few words; the real one lies on the hub."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)


@pytest.mark.parametrize("name", MODELS)
def test_images_are_prepared_as_published(name):
    tag, pixels, *_ = MODELS[name]
    assert pixels_of(f"open_clip:{name}/{tag}") == pixels


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SIZES)
def test_fair_on_every_architecture(name, data, tmp_path, request):
    _, pixels, context, _ = MODELS[name]
    full = "full" in request.node.callspec.id
    model = save_model(name, tmp_path / "model", full)
    backbone = f"local-dir:{tmp_path / 'model'}"

    # The facts and the features are open_clip's.
    found = load_backbone(backbone)
    size = model.visual.image_size if isinstance(model.visual.image_size, int) else model.visual.image_size[0]
    assert found.pixels == pixels and found.size == size and norm_parameters(found.visual)
    assert found.tau == pytest.approx(model.logit_scale.exp().item())
    tokens = found.tokenizer(["a photo of a red car.", "road"])
    assert tokens.shape == (2, context)
    with torch.no_grad():
        texts = model.encode_text(tokens)
        assert found.width == texts.shape[1] and torch.equal(found.text(tokens), texts)

        # An image goes all the way through a test like through open_clip's own preparation.
        trainer = build("CuPL", data, backbone, tmp_path / "zero", seed=1)
        facts = {"mean": pixels.mean, "std": pixels.std, "interpolation": pixels.interpolation}
        prepare = open_clip.image_transform(size, is_train=False, resize_mode=pixels.resize, **facts)
        images = [Image.open(item.impath).convert("RGB") for item in trainer.dm.dataset.test]
        seen = torch.cat([batch["img"] for batch in trainer.test_loader])
        torch.testing.assert_close(seen, torch.stack([prepare(image) for image in images]), atol=1e-5, rtol=0)

    # FAIR: two epochs, killed after the first and resumed to the same end, and predicted from.
    out, opts = tmp_path / "out", ("OPTIM.MAX_EPOCH", "2", "TRAIN.CHECKPOINT_FREQ", "1", *CROPS)
    if name in RESIZED and not full:
        opts += ("MODEL.BACKBONE.RESIZE", "True", "INPUT.SIZE", str((RESIZED[name],) * 2))
    first = run("FAIR", data, backbone, out, *opts)
    end = checkpoint(out, "FAIR", 2)
    assert end["prediction"]["resize"] == pixels.resize
    (out / "results.json").unlink()
    (out / "fair/model.pth.tar-2").unlink()
    (out / "fair/checkpoint").write_text("model.pth.tar-1\n")
    again = run("FAIR", data, backbone, out, *opts)
    assert same(checkpoint(out, "FAIR", 2)["state_dict"], end["state_dict"])
    assert untimed(again["epochs"]) == untimed(first["epochs"])
    predictor = Predictor.load(out)
    rows = (out / "predictions.csv").read_text().splitlines()[1:]
    images = [data / Path(row.split(",")[0]).name for row in rows]
    assert [predictor.top(image, 1)[0][0] for image in images] == [row.split(",")[2] for row in rows]

    # Out again, to where it came from.
    if name not in RESIZED or full:
        assert export([str(out), "--to", "open_clip", "--out", str(tmp_path / "exported")]) == 0
        exported = open_clip.create_model(f"local-dir:{tmp_path / 'exported'}").eval()
        with torch.no_grad():
            x = torch.randn(2, 3, size, size)
            features = torch.nn.functional.normalize(exported.encode_image(x), dim=1)
            torch.testing.assert_close(features, predictor.model.encode(x), atol=1e-5, rtol=0)
            torch.testing.assert_close(exported.encode_text(tokens), texts, atol=1e-5, rtol=0)


def test_squashed_views_are_of_the_whole_image():
    """The first view of a test is what open_clip would make of the image; crops keep its proportions."""
    image = Image.new("RGB", (60, 40))
    boxes = RandomCrops(32, 3, 0.5, 0.9, squash=True).boxes(*image.size)
    assert boxes[0] == (0, 0, 60, 40)
    for left, upper, right, lower in boxes[1:]:
        assert (right - left) / (lower - upper) == pytest.approx(60 / 40, abs=0.1)
        assert 0 <= left < right <= 60 and 0 <= upper < lower <= 40


def test_a_file_of_weights(tmp_path):
    (tmp_path / "toy-ViT.json").write_text(
        json.dumps({"embed_dim": 32, "vision_cfg": OWN_VIT, "text_cfg": {"layers": 1, "width": 64, "heads": 1}})
    )
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    model = open_clip.create_model("toy-ViT").eval()
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "m.pt")
    name, x = f"open_clip:toy-ViT/{tmp_path / 'm.pt'}", torch.randn(2, 3, 64, 64)
    found = load_backbone(name)
    assert found.pixels == CLIP_PIXELS and torch.equal(found.visual(x), model.visual(x))
    quick = load_backbone(name, options=Options(activation="quick_gelu"))
    assert not torch.equal(quick.visual(x), found.visual(x)) and quick.fingerprint != found.fingerprint
    larger = load_backbone(name, options=Options(size=96))
    assert larger.size == 96 and larger.visual(torch.zeros(1, 3, 96, 96)).shape == (1, 32)
    with pytest.raises(UserError, match="HEADS"):
        load_backbone(name, options=Options(heads=(2, 2)))
    state = model.state_dict() | {"visual.proj": torch.full((64, 32), float("nan"))}
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(UserError, match="values in visual.proj are not finite"):
        load_backbone(f"open_clip:toy-ViT/{tmp_path / 'nan.pt'}")
    torch.save({"visual.proj": torch.zeros(3)}, tmp_path / "part.pt")
    with pytest.raises(UserError, match="part.pt does not fit open_clip's toy-ViT"):
        load_backbone(f"open_clip:toy-ViT/{tmp_path / 'part.pt'}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("open_clip:ViT-B-99/laion2b_e16", "open_clip has no 'ViT-B-99'. It has ViT-B-"),
        ("open_clip:ViT-B-32", "says no weights: give open_clip:ViT-B-32/TAG or open_clip:ViT-B-32/FILE. Tags: openai"),
        ("open_clip:ViT-B-32/nothing", "nothing is neither a tag of ViT-B-32 nor a file"),
        ("local-dir:/nowhere", "there is no /nowhere/open_clip_config.json"),
    ],
)
def test_what_is_not_there_is_said(name, message):
    for function in (pixels_of, load_backbone):
        with pytest.raises(UserError) as error:
            function(name)
        assert message in str(error.value)


def test_what_cannot_be_downloaded(monkeypatch, tmp_path):
    """Without a network: which file is missing, and where to put it."""
    import huggingface_hub

    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UserError, match="hf-hub:imageomics/bioclip-2.*Download the repository.*local-dir:FOLDER"):
        pixels_of("hf-hub:imageomics/bioclip-2")
    monkeypatch.setattr(open_clip.factory, "download_pretrained", fail)
    with pytest.raises(UserError, match="its weights cannot be had.*open_clip:NAME/FILE"):
        load_backbone("open_clip:RN50/yfcc15m")
    monkeypatch.setattr(open_clip, "get_tokenizer", fail)
    with pytest.raises(UserError, match="the tokenizer cannot be had.*local-dir:FOLDER"):
        OpenClipTokenizer("ViT-B-16-SigLIP2", "open_clip:ViT-B-16-SigLIP2/webli")


def test_methods_that_need_openais_modules_say_so_first(data, tmp_path, capsys):
    for trainer in ("UPL", "LaFTer", "MUST", "microCLIP"):
        argv = arguments(trainer, data, "open_clip:ViT-B-32/laion2b_e16", tmp_path / trainer)
        check_refused(argv, "needs a CLIP in OpenAI's layout", capsys)
