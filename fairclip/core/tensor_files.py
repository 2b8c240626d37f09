"""Our files of tensors and plain data: written with a SHA-256 of their content, which is compared in reading."""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairclip.core.reading import reading

DIGEST = "sha256"  # its key in a file
ROOM = 2**24  # bytes that are never too many
THREADS = min(8, os.cpu_count() or 1)  # that compute digests side by side


def save_tensors(content: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain data (numbers, text, lists, dictionaries) by torch.save, with their digest."""
    torch.save({**content, DIGEST: digest_of(content)}, path)


def read_tensors(path: str | Path, what: str, advice: str = "") -> dict[str, Any]:
    """The content of such a file, on the CPU. Nothing but tensors and plain data is unpickled.

    Files from before there were digests are read too; of them, the checksums that zip files have are compared.

    Raises:
        UserError: whatever is wrong with the file.
    """
    with reading(path, what, advice):
        _check_archive(Path(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise ValueError("it holds something else")
        digest = content.pop(DIGEST, None)
        if digest is not None and digest != digest_of(content):
            raise ValueError("it is damaged, since its content has another SHA-256 than the one it was written with")
    return content


def _check_archive(path: Path) -> None:
    """Raises ValueError unless this is a whole zip file, as torch writes it."""
    if not path.is_file():
        raise ValueError("there is no such file")
    if not zipfile.is_zipfile(path):
        raise ValueError("torch did not write it, or it breaks off")
    check_zip(path)


def check_zip(path: Path) -> None:
    """Compare the checksums in a zip file, which torch does not. Raises ValueError for damage, and for what would take
    far more memory than the file."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > 2 * path.stat().st_size + ROOM:
            raise ValueError("it is compressed, and torch does not compress tensors")
        if damaged := archive.testzip():
            raise ValueError(f"it is damaged (in {damaged})")


def digest_of(content: object) -> str:
    """SHA-256 over tensors and plain data, nested in any way, the same on every device."""
    digest, tensors = hashlib.sha256(), list[Tensor]()
    _add(digest, content, tensors)
    many = sum(tensor.nbytes for tensor in tensors) > ROOM
    with ThreadPoolExecutor(THREADS) if many else nullcontext() as pool:
        for part in (pool.map if pool else map)(_digest_of_values, tensors):
            digest.update(part)
    return digest.hexdigest()


def _digest_of_values(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data).digest()


def _add(digest: Any, value: object, tensors: list[Tensor]) -> None:
    """Add plain data and the outlines of tensors to the digest. The tensors are gathered, as their values take time."""
    if isinstance(value, Tensor):
        digest.update(f"tensor {value.dtype} {tuple(value.shape)}\0".encode())
        tensors.append(value)
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}\0".encode())
        for key, item in value.items():
            _add(digest, key, tensors)
            _add(digest, item, tensors)
    elif isinstance(value, list | tuple):
        digest.update(f"{type(value).__name__} {len(value)}\0".encode())
        for item in value:
            _add(digest, item, tensors)
    else:
        digest.update(f"{value!r}\0".encode("utf-8", "backslashreplace"))


# -- Tests for rules ---------------------------------------------------------------------------------------------------


def are_tensors(value: object) -> bool:
    """Parameters by name: finite numbers."""
    return isinstance(value, Mapping) and all(isinstance(name, str) and is_finite(t) for name, t in value.items())


def is_finite(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(value.isfinite().all())


def are_vectors(value: object) -> bool:
    """[K, d]."""
    return isinstance(value, Tensor) and value.ndim == 2 and value.numel() > 0 and is_finite(value)
