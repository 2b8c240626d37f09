"""Files of CLIP weights, in the forms that people have them, as one state dict in OpenAI's layout.

A TorchScript archive (OpenAI's), a state dict saved by torch, bare or in a wrapper, a .safetensors file, or Hugging
Face's layout (Transformers' CLIPModel), as a file or a folder. Nothing but tensors is read: no pickled object is built.
"""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fairclip.backbones.architecture import check_finite
from fairclip.backbones.hugging_face import from_hugging_face, is_hugging_face
from fairclip.core.errors import UserError, require
from fairclip.core.reading import in_a_line, read_json
from fairclip.core.safetensors_files import read_safetensors
from fairclip.core.tensor_files import check_zip

WRAPPERS = ("state_dict", "model", "model_state_dict", "module")  # keys under which people keep a state dict
PREFIXES = ("module.", "model.", "clip_model.", "_orig_mod.")  # what wrapping a module puts before all names
FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")  # of a Hugging Face folder, the first that is there


class Weights(NamedTuple):
    """A state dict in OpenAI's layout, and what its file says besides."""

    state: dict[str, Tensor]
    heads: tuple[int, ...]  # of the image and the text tower; (): not said
    activation: str  # "": not said


def read_weights(path: Path) -> Weights:
    """The weights in a file, or in a Hugging Face folder.

    Raises:
        UserError: none of the forms above, or values that are not finite. The message says what the file is.
    """
    file = path
    if path.is_dir():
        file = next((path / name for name in FOLDER_FILES if (path / name).is_file()), path)
        require(file != path, f"{path} is a folder without weights: expected {' or '.join(FOLDER_FILES)} in it")
    found = Weights(read_state(file), (), "")
    if is_hugging_face(found.state):
        found = Weights(*from_hugging_face(found.state, _read_config(file.with_name("config.json")), str(path)))
    check_finite(found.state, str(path))
    return found


def read_state(file: Path) -> dict[str, Tensor]:
    """The state dict in a file, under the names that it has there; errors as of ``read_weights``."""
    return _unwrapped(_read(file), file)


def _read(file: Path) -> object:
    """What a file holds, tensors alone."""
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    try:
        if zipfile.is_zipfile(file):
            check_zip(file)
        if _is_torchscript(file):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch.jit is deprecated, OpenAI's files remain
                return torch.jit.load(str(file), map_location="cpu").state_dict()
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file leads into nearly any
        if _is_pickle(file) and isinstance(error, pickle.UnpicklingError):
            raise UserError(
                f"{file} holds pickled objects besides tensors, and those are not read, since they could run anything. "
                "Save its state dict: torch.save(model.state_dict(), FILE)"
            ) from error
        reason = in_a_line(error)
        raise UserError(
            f"{file} is neither a TorchScript archive nor a state dict of tensors, nor a .safetensors file: {reason}"
        ) from error


def _is_pickle(file: Path) -> bool:
    """Whether torch or pickle wrote it."""
    with file.open("rb") as start:
        return zipfile.is_zipfile(file) or start.read(1) == b"\x80"


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _unwrapped(content: object, file: Path) -> dict[str, Tensor]:
    """The state dict in what a file holds, without the prefix that all its names share."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{file} holds no state dict (a mapping of parameter names to tensors)")
    state = {str(name): tensor for name, tensor in content.items()}
    while state and (prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), "")):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _read_config(file: Path) -> dict[str, object]:
    """What a file of JSON holds; nothing where there is no file."""
    return read_json(file, "a config of Transformers") if file.is_file() else {}
