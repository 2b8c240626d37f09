"""Backbones of open_clip (the optional package open_clip_torch): SigLIP, EVA, MobileCLIP, PE, BioCLIP, ...

    open_clip:ViT-B-16-SigLIP2/webli     an architecture and the tag of its published weights
    open_clip:ViT-B-32//data/model.pt    an architecture and a file of weights, here /data/model.pt
    hf-hub:imageomics/bioclip-2          a repository of the Hugging Face hub
    local-dir:/data/bioclip-2            the same as a folder: open_clip_config.json and weights

Weights are read as tensors alone. What images need (statistics, interpolation, squashed or not) comes with the tag, the
repository or the folder.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairclip.backbones.architecture import check_finite
from fairclip.backbones.backbone import NO_OPTIONS, Backbone, Options, TextTower
from fairclip.backbones.pixels import CLIP_PIXELS, RESIZES, Pixels
from fairclip.backbones.weight_files import read_state
from fairclip.core.errors import UserError, few, require

PREFIX, HUB, FOLDER = "open_clip:", "hf-hub:", "local-dir:"
CONFIG = "open_clip_config.json"  # of a repository and of a folder
FILE = "open_clip_model.safetensors"  # of weights, there
ACTIVATIONS = ("", "gelu", "quick_gelu")


class Source(NamedTuple):
    """What a name stands for."""

    model: str  # what open_clip calls it
    config: Mapping[str, Any]  # of the architecture
    images: Mapping[str, Any]  # what is said of them: mean, std, interpolation, resize_mode
    weights: str = ""  # tag or file; "": they are in the repository or the folder


def is_name(name: str) -> bool:
    return name.startswith((PREFIX, HUB, FOLDER))


def pixels_of(name: str) -> Pixels:
    """What the images of a backbone need; no weights are loaded.

    Raises:
        UserError: open_clip is not installed, or knows nothing of this name.
    """
    return _pixels(_find(name).images, name)


def make(name: str, options: Options = NO_OPTIONS) -> Backbone:
    """The backbone of this name, on the CPU.

    Raises:
        UserError: as of ``pixels_of``; weights that cannot be had, or are no tensors of this architecture.
    """
    require(not options.heads, f"MODEL.BACKBONE.HEADS: {name} has those of open_clip's config")
    require(
        options.activation in ACTIVATIONS,
        f"MODEL.BACKBONE.ACTIVATION {options.activation!r}: choose gelu or quick_gelu",
    )
    source = _find(name)
    quick_gelu = options.activation == "quick_gelu" or (not options.activation and source.images.get("quick_gelu"))
    config = {**source.config, "quick_gelu": True} if quick_gelu else source.config
    model = _load(source, name, options.size, bool(quick_gelu))
    visual = model.visual
    require(isinstance(visual, nn.Module), f"{name} has no image tower")
    tokenizer = OpenClipTokenizer(source.model, name)
    with torch.no_grad(), _said(f"{name} encodes no texts as a CLIP does"):
        width = model.encode_text(tokenizer(["a photo"])).shape[1]
    return Backbone(
        name=name,
        visual=visual,
        text=TextTower(model),
        tokenizer=tokenizer,
        tau=model.logit_scale.exp().item(),
        size=_side(visual.image_size, name),
        width=width,
        pixels=_pixels(source.images, name),
        facts=json.dumps([config, options], sort_keys=True, default=str),
        options=options,
        config=config,
    )


class OpenClipTokenizer:
    """Texts -> token ids [M, T], as open_clip makes them for a model."""

    def __init__(self, model: str, name: str) -> None:
        help_ = (
            "the tokenizer cannot be had. Those that are not CLIP's come from the Hugging Face hub: download the files "
            f"of the tokenizer where there is a network, put them beside {CONFIG} and the weights into one folder, "
            f"and name it {FOLDER}FOLDER"
        )
        with _said(f"{name}: {help_}"):
            self.tokenize = _open_clip().get_tokenizer(model)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return self.tokenize(list(texts))


# -- What a name stands for --------------------------------------------------------------------------------------------


def _find(name: str) -> Source:
    if name.startswith(PREFIX):
        return _published(name)
    if name.startswith(FOLDER):
        file = Path(name.removeprefix(FOLDER)).expanduser() / CONFIG
        require(file.is_file(), f"MODEL.BACKBONE.NAME {name}: there is no {file}")
    else:
        with _said(
            f"{name}: its {CONFIG} cannot be had from the Hugging Face hub. Download the repository where there "
            f"is a network, and name the folder: {FOLDER}FOLDER"
        ):
            from huggingface_hub import hf_hub_download

            file = Path(hf_hub_download(name.removeprefix(HUB), CONFIG))
    with _said(f"{file} is no config of open_clip"):
        content = json.loads(file.read_text(encoding="utf-8"))
        source = Source(name, content["model_cfg"], content.get("preprocess_cfg", {}))
    _open_clip()
    return source


def _published(name: str) -> Source:
    """Of an architecture by its name, and a tag or a file."""
    open_clip = _open_clip()
    model, _, weights = name.removeprefix(PREFIX).partition("/")
    config, tags = open_clip.get_model_config(model), open_clip.list_pretrained_tags_by_model(model)
    if config is None:
        near = [known for known in open_clip.list_models() if known.lower().startswith(model.lower()[:6])]
        raise UserError(
            f"MODEL.BACKBONE.NAME {name}: open_clip has no {model!r}. It has {few(near or open_clip.list_models(), 8)}"
        )
    form = f"{PREFIX}{model}/TAG or {PREFIX}{model}/FILE"
    require(weights, f"MODEL.BACKBONE.NAME {name} says no weights: give {form}. Tags: {few(tags, 8) or 'none'}")
    if open_clip.is_pretrained_cfg(model, weights):
        return Source(model, config, open_clip.get_pretrained_cfg(model, weights), weights)
    file = Path(weights).expanduser()
    require(
        file.is_file(),
        f"MODEL.BACKBONE.NAME {name}: {weights} is neither a tag of {model} nor a file. Tags: {few(tags, 8) or 'none'}",
    )
    # A file says nothing of its images: they are those of all that is published of the architecture.
    known = {_pixels(open_clip.get_pretrained_cfg(model, tag), name) for tag in tags}
    require(
        len(known) < 2,
        f"{model} is published with different pixel statistics: put {file} and {CONFIG} into one folder, and name it "
        f"{FOLDER}FOLDER",
    )
    pixels = next(iter(known), CLIP_PIXELS)
    return Source(model, config, vars(pixels) | {"resize_mode": pixels.resize}, str(file))


def _pixels(images: Mapping[str, Any], name: str) -> Pixels:
    """CLIP's, but for what is said."""
    pixels = Pixels(
        tuple(images.get("mean") or CLIP_PIXELS.mean),
        tuple(images.get("std") or CLIP_PIXELS.std),
        images.get("interpolation") or CLIP_PIXELS.interpolation,
        images.get("resize_mode") or CLIP_PIXELS.resize,
    )
    require(
        pixels.resize in RESIZES,
        f"{name} wants images resized by {pixels.resize!r}, and known are {', '.join(RESIZES)}",
    )
    return pixels


# -- Weights -----------------------------------------------------------------------------------------------------------


def _load(source: Source, name: str, size: int, quick_gelu: bool) -> Any:
    """Open_clip's model with its weights, in float32."""
    open_clip = _open_clip()
    settings: dict[str, Any] = {"force_quick_gelu": quick_gelu, "weights_only": True}
    if size:
        settings["force_image_size"] = size
    file = Path(source.weights).expanduser() if source.weights else None
    if file and file.is_file():
        with _said(f"{name}: open_clip cannot build {source.model}"):
            model = open_clip.create_model(source.model, pretrained_text=False, **settings)
        _fill(model, file, source.model)
    else:
        help_ = (
            f"download them elsewhere, and give {PREFIX}NAME/FILE, or a folder with {CONFIG} and {FILE}: {FOLDER}FOLDER"
        )
        with _said(f"{name}: its weights cannot be had. Where there is no network, {help_}"):
            model = open_clip.create_model(
                source.model, pretrained=source.weights or None, require_pretrained=True, **settings
            )
        check_finite(model.state_dict(), name)
    require(
        not hasattr(model, "text_decoder"),
        f"{name} is a CoCa, whose image tower gives more than features: not supported",
    )
    return model.eval()


def _fill(model: nn.Module, file: Path, architecture: str) -> None:
    """Load a file of weights, in open_clip's layout or in one that it knows how to convert."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    state = read_state(file)
    check_finite(state, str(file))
    with _said(f"{file} does not fit open_clip's {architecture}"):
        state = convert_state_dict(model, state)
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
        model.load_state_dict(state)


# -- The package -------------------------------------------------------------------------------------------------------


def _open_clip() -> ModuleType:
    try:
        import open_clip
    except ImportError as error:
        raise UserError(f"backbones of open_clip need a package ({error}): pip install open_clip_torch") from error
    return open_clip


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Whatever a foreign package raises is one message, and what it logs and warns of on the way is not shown."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            yield
    except Exception as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise UserError(f"{what} ({type(error).__name__}: {reason})") from error
    finally:
        logging.disable(logging.NOTSET)


def _side(size: int | Sequence[int], name: str) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    require(len(sides) == 1, f"{name} takes images of {size} pixels, and only squares are supported")
    return int(sides.pop())
