"""What a finished run leaves behind: results.json, and the facts that say which run it was."""

import csv
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fairclip.core.cells import as_cell, from_cell
from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.core.places import HOME

FILENAME = "results.json"
PREDICTIONS = "predictions.csv"

# Where and how often a run is done, not what is computed: the same configuration hashes alike for every seed and place.
NOT_HASHED = frozenset(
    {
        "OUTPUT_DIR",
        "RESUME",
        "SEED",
        "USE_CUDA",
        "DEVICE",
        "VERBOSE",
        "DATASET.ROOT",
        "DATASET.STRICT",
        "DATASET.DOWNLOAD",
        "DATASET.CHECK_IMAGES",
        "DATALOADER.NUM_WORKERS",
        "TRAIN.PRINT_FREQ",
        "TRAIN.CHECKPOINT_FREQ",
        "TEST.EVERY_EPOCH",
        # these change a result by rounding only
        "DATALOADER.TEST.BATCH_SIZE",
        "DATALOADER.VIEWS",
        "DATALOADER.CACHE",
        "DATALOADER.CACHE_GB",
        "TRAIN.CHUNK",
        "TRAIN.MICRO_BATCH",
        "TRAIN.AUTO_CHUNK",
        "MODEL.COMPILE",
    }
)
# Keys that came later, with the value by which a run is what it was without them.
LATER_KEYS: dict[str, Any] = {
    "DATASET.SYNTH_LIGHT": "blue_hour",
    "DATASET.SYNTH_TAIL": 1.0,
    "TRAINER.FAIR.PRIOR": "",
    "MODEL.BACKBONE.HEADS": (),
    "MODEL.BACKBONE.ACTIVATION": "",
    "MODEL.BACKBONE.RESIZE": False,
    "TRAIN.EXTENDS": 0,
}


def write_results(folder: str | Path, results: Mapping[str, Any]) -> Path:
    """Write `folder`/results.json atomically and return its path. Numbers that are not finite become null."""
    path = Path(folder) / FILENAME
    text = json.dumps(_plain(results), indent=2, sort_keys=True, allow_nan=False)
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def write_predictions(
    folder: str | Path, root: str, classnames: Sequence[str], rows: Iterable[tuple[str, int, int, float]]
) -> Path:
    """Write `folder`/predictions.csv atomically and return its path: image, label, prediction, confidence.

    Args:
        root: the data folder; images below it are named relative to it.
        rows: path, label, predicted label and probability of the prediction, for each image.
    """
    root = os.path.abspath(os.path.expanduser(root))
    path = Path(folder) / PREDICTIONS
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["image", "label", "prediction", "confidence"])
        for image, label, predicted, sure in rows:
            inside = os.path.abspath(image).startswith(root + os.sep)
            name = os.path.relpath(image, root) if inside else image
            texts = map(as_cell, (name, classnames[label], classnames[predicted]))
            table.writerow([*texts, f"{sure:.4f}"])
    return path


def read_results(folder: str | Path) -> dict[str, Any] | None:
    """The content of `folder`/results.json, or None if the run there has not finished.

    Raises:
        UserError: the file is there but is not a JSON object.
    """
    path = Path(folder) / FILENAME
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Delete it to run again.") from error
    if not isinstance(results, dict):
        raise UserError(f"{path} is not a JSON object. Delete it to run again.")
    return results


def read_predictions(folder: str | Path) -> list[tuple[str, str, str]] | None:
    """Image (as ``write_predictions`` names it), label and prediction of each test image, in the test set's order; None
    if there is no predictions.csv.

    Raises:
        UserError: it lacks a column.
    """
    path = Path(folder) / PREDICTIONS
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = csv.DictReader(stream)
            return [(from_cell(row["image"]), from_cell(row["label"]), from_cell(row["prediction"])) for row in rows]
    except FileNotFoundError:
        return None
    except KeyError as error:
        raise UserError(f"{path} has no column {error}") from error


def config_hash(cfg: Mapping[str, Any]) -> str:
    """Twelve hex digits that tell configurations apart, whatever the seed, the machine and the folders."""
    kept = json.dumps(_plain(_without(cfg, NOT_HASHED)), sort_keys=True)
    return hashlib.sha256(kept.encode()).hexdigest()[:12]


def versions() -> dict[str, str | None]:
    """Versions of what a result depends on; None for what is absent or, like a checkout's `clip/`, has no version."""
    import torch  # here: tables read results without it

    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "torchvision", "numpy", "pillow")},
        "cuda": torch.version.cuda,
        "clip": _clip_version(),
        "dassl": getattr(sys.modules.get("dassl"), "__version__", None),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _clip_version() -> str | None:
    """Version of the installed package that `import clip` finds, if it finds an installed one."""
    spec = find_spec("clip")
    for package in ("clip-anytorch", "clip"):
        if spec and spec.origin and _version(package):
            installed = distribution(package).locate_file("clip/__init__.py")
            if Path(str(installed)).resolve() == Path(spec.origin).resolve():
                return f"{package} {version(package)}"
    return None


def commit() -> str | None:
    """HEAD of the repository this file is in, "-dirty" behind it if tracked files differ; None without git."""
    head = _git("rev-parse", "--show-toplevel", "HEAD")
    if head is None:
        return None
    top, sha = head.splitlines()
    if Path(top).resolve() != HOME:  # unpacked inside somebody else's repository
        return None
    return sha + ("-dirty" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", HOME, *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _without(node: Mapping[str, Any], dropped: frozenset[str], prefix: str = "") -> dict[str, Any]:
    return {
        key: _without(value, dropped, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in node.items()
        if prefix + key not in dropped
    }


def _plain(value: Any) -> Any:
    """The same value in JSON's own types: numpy and torch numbers and arrays unpacked, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value
