"""The adapted CLIP in the layouts that other software reads. Each function writes into a folder and returns its files.

All of them write the image tower as it was trained, and the text tower and the temperature as they were.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fairclip.backbones.backbone import Backbone
from fairclip.backbones.hugging_face import config_of, to_hugging_face
from fairclip.backbones.network import Architecture
from fairclip.core.errors import UserError, require
from fairclip.core.safetensors_files import plain, write_safetensors
from fairclip.export.classifier import Classifier

Facts = Mapping[str, Any]  # of the images: size, mean, std, interpolation, resize
PIXELS = ("mean", "std", "interpolation")


def openai(backbone: Backbone, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """A state dict for `clip.load` and `clip.build_model`."""
    torch.save(plain(backbone.openai.state_dict()), folder / "model.pt")
    return ["model.pt"]


def safetensors(backbone: Backbone, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """The same tensors under the same names, as .safetensors."""
    write_safetensors(backbone.openai.state_dict(), folder / "model.safetensors")
    return ["model.safetensors"]


def open_clip(backbone: Backbone, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """A folder for `open_clip.create_model("local-dir:FOLDER")`.

    Raises:
        UserError: neither OpenAI's layout nor an architecture of open_clip; one whose input was resized.
    """
    model, files = backbone.clip, ["open_clip_config.json", "open_clip_model.safetensors"]
    if model is None:
        require(
            backbone.config, f"{backbone.name} is neither a CLIP in OpenAI's layout nor an architecture of open_clip"
        )
        require(not backbone.options.size, "open_clip has no place for interpolated positions (MODEL.BACKBONE.RESIZE)")
        files += save_tokenizer(backbone, folder)
    config = {
        "model_cfg": openai_config(model.architecture) if model else backbone.config,
        "preprocess_cfg": {"resize_mode": facts["resize"], **{name: facts[name] for name in PIXELS}},
    }
    write_json(config, folder / files[0])
    write_safetensors((model or backbone.whole).state_dict(), folder / files[1])
    return files


def openai_config(a: Architecture) -> dict[str, Any]:
    """What open_clip builds such a CLIP from."""
    vision: dict[str, Any] = {"image_size": a.side}
    if a.vision:
        vision |= {"layers": a.vision.layers, "width": a.vision.width, "patch_size": a.patch}
        vision["head_width"] = a.vision.width // a.vision.heads
    else:
        vision |= {"layers": list(a.blocks), "width": a.stem, "patch_size": None}
    text = {"context_length": a.context, "vocab_size": a.vocabulary}
    text |= {"width": a.text.width, "heads": a.text.heads, "layers": a.text.layers}
    quick = a.activation == "quick_gelu"
    return {"embed_dim": a.features, "quick_gelu": quick, "vision_cfg": vision, "text_cfg": text}


def save_tokenizer(backbone: Backbone, folder: Path) -> list[str]:
    """The files of a tokenizer that is not CLIP's, which open_clip looks for beside the weights; their names."""
    save = getattr(getattr(backbone.tokenizer, "tokenize", None), "save_pretrained", None)
    if save is None:
        return []
    save(folder)
    return [path.name for path in sorted(folder.iterdir())]


def hugging_face(backbone: Backbone, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """A folder for Transformers' `CLIPModel.from_pretrained(FOLDER)`. Vision Transformers only.

    Raises:
        UserError: a ResNet.
    """
    model = backbone.openai
    require(model.architecture.vision, "Transformers' CLIPModel is a Vision Transformer: a ResNet has no place in it")
    write_json(config_of(model.architecture), folder / "config.json")
    images = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": facts["size"]},
        "resample": 3 if facts["interpolation"] == "bicubic" else 2,
        "do_center_crop": True,
        "crop_size": {"height": facts["size"], "width": facts["size"]},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(facts["mean"]),
        "image_std": list(facts["std"]),
    }
    write_json(images, folder / "preprocessor_config.json")
    write_safetensors(to_hugging_face(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
    return ["config.json", "preprocessor_config.json", "model.safetensors"]


def torchscript(backbone: Backbone, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """The classifier by itself, for `torch.jit.load`: images [B, 3, S, S] -> features [B, d] and logits [B, K]."""
    with torch.no_grad():
        traced = torch.jit.trace(classifier, torch.zeros(2, 3, facts["size"], facts["size"]), check_trace=False)
    traced.save(folder / "classifier.ts")
    return ["classifier.ts"]


def onnx(backbone: Backbone, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """The same for ONNX runtimes; any number of images.

    Raises:
        UserError: the packages onnx and onnxscript are not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"--to onnx needs two packages ({error}): pip install onnx onnxscript") from error
    example = torch.zeros(2, 3, facts["size"], facts["size"])
    torch.onnx.export(
        classifier,
        (example,),
        folder / "classifier.onnx",
        input_names=["images"],
        output_names=["features", "logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    return ["classifier.onnx"]


Layout = Callable[[Backbone, Classifier, Facts, Path], list[str]]
LAYOUTS: dict[str, Layout] = {
    "openai": openai,
    "open_clip": open_clip,
    "hf": hugging_face,
    "safetensors": safetensors,
    "onnx": onnx,
    "torchscript": torchscript,
}


def write_json(content: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
