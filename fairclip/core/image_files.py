"""Finding image files below a folder, and writing their names."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

# Formats that Pillow knows by name, but draws with the help of another program, or not at all.
NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
# What storage devices, systems and programs put beside a person's files, often with small copies of the images.
NOT_A_PERSONS = frozenset(
    name.casefold()
    for name in (
        "@eaDir",
        "@Recycle",
        "@Recently-Snapshot",
        "@sharebin",
        "@tmp",
        "#recycle",
        "#snapshot",
        "$RECYCLE.BIN",
        "RECYCLER",
        "System Volume Information",
        "lost+found",
        "__MACOSX",
        "__pycache__",
    )
)
# Photos of phones, which Pillow cannot read by itself.
HEIC = frozenset({".heic", ".heif", ".hif"})
CONVERT = (
    "convert HEIC photos to JPEG first (macOS: sips -s format jpeg --out JPEGS *.heic; elsewhere: heif-convert of "
    "libheif, or ImageMagick's magick mogrify -format jpg *.heic)"
)


@cache
def endings() -> frozenset[str]:
    """The endings of files that Pillow can read, in lower case: ".jpg"."""
    known = Image.registered_extensions()
    return frozenset(ending for ending, kind in known.items() if kind in Image.OPEN and kind not in NO_PICTURES)


def is_image(name: str) -> bool:
    """Is this the name of an image file? By its ending alone; dot files are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in endings()


def is_hidden(name: str) -> bool:
    """Is this the name of a folder that people do not mean: a dot folder, or what systems put beside their files?"""
    return name.startswith(".") or name.casefold() in NOT_A_PERSONS


def walk(folder: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder from `folder` down, with the names of its files; sorted, links followed, hidden folders left out."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield place, files


def images_below(folder: str | Path) -> dict[str, str]:
    """All image files at any depth: path below `folder`, with forward slashes -> path; sorted, links followed."""
    found: dict[str, str] = {}
    for place, files in walk(folder):
        below = os.path.relpath(place, folder).replace(os.sep, "/")
        start = "" if below == "." else f"{below}/"
        found.update((start + name, os.path.join(place, name)) for name in files if is_image(name))
    return dict(sorted(found.items()))


def others_below(folder: str | Path) -> Counter[str]:
    """The other files at any depth, which are left out: how many of each ending. Dot files are not counted."""
    names = [name for _, files in walk(folder) for name in files if not name.startswith(".") and not is_image(name)]
    return Counter(os.path.splitext(name)[1].lower() or "no ending" for name in names)


def in_words(others: Counter[str]) -> str:
    """Such a count as text, the most first, "18 .tar, 2 .txt"; and what to do where phones' photos are among them."""
    counts = sorted(others.items(), key=lambda row: (-row[1], row[0]))
    advice = f". To use them, {CONVERT}" if HEIC & others.keys() else ""
    return ", ".join(f"{count} {ending}" for ending, count in counts) + advice


def left_out(folder: str | Path) -> str:
    """Which files in a folder are no images, with a colon in front; "" for none."""
    others = in_words(others_below(folder))
    return f": files that are no images Pillow can read are left out: {others}" if others else ""


def one_form(name: str) -> str:
    """A name in Unicode's form C: an accented letter is one sign, however the disk has it."""
    return unicodedata.normalize("NFC", name)


def printable(name: str) -> str:
    """The name of a file as text that can be written: bytes that are not UTF-8 are escaped, as in "caf\\xe9.jpg"."""
    try:
        name.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(name).decode("utf-8", "backslashreplace")
        except UnicodeEncodeError:  # half of a pair of signs, as JSON can hold it
            return name.encode("utf-8", "backslashreplace").decode()
    return name
