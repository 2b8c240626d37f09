"""The adapted CLIP in the layouts that other software reads. Each function writes into a folder and returns its files.

All of them write the image tower as it was trained, and the text tower and the temperature as they were.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairclip.backbones.hugging_face import config_of, to_hugging_face
from fairclip.backbones.network import CLIP
from fairclip.core.errors import UserError, require
from fairclip.export.classifier import Classifier

Facts = Mapping[str, Any]  # of the images: size, mean, std, interpolation
PIXELS = ("mean", "std", "interpolation")


def openai(model: CLIP, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """A state dict for `clip.load` and `clip.build_model`."""
    torch.save(plain(model.state_dict()), folder / "model.pt")
    return ["model.pt"]


def safetensors(model: CLIP, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """The same tensors under the same names, as .safetensors."""
    save_tensors(model.state_dict(), folder / "model.safetensors")
    return ["model.safetensors"]


def open_clip(model: CLIP, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """A folder for `open_clip.create_model("local-dir:FOLDER")`."""
    a = model.architecture
    vision: dict[str, Any] = {"image_size": a.side}
    if a.vision:
        vision |= {"layers": a.vision.layers, "width": a.vision.width, "patch_size": a.patch}
        vision["head_width"] = a.vision.width // a.vision.heads
    else:
        vision |= {"layers": list(a.blocks), "width": a.stem, "patch_size": None}
    text = {"context_length": a.context, "vocab_size": a.vocabulary}
    text |= {"width": a.text.width, "heads": a.text.heads, "layers": a.text.layers}
    config = {
        "model_cfg": {
            "embed_dim": a.features,
            "quick_gelu": a.activation == "quick_gelu",
            "vision_cfg": vision,
            "text_cfg": text,
        },
        "preprocess_cfg": {"resize_mode": "shortest", **{name: facts[name] for name in PIXELS}},
    }
    write_json(config, folder / "open_clip_config.json")
    save_tensors(model.state_dict(), folder / "open_clip_model.safetensors")
    return ["open_clip_config.json", "open_clip_model.safetensors"]


def hugging_face(model: CLIP, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """A folder for Transformers' `CLIPModel.from_pretrained(FOLDER)`. Vision Transformers only.

    Raises:
        UserError: a ResNet.
    """
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
    save_tensors(to_hugging_face(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
    return ["config.json", "preprocessor_config.json", "model.safetensors"]


def torchscript(model: CLIP | None, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
    """The classifier by itself, for `torch.jit.load`: images [B, 3, S, S] -> features [B, d] and logits [B, K]."""
    with torch.no_grad():
        traced = torch.jit.trace(classifier, torch.zeros(2, 3, facts["size"], facts["size"]), check_trace=False)
    traced.save(folder / "classifier.ts")
    return ["classifier.ts"]


def onnx(model: CLIP | None, classifier: Classifier, facts: Facts, folder: Path) -> list[str]:
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


Layout = Callable[..., list[str]]  # of a CLIP (None: of another backbone), a classifier, facts of images and a folder
LAYOUTS: dict[str, Layout] = {
    "openai": openai,
    "open_clip": open_clip,
    "hf": hugging_face,
    "safetensors": safetensors,
    "onnx": onnx,
    "torchscript": torchscript,
}
WITHOUT_TEXT = ("onnx", "torchscript")  # which hold the classifier alone, of whatever backbone


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with memory of its own."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def save_tensors(state: Mapping[str, Tensor], file: Path, about: dict[str, str] | None = None) -> None:
    """Raises UserError where the package safetensors is missing."""
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise UserError("this layout needs the package safetensors: pip install safetensors") from error
    save_file(plain(state), file, about)


def write_json(content: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
