"""Where split files are kept, and fetching those of CoOp."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from fairclip.core.cache import cache_folder
from fairclip.core.download import checksum_of
from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.core.log import log
from fairclip.data.splits import load_split, write_split

# gdown's reason is the paragraph in the middle; what follows is advice on a browser.
GDOWN_SAYS = re.compile(r"Failed to retrieve file url:\s*\n\s*\n(.+?)\n\s*\n", re.DOTALL)
FETCH_SECONDS = 60
US = "FAIR"  # how the files that we make say by whom


def split_places(home: Path, name: str, inside: Iterable[Path] = ()) -> list[Path]:
    """Where the split file `name` of the data in `home` may be: there or `inside`, in the cache for it, or for any."""
    return [place / name for place in dict.fromkeys((home, *inside, _own_cache(home), cache_folder("splits")))]


def keep_split(split: Mapping[str, Iterable[tuple[str, int, str]]], home: Path, name: str, made_by: str) -> Path | None:
    """Writes a split that we made to `home`, or to the cache where that is read-only or has a file of that name.

    Returns:
        The file; None if nothing could be written.
    """
    for path in (home / name, _own_cache(home) / name):
        if path.parent == home and path.exists() and not _is_ours(path):
            continue  # one that does not fit these images; not ours to replace
        try:
            write_split(split, path, made_by)
            return path
        except OSError:
            continue
    return None


def _is_ours(path: Path) -> bool:
    """Whether a split file was made here, and not by CoOp or by hand."""
    try:
        return load_split(path).made_by.startswith(US)
    except UserError:
        return False


def _own_cache(home: Path) -> Path:
    # What we make depends on the images that are there, so it must not serve another copy.
    return cache_folder("splits") / hashlib.sha256(os.path.realpath(home).encode()).hexdigest()[:12]


# -- Fetching ----------------------------------------------------------------------------------------------------------


@cache  # one try in a run, though a run may load its data twice
def fetch_split(drive_id: str, home: Path, name: str) -> Path | None:
    """Fetches a split file from Google Drive to `home`, or to the cache where that is read-only.

    Its SHA-256 is recorded beside it, for `verify_split`. Returns None, after one line that says why, if that fails.
    """
    log.info(f"Fetching {name} from Google Drive (--no-download prevents it) ...")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        try:
            _download(drive_id, file)
            load_split(file)  # Drive answers with a page where it refuses
            content = file.read_bytes()
        except (OSError, subprocess.SubprocessError, UserError) as error:
            log.info(f"It could not be fetched: {_reason(error)}")
            return None
    for path in (home / name, cache_folder("splits") / name):
        try:
            with atomic(path) as temporary:
                temporary.write_bytes(content)
            with atomic(_record(path)) as temporary:
                temporary.write_text(f"{hashlib.sha256(content).hexdigest()}  {name}\n", encoding="utf-8")
        except OSError:
            continue
        log.info(f"Fetched {path}")
        return path
    log.info(f"It could not be kept: neither {home} nor {cache_folder('splits')} can be written")
    return None


def _download(drive_id: str, path: Path) -> None:
    # In a process of its own, because gdown waits without limit where a firewall swallows its packets.
    command = [sys.executable, "-m", "gdown", "--quiet", "-O", str(path), drive_id]
    subprocess.run(command, timeout=FETCH_SECONDS, check=True, capture_output=True, text=True)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {FETCH_SECONDS} seconds"
    text = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    if found := GDOWN_SAYS.search(text or ""):
        return " ".join(found[1].split())
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def verify_split(path: Path) -> None:
    """Raises UserError if a fetched split file is no longer the one that was fetched."""
    record = _record(path)
    if not record.is_file():
        return
    recorded, now = record.read_text(encoding="utf-8").split()[:1], checksum_of(path)
    if recorded != [now]:
        raise UserError(
            f"{path} has changed since it was fetched (its SHA-256 is {now}, {record.name} has another). "
            f"Delete both to fetch it again, or {record.name} alone to keep your change."
        )


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
