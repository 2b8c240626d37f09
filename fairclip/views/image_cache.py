"""Decoded images, kept from one epoch to the next in memory or on disk, shared by all workers and processes.

Both kinds are a folder with a file per image; that of ``ram`` lies in the file system that Linux keeps in memory.
Writing to it fails like writing to a full disk, where a full memory segment would kill the process.
"""

import hashlib
import os
import shutil
import weakref
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from fairclip.core.cache import cache_folder
from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.core.log import log
from fairclip.views.loading import read_image, shrink

KINDS = ("none", "ram", "disk")
SHM = Path("/dev/shm")
HEADER = 5  # 64-bit numbers before the pixels: the file's time of change (ns) and size, height, width, and a checksum
BLOCK = 2**14  # bytes that a byte of the tally stands for
FULL = -1  # in place of an error number


def check_cache(kind: str, gigabytes: float) -> None:
    """Raises UserError for settings that cannot work here."""
    if kind not in KINDS:
        raise UserError(f"DATALOADER.CACHE {kind!r}: choose one of {', '.join(KINDS)}")
    if gigabytes <= 0:
        raise UserError(f"DATALOADER.CACHE_GB {gigabytes}: a limit is above 0; DATALOADER.CACHE none keeps nothing")
    if kind == "ram" and not SHM.is_dir():
        raise UserError(f"DATALOADER.CACHE ram: this machine has no {SHM}. Set it to disk or none")


class ImageCache:
    """RGB images by absolute path and ``side``, as long as the file has the same time of change and size.

    An image is kept shrunk to a short side of ``side`` pixels if that makes it smaller; the first reading gives what
    later ones do. What does not fit within the limit or on the disk is read from its file each time; one warning says
    so. Workers may be forked or spawned.

    Args:
        kind: "ram" (in ``SHM``, freed when the last process that holds it ends; if that is killed, when the next one
            starts) or "disk" (the cache folder's ``images/``, which stays).
        gigabytes: limit of the whole store, 10^9 bytes. In memory also half of what is free at the start.
        upright: how images are read, see ``as_rgb``.
    """

    def __init__(self, kind: str, gigabytes: float, upright: bool = False) -> None:
        self.upright = upright
        self.limit = int(gigabytes * 10**9)
        self.folder = SHM / f"fair-images-{os.getuid()}" if kind == "ram" else cache_folder("images")
        # Why nothing more is kept (0: all is well), and whether that has been said: in memory that workers share.
        self.trouble = torch.zeros(2, dtype=torch.int64).share_memory_()
        if kind == "ram":
            try:
                _hold(self, self.folder)
                self.limit = min(self.limit, self._used() + shutil.disk_usage(SHM).free // 2)
            except OSError as error:  # not ours to write to
                self.trouble[0] = error.errno or FULL

    def read(self, path: str | os.PathLike, side: int = 0) -> Image.Image:
        """The image as RGB; ``side`` 0: as large as it is.

        Raises:
            OSError: it is missing or cannot be read.
        """
        path = os.path.abspath(path)
        status = os.stat(path)
        key = os.fsencode(f"{path}\0{side}" + ("\0upright" if self.upright else ""))
        file = self.folder / hashlib.sha256(key).hexdigest()[:32]
        image = _read(file, status)
        if image is None:
            image = shrink(read_image(path, side, self.upright), side)
            if not self.trouble[0]:
                self._keep(file, status, image)
        self._warn()
        return image

    def _keep(self, file: Path, status: os.stat_result, image: Image.Image) -> None:
        pixels = np.asarray(image)
        facts = [status.st_mtime_ns, status.st_size, *pixels.shape[:2], zlib.crc32(np.ascontiguousarray(pixels).data)]
        header = np.array(facts, dtype=np.int64)
        try:
            if not self._claim(header.nbytes + pixels.nbytes):
                self.trouble[0] = FULL
                return
            with atomic(file) as temporary, open(temporary, "wb") as stream:
                stream.write(header.tobytes())
                stream.write(pixels.tobytes())
        except OSError as error:
            self.trouble[0] = error.errno or FULL

    def _claim(self, size: int) -> bool:
        """Take room for so many bytes, unless there is none. The tally is a file that grows by a byte for each block:
        all processes append to it, none overwrites what another has added."""
        blocks = -(-size // BLOCK)
        if self._used() + blocks * BLOCK > self.limit:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "tally", "ab") as tally:
            tally.write(bytes(blocks))
        return True

    def _used(self) -> int:
        try:
            return os.stat(self.folder / "tally").st_size * BLOCK
        except FileNotFoundError:
            return 0

    def _warn(self) -> None:
        """Say what is wrong, once. Of several workers the first says it, whoever has met it."""
        worker = get_worker_info()
        if not self.trouble[0] or self.trouble[1] or (worker and worker.id):
            return
        self.trouble[1] = 1
        code = int(self.trouble[0])
        why = f"the limit of {self.limit / 10**9:.3g} GB is reached" if code == FULL else os.strerror(code)
        log.warning(
            f"the cache of images in {self.folder} takes no more ({why}): the others are read from their files. "
            "Raise DATALOADER.CACHE_GB, make room, or set DATALOADER.CACHE none"
        )


def _read(file: Path, status: os.stat_result) -> Image.Image | None:
    try:
        content = np.fromfile(file, dtype=np.uint8)
    except OSError:
        return None
    if len(content) < 8 * HEADER:
        return None
    changed, size, height, width, checksum = content[: 8 * HEADER].view(np.int64).tolist()
    pixels = content[8 * HEADER :]
    if (changed, size, height * width * 3) != (status.st_mtime_ns, status.st_size, len(pixels)):
        return None  # of another version of the image, or damaged
    if min(height, width) < 1 or zlib.crc32(pixels.data) != checksum:
        return None
    return Image.fromarray(pixels.reshape(height, width, 3))


def _hold(owner: ImageCache, folder: Path) -> None:
    """Keep a folder as long as ``owner`` or another process's lives; the last one removes it.

    All share a lock. Whoever can have it alone is the only one: at the start, what is there was left by a run that was
    killed; at the end, nobody needs it any more. The lock's file, empty, stays.
    """
    import fcntl  # not on Windows, which has no /dev/shm either

    lock = os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def remove_if_alone() -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder, ignore_errors=True)

    def release(process: int) -> None:
        if os.getpid() == process:  # not in a forked worker
            remove_if_alone()
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing would leave it to workers that are still there
            os.close(lock)

    remove_if_alone()
    fcntl.flock(lock, fcntl.LOCK_SH)
    folder.mkdir(mode=0o700, exist_ok=True)
    weakref.finalize(owner, release, os.getpid())
