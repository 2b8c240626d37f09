"""Downloads that resume. A file gets its name only when it is complete and its checksum is right."""

import errno
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from fairclip.core.errors import UserError
from fairclip.core.log import log

ATTEMPTS = 5  # connections tried for one download before giving up
TIMEOUT = 30  # seconds without an answer after which a connection counts as cut
AGENT = "fair/1.0"  # some servers turn away urllib's own name
KINDS = {32: "MD5", 64: "SHA-256"}  # of a checksum, by its number of hex digits


def download(url: str, target: str | Path, checksum: str) -> Path:
    """Download `url` to `target`, resuming what an earlier call left.

    Bytes gather in `<target>.part`, which takes the final name only when its checksum is right. A cut connection is
    tried again a few times; what has arrived is kept for the next call.

    Args:
        checksum: SHA-256 or MD5 of the file, in hex.

    Raises:
        UserError: a folder that cannot be written to, a full disk, no connection, a refusal of the server, a wrong
            checksum, or a connection cut too often.
    """
    target, kind = Path(target), KINDS[len(checksum)]
    if target.is_file():
        if checksum_of(target, kind) == checksum:
            return target
        log.warning(f"{target} is damaged (wrong {kind}): downloading it again")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(target.parent, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(f"cannot write to {target.parent}. Set FAIR_CACHE to a folder for downloads.")
    part = target.with_name(target.name + ".part")
    reason: Exception
    by_hand = f"Or put the file at {target} yourself (from {url}, {kind} {checksum})."
    for attempt in range(ATTEMPTS):
        try:
            _append(url, part)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing left to send: the part is whole, or not a part of this file
                break
            if error.code < 500:
                raise UserError(f"the server refused {url}: {error.code} {error.reason}. {by_hand}") from error
            reason = error
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"the disk is full: {part} has no room to grow. Make room and run again.") from error
            if not part.exists():
                raise UserError(
                    f"cannot reach {url} ({getattr(error, 'reason', error)}). "
                    f"Check the network and run again. {by_hand}"
                ) from error
            reason = error
        if attempt + 1 == ATTEMPTS:
            raise UserError(
                f"the download of {url} broke off {ATTEMPTS} times (last: {reason}). What has arrived is "
                f"kept; run again to go on from there. {by_hand}"
            ) from reason
        time.sleep(2**attempt)
    if checksum_of(part, kind) != checksum:
        part.unlink()
        raise UserError(f"what {url} delivers has the wrong {kind} and was removed. Run again. {by_hand}")
    os.replace(part, target)
    return target


def _append(url: str, part: Path) -> None:
    """One connection: add to `part` what is missing of `url`, or start over if the server can't continue."""
    received = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": AGENT} | ({"Range": f"bytes={received}-"} if received else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        if response.status != 206:
            received = 0
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        with (
            open(part, "ab" if received else "wb") as file,
            tqdm(desc=part.stem, initial=received, total=total, unit="B", unit_scale=True) as bar,
        ):
            while chunk := response.read(1 << 20):
                file.write(chunk)
                bar.update(len(chunk))
    size = part.stat().st_size
    if total is not None and size < total:
        raise ConnectionError(f"{size} of {total} bytes")


def checksum_of(path: Path, kind: str = "SHA-256") -> str:
    """The "SHA-256" or "MD5" of a file, in hex."""
    digest = hashlib.sha256() if kind == "SHA-256" else hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
