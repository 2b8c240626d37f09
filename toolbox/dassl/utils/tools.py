"""Files, seeds, images, messages."""

from __future__ import annotations

import difflib
import errno
import json
import logging
import os
import platform
import random
import sys
import urllib.request
from collections.abc import Iterable

import numpy as np
import PIL
import torch
from PIL import Image

log = logging.getLogger("dassl")

__all__ = [
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "listdir_nohidden",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]


def mkdir_if_missing(dirname: str) -> None:
    """Create a folder and its parents; an empty name (the current folder) is fine."""
    if dirname:
        os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    """Whether `fpath` is a file; says so if it is not."""
    found = os.path.isfile(fpath)
    if not found:
        log.info(f'No file found at "{fpath}"')
    return found


def read_json(fpath: str) -> object:
    with open(fpath, encoding="utf-8") as file:
        return json.load(file)


def write_json(obj: object, fpath: str) -> None:
    """Write `obj` as JSON; the file appears whole or not at all."""
    mkdir_if_missing(os.path.dirname(fpath))
    partial = f"{fpath}.{os.getpid()}.part"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))
    os.replace(partial, fpath)


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    """Names in a folder but for those starting with a dot."""
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(names) if sort else names


def read_image(path: str) -> Image.Image:
    """An image as RGB.

    Raises:
        FileNotFoundError: no such file.
        OSError: not an image, or a damaged one.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(errno.ENOENT, "No image found", path)
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise OSError(f'Cannot read the image "{path}": {error}') from error


def download_url(url: str, dst: str) -> None:
    """Download to `dst`; the file appears whole or not at all."""
    log.info(f'* Downloading "{url}" to "{dst}"')
    mkdir_if_missing(os.path.dirname(dst))
    partial = f"{dst}.{os.getpid()}.part"
    urllib.request.urlretrieve(url, partial)
    os.replace(partial, dst)


def set_random_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def collect_env_info() -> str:
    """Versions and hardware, one fact a line."""
    try:
        import torchvision

        vision = torchvision.__version__
    except ImportError:
        vision = "not installed"
    lines = [
        f"Python: {sys.version.split()[0]} ({platform.platform()})",
        f"PyTorch: {torch.__version__}",
        f"torchvision: {vision}",
        f"NumPy: {np.__version__}",
        f"Pillow: {PIL.__version__}",
        f"CPU: {os.cpu_count()} cores, {torch.get_num_threads()} torch threads",
        f"CUDA: {torch.version.cuda or 'not in this build'}, cuDNN: {torch.backends.cudnn.version()}",
    ]
    lines += [f"GPU {i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return "\n".join(lines)


def get_most_similar_str_to_a_from_b(a: str, b: Iterable[str]) -> str | None:
    """The string of `b` closest to `a`, ignoring case; None if `b` is empty."""
    return max(b, key=lambda s: difflib.SequenceMatcher(None, a.lower(), s.lower()).ratio(), default=None)


def check_availability(requested: str, available: Iterable[str]) -> None:
    """Check that `requested` is one of `available`.

    Raises:
        ValueError: it is not; the message lists the choices and the closest one.
    """
    available = list(available)
    if requested in available:
        return
    closest = get_most_similar_str_to_a_from_b(str(requested), available)
    hint = f' (do you mean "{closest}"?)' if closest else ""
    raise ValueError(
        f'The requested one is expected to belong to {sorted(available)}, but got "{requested}"{hint}. '
        f'If "{requested}" is your own: did you import the module that registers it?'
    )


def tolist_if_not(x: object) -> list:
    return x if isinstance(x, list) else [x]
