"""Split files: reading, writing, fetching CoOp's, and making new ones by CoOp's rules.

A split file is one JSON object {"train": [...], "val": [...], "test": [...]} whose items are
[key, label from 0, class name], a key being the path of an image relative to the image root: the format that CoOp ships
as split_zhou_*.json. Those that we make say so under "made_by", which CoOp's reader ignores.
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from dassl.data.datasets import Datum

from fairclip.core.cache import cache_folder
from fairclip.core.download import checksum_of
from fairclip.core.errors import UserError
from fairclip.core.files import atomic

PARTS = ("train", "val", "test")
FETCH_SECONDS = 60
Items = dict[str, list[tuple[str, int]]]  # part -> (key or path, label)


# -- The format --------------------------------------------------------------------------------------------------------


class Split(dict[str, list[tuple[str, int, str]]]):
    """part -> (key, label, class name); `made_by` says who made it, "" if the file does not."""

    made_by = ""


def load_split(path: str | Path, hint: str = "") -> Split:
    """Reads a split file. Raises UserError, ending with `hint`, if it is missing or has another format."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        split = Split({part: [(str(key), int(y), str(name)) for key, y, name in content[part]] for part in PARTS})
    except FileNotFoundError:
        raise UserError(f"split file not found: {path}{hint}") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not a split file: expected "
            f'{{"train": [[path, label, class name], ...], "val": [...], "test": [...]}} ({error!r}).{hint}'
        ) from None
    split.made_by = str(content.get("made_by", ""))
    return split


def write_split(split: Mapping[str, Iterable[tuple[str, int, str]]], path: str | Path, made_by: str = "") -> None:
    """Writes a split file; a half-written one never gets the final name."""
    content = {part: [list(item) for item in split[part]] for part in PARTS}
    with atomic(path) as temporary:
        text = json.dumps(({"made_by": made_by} if made_by else {}) | content, ensure_ascii=False)
        temporary.write_text(text, encoding="utf-8")


def check_labels(path: str | Path, split: Split) -> None:
    """Raises UserError unless the training items hold every label from 0, each with one name everywhere."""
    names = label_names(path, split)
    absent = set(range(max(names, default=0) + 1)) - {label for _, label, _ in split["train"]}
    if absent or min(names, default=0) < 0:
        what = f"label {min(absent)} has no training image" if absent else "a label is negative"
        raise UserError(f"{path}: {what}; labels must run from 0 without a gap")


def label_names(path: str | Path, split: Split) -> dict[int, str]:
    """label -> class name. Raises UserError for a label with two names."""
    names: dict[int, str] = {}
    for part in PARTS:
        for key, label, name in split[part]:
            if names.setdefault(label, name) != name:
                raise UserError(f"{path}: label {label} is both '{names[label]}' and '{name}' (at {key})")
    return names


def read_split(json_path: str | Path, image_root: str | Path, layout: str = "") -> tuple[list[Datum], ...]:
    """Reads a split file all of whose images must be there.

    Returns:
        The train, val and test items.

    Raises:
        UserError: if the file or an image is missing, or if labels and class names contradict each other.
    """
    json_path, image_root = Path(json_path), Path(image_root)
    hint = f"\n{layout}" if layout else ""
    split = load_split(json_path, hint)
    check_labels(json_path, split)
    keys = [key for part in PARTS for key, _, _ in split[part]]
    missing = [key for key in keys if not (image_root / key).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(keys)} images named in {json_path} are missing, "
            f"the first is {image_root / missing[0]}{hint}"
        )
    return tuple(
        [Datum(impath=str(image_root / key), label=label, classname=name) for key, label, name in split[part]]
        for part in PARTS
    )


def save_split(
    train: Iterable[Datum], val: Iterable[Datum], test: Iterable[Datum], json_path: str | Path, image_root: str | Path
) -> None:
    """Writes Dassl's items as a split file, with paths relative to `image_root`."""
    split = {
        part: [(Path(os.path.relpath(d.impath, image_root)).as_posix(), d.label, d.classname) for d in items]
        for part, items in zip(PARTS, (train, val, test), strict=True)
    }
    write_split(split, json_path)


# -- CoOp's rules ------------------------------------------------------------------------------------------------------


def split_trainval(dataset: str, items: Iterable[tuple[str, int]], names: Sequence[str]) -> Items:
    """CoOp's rule where there is an official test set: of each class round(0.2 n) training images are for validation.

    Args:
        dataset: its folder name, which seeds the draw.
        items: (key, label) of all training images.
        names: class names in label order.

    Returns:
        "train" and "val", by label and key. The draw of a class is a function of `dataset`, its name and its keys, so
        it stays when other classes come or go.
    """
    made: Items = {"train": [], "val": []}
    for label, keys in _shuffled(dataset, items, names).items():
        n_val = round(0.2 * len(keys))  # half to even, as in CoOp
        made["val"] += [(key, label) for key in sorted(keys[:n_val])]
        made["train"] += [(key, label) for key in sorted(keys[n_val:])]
    return made


def split_all(dataset: str, items: Iterable[tuple[str, int]], names: Sequence[str]) -> Items:
    """CoOp's rule where it sets official splits aside: of each class round(0.5 n) train, round(0.2 n) val, rest test.

    Arguments and order as in `split_trainval`.
    """
    made: Items = {part: [] for part in PARTS}
    for label, keys in _shuffled(dataset, items, names).items():
        n_train, n_val = round(0.5 * len(keys)), round(0.2 * len(keys))
        drawn = keys[:n_train], keys[n_train : n_train + n_val], keys[n_train + n_val :]
        for part, group in zip(PARTS, drawn, strict=True):
            made[part] += [(key, label) for key in sorted(group)]
    return made


def _shuffled(dataset: str, items: Iterable[tuple[str, int]], names: Sequence[str]) -> dict[int, list[str]]:
    by_label: dict[int, list[str]] = {label: [] for label in range(len(names))}
    for key, label in sorted(items):
        by_label[label].append(key)
    for label, keys in by_label.items():
        random.Random(f"{dataset} {names[label]}").shuffle(keys)
    return by_label


# -- Where split files are kept ----------------------------------------------------------------------------------------


def split_places(home: Path, name: str, inside: Iterable[Path] = ()) -> list[Path]:
    """Where the split file `name` of the data in `home` may be: there or `inside`, in the cache for it, or for any."""
    return [place / name for place in dict.fromkeys((home, *inside, _own_cache(home), cache_folder("splits")))]


def keep_split(split: Mapping[str, Iterable[tuple[str, int, str]]], home: Path, name: str, made_by: str) -> Path | None:
    """Writes a split that we made to `home`, or to the cache where that is read-only or has a file of that name.

    Returns:
        The file; None if nothing could be written.
    """
    for path in (home / name, _own_cache(home) / name):
        if path.parent == home and path.exists():  # one that does not fit these images; not ours to replace
            continue
        try:
            write_split(split, path, made_by)
            return path
        except OSError:
            continue
    return None


def _own_cache(home: Path) -> Path:
    # What we make depends on the images that are there, so it must not serve another copy.
    return cache_folder("splits") / hashlib.sha256(os.path.realpath(home).encode()).hexdigest()[:12]


# -- Fetching ----------------------------------------------------------------------------------------------------------


@cache  # one try in a run, though a run may load its data twice
def fetch_split(drive_id: str, home: Path, name: str) -> Path | None:
    """Fetches a split file from Google Drive to `home`, or to the cache where that is read-only.

    Its SHA-256 is recorded beside it, for `verify_split`. Returns None, after one line that says why, if that fails.
    """
    print(f"Fetching {name} from Google Drive (--no-download prevents it) ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        try:
            _download(drive_id, file)
            load_split(file)  # Drive answers with a page where it refuses
            content = file.read_bytes()
        except (OSError, subprocess.SubprocessError, UserError) as error:
            print(f"It could not be fetched: {_reason(error)}")
            return None
    for path in (home / name, cache_folder("splits") / name):
        try:
            with atomic(path) as temporary:
                temporary.write_bytes(content)
            with atomic(_record(path)) as temporary:
                temporary.write_text(f"{hashlib.sha256(content).hexdigest()}  {name}\n", encoding="utf-8")
        except OSError:
            continue
        print(f"Fetched {path}")
        return path
    print(f"It could not be kept: neither {home} nor {cache_folder('splits')} can be written")
    return None


def _download(drive_id: str, path: Path) -> None:
    # In a process of its own, because gdown waits without limit where a firewall swallows its packets.
    command = [sys.executable, "-m", "gdown", "--quiet", "-O", str(path), drive_id]
    subprocess.run(command, timeout=FETCH_SECONDS, check=True, capture_output=True, text=True)


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {FETCH_SECONDS} seconds"
    text = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
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
