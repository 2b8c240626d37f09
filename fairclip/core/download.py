"""Downloads that resume. A file gets its name only when it is complete and its checksum is right."""

import errno
import hashlib
import os
import time
import urllib.error
from pathlib import Path

from fairclip.core.bars import bar
from fairclip.core.errors import UserError, require
from fairclip.core.log import log
from fairclip.core.reading import in_a_line, printable
from fairclip.core.web import NETWORK_ERRORS, SILENCE, asked

ATTEMPTS = 5  # connections tried for one download before giving up
TIMEOUT = SILENCE
WINDOW, SLOWEST = 60, 1000  # a connection that brings fewer bytes a second over so many seconds counts as cut
LARGEST = 2**35  # bytes, unless the caller knows better: several times the largest file that we download
TRY_AGAIN = (408, 429)  # refusals that pass; and 5xx
KINDS = {32: "MD5", 64: "SHA-256"}  # of a checksum, by its number of hex digits


def download(url: str, target: str | Path, checksum: str, largest: int = LARGEST) -> Path:
    """Download `url` to `target`, resuming what an earlier call left.

    Bytes gather in `<target>.part`, which takes the final name only when its checksum is right. A cut connection is
    tried again a few times; what has arrived is kept for the next call.

    Args:
        checksum: SHA-256 or MD5 of the file, in hex.
        largest: bytes that it may have.

    Raises:
        UserError: a folder that cannot be written to, a full disk, no connection, a refusal of the server, too
            many bytes, a wrong checksum, or a connection cut too often.
    """
    target, kind = Path(target), KINDS[len(checksum)]
    if target.is_file():
        if checksum_of(target, kind) == checksum:
            return target
        log.warning(f"{target} is damaged (wrong {kind}): downloading it again")
    require(_can_write(target.parent), f"cannot write to {target.parent}. Set FAIR_CACHE to a folder for downloads.")
    part = target.with_name(target.name + ".part")
    reason: Exception
    known = "" if checksum in url else f" ({kind} {checksum})"  # OpenAI's addresses have it
    by_hand = f"Or download it where there is a network, and put it at {target}{known}."
    for attempt in range(ATTEMPTS):
        try:
            _append(url, part, largest)
            break
        except UserError as error:
            raise UserError(f"{error}. {by_hand}") from error
        except urllib.error.HTTPError as error:
            if error.code == 416 and part.exists():  # the part is whole, or not a part of this file
                break
            if error.code < 500 and error.code not in TRY_AGAIN:
                raise UserError(
                    f"the server refused {url}: {error.code} {printable(str(error.reason))}. {by_hand}"
                ) from error
            reason = error
        except NETWORK_ERRORS as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"the disk is full: {part} has no room to grow. Make room and run again.") from error
            if not part.exists():
                raise UserError(
                    f"cannot reach {url} ({in_a_line(error)}). Check the network and run again. {by_hand}"
                ) from error
            reason = error
        if attempt + 1 == ATTEMPTS:
            raise UserError(
                f"the download of {url} broke off {ATTEMPTS} times (last: {in_a_line(reason)}). What has arrived is "
                f"kept; run again to go on from there. {by_hand}"
            ) from reason
        time.sleep(2**attempt)
    if checksum_of(part, kind) != checksum:
        part.unlink()
        raise UserError(f"what {url} delivers has the wrong {kind} and was removed. Run again. {by_hand}")
    os.replace(part, target)
    return target


def _can_write(folder: Path) -> bool:
    """Make a folder; whether there can be files in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _append(url: str, part: Path, largest: int) -> None:
    """One connection: add to `part` what is missing of `url`, or start over if the server can't continue.

    Raises:
        UserError: more than ``largest`` bytes; the part is removed.
    """
    received = part.stat().st_size if part.exists() else 0
    with asked(url, {"Range": f"bytes={received}-"} if received else {}, 2 * WINDOW) as (response, watch):
        if response.status != 206:
            received = 0
        total = None if response.length is None else received + response.length  # None: not said, or no number
        with (
            open(part, "ab" if received else "wb") as file,
            bar(None, part.stem, "B", initial=received, total=total, unit_scale=True) as progress,
        ):
            before, start = received, time.monotonic()
            while (total or 0) <= largest and received <= largest and (chunk := response.read1(1 << 18)):
                file.write(chunk)
                progress.update(len(chunk))
                received += len(chunk)
                if time.monotonic() > start + WINDOW:
                    if received - before < WINDOW * SLOWEST:
                        raise ConnectionError(f"fewer than {SLOWEST:,} bytes a second")
                    before, start = received, time.monotonic()
                    watch.renew(2 * WINDOW)
        watch.check()
    if max(received, total or 0) > largest:
        part.unlink()
        raise UserError(f"what {url} delivers has more than {largest:,} bytes and was removed")
    if total is not None and received < total:
        raise ConnectionError(f"{received} of {total} bytes")


def checksum_of(path: Path, kind: str = "SHA-256") -> str:
    """The "SHA-256" or "MD5" of a file, in hex."""
    digest = hashlib.sha256() if kind == "SHA-256" else hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
