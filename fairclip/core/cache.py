"""What was computed, kept on disk for later runs. Each file has a digest: one that is damaged is made anew."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from fairclip.core.distributed import gather_objects, is_main
from fairclip.core.files import atomic
from fairclip.core.log import log

DIGEST = 32  # bytes of a SHA-256


def cache_folder(kind: str) -> Path:
    """$FAIR_CACHE or ~/.cache/fair, and `kind` in it. It need not exist, and may not be writable."""
    return Path(os.environ.get("FAIR_CACHE") or "~/.cache/fair").expanduser() / kind


def facts_of_files(files: Sequence[str]) -> Iterator[object]:
    """Path, size and time of change of each file, one after the other.

    Not a hash of the content: that would read every byte of a data set in each run, often over a network, to catch
    what make does not catch either (other content of the same size under the same time in nanoseconds).
    """
    for file in files:
        status = os.stat(file)
        yield from (file, status.st_size, status.st_mtime_ns)


# -- Features ----------------------------------------------------------------------------------------------------------


def cached(
    kind: str, key: str, count: int, compute: Callable[[], Tensor], together: bool = False
) -> tuple[Tensor, float]:
    """Features, float32, [count, ...], read from the cache if they are there, and the seconds that this saved; else
    computed and kept, and 0.

    They are plain numbers (.npy) with the seconds they took and a SHA-256, in the folder `kind` under `key`, which must
    tell apart all that they depend on. A file that is damaged is made anew, and a line says so; one that cannot be
    written costs time, nothing else. Of several processes the main one writes. Where they compute ``together``, they do
    so unless all could read.
    """
    file = cache_folder(kind) / f"{key}.npy"
    kept = _read(file, count)
    everywhere = all(gather_objects(kept is not None)) if together else True
    if kept is not None and everywhere:
        return kept
    start = time.time()
    features = compute()
    if not is_main():
        return features, 0.0
    try:
        with atomic(file) as path, open(path, "wb") as stream:
            hashed = Hashed(stream)
            np.save(hashed, features.cpu().numpy(), allow_pickle=False)
            np.save(hashed, np.float64(time.time() - start), allow_pickle=False)
            stream.write(hashed.digest.digest())
    except OSError:
        pass
    return features, 0.0


class Hashed:
    """A stream to write to, and the SHA-256 of what was written."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.digest = stream, hashlib.sha256()

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return self.stream.write(content)


def _read(file: Path, count: int) -> tuple[Tensor, float] | None:
    try:
        with open(file, "rb") as stream:
            if _is_whole(stream):  # only then are the sizes in it believed
                features = np.load(stream, allow_pickle=False)
                seconds = float(np.load(stream, allow_pickle=False))
                right = features.dtype == np.float32 and features.ndim >= 2 and len(features) == count
                if right and np.isfinite(features).all():
                    return torch.from_numpy(features), seconds
    except FileNotFoundError:
        return None
    except Exception:  # it fails in as many ways as it may be damaged, and all mean the same
        pass
    made_anew(file)
    return None


def _is_whole(stream: IO[bytes]) -> bool:
    """Whether the file ends with the SHA-256 of all before. Leaves the stream at the start."""
    left = stream.seek(0, os.SEEK_END) - DIGEST
    stream.seek(0)
    digest = hashlib.sha256()
    while left > 0 and (chunk := stream.read(min(left, 1 << 20))):
        digest.update(chunk)
        left -= len(chunk)
    whole = stream.read(DIGEST) == digest.digest()
    stream.seek(0)
    return whole


def made_anew(file: Path) -> None:
    if is_main():
        log.warning(f"{file} is damaged, or of an earlier version: it is made anew")


# -- Records in JSON ---------------------------------------------------------------------------------------------------


def keep_record(file: Path, content: dict[str, Any]) -> None:
    """Write a record with its digest. Where that fails, it is not kept."""
    try:
        with atomic(file) as path:
            path.write_text(json.dumps(content | {"sha256": _digest(content)}, indent=1), encoding="utf-8")
    except OSError:
        pass


def kept_record(file: Path) -> dict[str, Any] | None:
    """A record that ``keep_record`` wrote; None if there is none, or, as a line says, a damaged one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.pop("sha256") == _digest(content):
            return content
    except FileNotFoundError:
        return None
    except Exception:  # as above
        pass
    made_anew(file)
    return None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
