"""CLIPs in OpenAI's layout: by OpenAI name, by the name of a bundled backbone, or from a file.

The network is our own. Of the `clip` package, whichever one `from clip import clip` finds (clip-anytorch, OpenAI's own,
or the `clip/` folder of a CoOp checkout), only the tokenizer and the list of downloads are used.
"""

import difflib
import os
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fairclip.backbones.architecture import build_clip, is_usual, resize_positions
from fairclip.backbones.backbone import NO_OPTIONS, Backbone, Options, TextTower, UnknownBackbone
from fairclip.backbones.network import CLIP
from fairclip.backbones.pixels import CLIP_PIXELS as PIXELS
from fairclip.backbones.weight_files import read_weights
from fairclip.core.download import checksum_of, download
from fairclip.core.errors import UserError
from fairclip.core.log import log
from fairclip.core.reading import reading

# Backbones that come with the repository, and the SHA-256 of their files.
WEIGHTS = Path(__file__).resolve().parent / "weights"
BUNDLED = {
    "tiny": "aa4c69ff71f3a55f6eeffad04943f7c423c0c0a93e8990eb20f6d0942d976328",
    "tiny_rn": "211d285b41f5831e7a50d988ca1b08b0dbf5603e0fce896dd2040fd31ef79301",
}

USED = ("tokenize", "_tokenizer", "_MODELS", "_download")  # of the clip package
INSTALL = "pip install clip-anytorch"
CLIP_CACHE = "~/.cache/clip"  # where the clip package itself keeps its downloads


# -- Models ------------------------------------------------------------------------------------------------------------


def is_known(name: str) -> bool:
    """Whether this is the name of OpenAI's or of a bundled backbone, or of a file or folder that is there."""
    try:
        _locate(name, clip_module())
    except UnknownBackbone:
        return False
    return True


def make(name: str, options: Options = NO_OPTIONS) -> Backbone:
    """The backbone of this name, on the CPU; errors as of ``load_clip``."""
    model = load_clip(name, options=options)
    return Backbone(
        name=name,
        visual=model.visual,
        text=TextTower(model),
        tokenizer=ClipTokenizer(model.context_length),
        tau=model.logit_scale.exp().item(),
        size=int(model.visual.input_resolution),
        width=model.architecture.features,
        pixels=PIXELS,
        facts="" if is_usual(model.architecture) else repr(model.architecture),
        options=options,
        clip=model,
    )


def load_clip(name: str, device: str | torch.device = "cpu", options: Options = NO_OPTIONS) -> CLIP:
    """Load a CLIP model in float32 and evaluation mode.

    Args:
        name: an OpenAI name (`ViT-B/32`, `RN50`, ...), a bundled one (`tiny`), or the path of a checkpoint, in one of
            the forms of ``fairclip.backbones.weight_files``. What neither a file nor ``options`` say of heads and
            activation is OpenAI's: 64 channels a head, QuickGELU.
        device: where to put the model.
        options: what is told about it.

    Raises:
        UnknownBackbone: neither a known name nor a file.
        UserError: failed download, or a file that is not a CLIP checkpoint.
    """
    path = _fetch(_locate(name, clip_module()))
    with reading(path, "the weights of a CLIP"):
        state, heads, activation = read_weights(Path(path))
        if options.size:
            state = resize_positions(state, options.size, path)
        model = build_clip(state, path, options.heads or heads, options.activation or activation)
    return model.to(device)


class ClipTokenizer:
    """Texts -> token ids [M, T] by CLIP's own tokenizer. Of texts that are too long the first is named in a warning."""

    def __init__(self, context: int) -> None:
        self.context = context

    def __call__(self, texts: Sequence[str]) -> Tensor:
        clip, texts = clip_module(), list(texts)
        try:
            return clip.tokenize(texts, self.context)
        except RuntimeError:  # some text is too long
            room = self.context - 2  # start and end tokens
            long = [text for text in texts if len(clip._tokenizer.encode(text)) > room]
            log.warning(
                f"{len(long)} of {len(texts)} texts exceed CLIP's {self.context} tokens and are cut, "
                f"the first being '{long[0][:60]}...'"
            )
            return clip.tokenize(texts, self.context, truncate=True)


# -- The clip package --------------------------------------------------------------------------------------------------


def clip_module() -> ModuleType:
    """`clip.clip`, the module that CoOp code gets by `from clip import clip`.

    Raises:
        UserError: there is none, or what is called clip is something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pkg_resources announces its own removal on every import
            from clip import clip
    except Exception as error:  # another clip.py may do anything
        if (other := what_is_in_the_way()) or not isinstance(error, ImportError):
            raise UserError(
                f"`from clip import clip` fails ({type(error).__name__}: {error}): {other or INSTALL}"
            ) from error
        if "pkg_resources" in str(error):
            raise UserError(
                "the clip package imports pkg_resources, which setuptools 81 and later no longer provide: "
                "pip install 'setuptools<81'"
            ) from error
        raise UserError(f"cannot import the clip package ({error}): {INSTALL}") from error
    if lacking := [name for name in USED if not hasattr(clip, name)]:
        raise UserError(f"{clip.__file__} has no {', '.join(lacking)}: {what_is_in_the_way() or INSTALL}")
    return clip


def what_is_in_the_way() -> str:
    """What to do about a file or package that `import clip` finds and that is not OpenAI's; "" if it finds that, or
    nothing."""
    try:
        place = Path(getattr(find_spec("clip"), "origin", None) or "")
    except (ValueError, ImportError):  # of a module that was put there by hand
        place = Path()
    package = place.name == "__init__.py"
    if not place.name or (package and (place.parent / "simple_tokenizer.py").is_file()):
        return ""
    what = place.parent if package else place
    if {"site-packages", "dist-packages"} & set(place.parts):
        return f"{what} is another package called clip. Put CLIP's there: pip install --force-reinstall clip-anytorch"
    return f"{what} is in the way of the package clip. Rename or remove it"


def share_with_clip() -> None:
    """Teach the clip package our backbones and our downloader.

    Trainers written for CoOp take a backbone by `clip._download(clip._MODELS[name])`: after this call that finds the
    bundled backbones and checkpoint files too, and never leaves half a file behind. Calling it again changes nothing.
    """
    clip: Any = clip_module()  # a module whose names are replaced
    clip._MODELS = _Sources(clip._MODELS, **{name: str(WEIGHTS / f"{name}.pt") for name in BUNDLED})
    clip._download = _fetch


class _Sources(dict):
    """Backbone name -> URL or path, in which the path of a file stands for itself."""

    def __missing__(self, name: str) -> str:
        return _locate(name, clip_module())


def _locate(name: str, clip: ModuleType) -> str:
    """URL or path of the backbone called `name`."""
    if name in BUNDLED:
        return str(WEIGHTS / f"{name}.pt")
    if name in clip._MODELS:
        return clip._MODELS[name]
    path = Path(name).expanduser()
    if path.is_file() or (path / "config.json").is_file():  # a folder of Hugging Face's
        return str(path)
    known = sorted({*BUNDLED, *clip._MODELS})
    close = difflib.get_close_matches(name, known, n=1)
    raise UnknownBackbone(
        f"MODEL.BACKBONE.NAME '{name}' is neither a known backbone nor a file."
        + (f" Did you mean '{close[0]}'?" if close else "")
        + f" Known: {', '.join(known)}; or give the path of a CLIP checkpoint."
    )


def weights_of(name: str) -> Path | None:
    """The file or folder of weights on disk that a name stands for, one that comes with the project among them. None
    for other names, also for OpenAI's: of a download the content is known."""
    try:
        source = _locate(name, clip_module())
    except UnknownBackbone:
        return None
    return Path(source) if Path(source).exists() else None


def _fetch(source: str, root: str | None = None) -> str:
    """Path of the file behind a URL of OpenAI's (the folder in it is the file's SHA-256) or a local path.

    Stands in for `clip._download`, hence `root`: a folder other than CLIP's default one is obeyed.
    """
    if source.startswith(("http://", "https://")):
        if root is None or root == os.path.expanduser(CLIP_CACHE):
            root = os.environ.get("FAIR_CACHE") or CLIP_CACHE
        folder = Path(root).expanduser()
        *_, sha256, filename = source.split("/")
        if not (folder / filename).is_file():
            log.info(f"Downloading {filename} to {folder}, this once")
        return str(download(source, folder / filename, sha256))
    path = Path(source)
    if path.parent == WEIGHTS and path.stem in BUNDLED:
        if not path.is_file():
            raise UserError(f"the bundled backbone '{path.stem}' has no file at {path}: the checkout is incomplete")
        if checksum_of(path) != BUNDLED[path.stem]:
            raise UserError(f"{path} is damaged: its SHA-256 is not the recorded one. Check it out again.")
    return source
