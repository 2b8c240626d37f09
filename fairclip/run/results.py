"""What a finished run leaves behind, results.json and predictions.csv, and the hash that says which run it was."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairclip.core import rules
from fairclip.core.csv_files import as_csv, read_csv
from fairclip.core.files import atomic
from fairclip.core.reading import read_json
from fairclip.core.rules import Rule, check

FILENAME = "results.json"
PREDICTIONS = "predictions.csv"
AGAIN = "Delete the file to run again"

PERCENT = Rule(rules.is_percent, "a number from 0 to 100")
RULES = {
    "accuracy": PERCENT,
    "macro_f1": PERCENT,
    "crop_accuracy": Rule(rules.or_null(rules.is_percent), "a number from 0 to 100, or null", optional=True),
    "epochs": Rule(rules.are_epochs, "a list of records, each with its epoch and numbers", optional=True),
    "protocols": Rule(rules.are_percents, "names with numbers from 0 to 100", optional=True),
    "descriptions": Rule(rules.is_source, "null, or file and sha256", optional=True),
    "seed": Rule(rules.or_null(rules.is_whole), "a whole number", optional=True),
    "tower_hash": Rule(rules.is_hash, "a SHA-256 or null", optional=True),  # of the image tower before training
    "text_hash": Rule(rules.is_hash, "a SHA-256 or null", optional=True),  # of the text tower
    **{
        name: Rule(rules.or_null(rules.is_string), "text", optional=True)
        for name in ("trainer", "dataset", "backbone", "split", "config_hash", "prec", "device", "hardware", "commit")
    },
    **{
        name: Rule(rules.is_amount, "a number from 0 on", optional=True)
        for name in ("seconds", "test_seconds", "views_per_image", "trainable_parameters")
    },
    **{name: Rule(rules.is_flag, "true or false", optional=True) for name in ("transductive", "stream", "uses_labels")},
}

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
        "TEST.PROTOCOLS",
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
STARTS_FROM_TEXTS = ("DPA", "MUST", "TRANSCLIP", "ZLAP", "STATA", "TDA")
# Keys that came later, with the value by which a run is what it was without them.
LATER_KEYS: dict[str, Any] = {
    "DATASET.UPRIGHT": True,
    "DATASET.LABELS": "",
    "DATASET.SYNTH_LIGHT": "blue_hour",
    "DATASET.SYNTH_TAIL": 1.0,
    "TRAINER.FAIR.PRIOR": "",
    "TRAINER.FAIR.TOWER_RATE": 0.0,
    "TRAINER.MICROCLIP.FIXED": "likeness",
    "TRAINER.GTA.NAMED": False,
    **{f"TRAINER.{name}.TEXTS": "names" for name in STARTS_FROM_TEXTS},
    **{f"TRAINER.{name}.DESCRIPTIONS": "" for name in STARTS_FROM_TEXTS},
    "TRAINER.STATA.ONLINE": False,
    "TRAINER.STATA.BATCH": 128,
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
    folder: str | Path,
    root: str,
    classnames: Sequence[str],
    rows: Iterable[tuple[str, int, int, float]],
    of_labels: Sequence[float] = (),
) -> Path:
    """Write `folder`/predictions.csv atomically and return its path: image, label, prediction, probability and, where
    it is given, label_probability. In names that are not UTF-8 the other bytes are escaped.

    Args:
        root: the data folder; images below it are named relative to it.
        rows: path, label (negative: none is known), predicted label and its probability, for each image.
        of_labels: the probability of the label, for each image; none: there is no such column.
    """
    root = os.path.abspath(os.path.expanduser(root))
    path = Path(folder) / PREDICTIONS

    def named(image: str) -> str:
        inside = os.path.abspath(image).startswith(root + os.sep)
        return os.path.relpath(image, root) if inside else image

    head = ["image", "label", "prediction", "probability"]
    said = (
        [named(image), classnames[label] if label >= 0 else "", classnames[guess], f"{sure:.4f}"]
        for image, label, guess, sure in rows
    )
    if of_labels:  # small ones count too: NLL is made of their logarithms
        head.append("label_probability")
        said = ([*cells, f"{p:.4g}"] for cells, p in zip(said, of_labels, strict=True))
    table = as_csv(head, said)
    with atomic(path) as temporary:
        temporary.write_bytes(table.encode("utf-8", "backslashreplace"))  # names of files may be any bytes
    return path


def read_results(folder: str | Path) -> dict[str, Any] | None:
    """The content of `folder`/results.json, or None if the run there has not finished.

    Raises:
        UserError: the file is there but damaged: ``RULES`` says what its values may be.
    """
    path = Path(folder) / FILENAME
    if not path.exists():
        return None
    results = read_json(path, "the results of a run", AGAIN)
    check(results, RULES, path, advice=AGAIN)
    return results


def lacks_protocols(results: Mapping[str, Any] | None) -> bool:
    """Whether a finished run has yet to be tested on batches and streams, which those of some methods are."""
    sees_more = results is not None and (results.get("transductive") or results.get("stream"))
    return bool(sees_more) and "protocols" not in results  # type: ignore[operator]


def read_predictions(folder: str | Path) -> list[tuple[str, str, str]] | None:
    """Image (as ``write_predictions`` names it), label and prediction of each test image, in the test set's order; None
    if there is no predictions.csv.

    Raises:
        UserError: it is damaged.
    """
    path = Path(folder) / PREDICTIONS
    if not path.exists():
        return None
    advice = f"Delete it and {FILENAME} beside it to test again"
    rows = read_csv(path, ("image", "label", "prediction"), "the predictions of a run", advice)
    return [(image, label, prediction) for image, label, prediction in rows]


def config_hash(cfg: Mapping[str, Any]) -> str:
    """Twelve hex digits that tell configurations apart, whatever the seed, the machine and the folders."""
    kept = json.dumps(_plain(_without(cfg, NOT_HASHED)), sort_keys=True)
    return hashlib.sha256(kept.encode()).hexdigest()[:12]


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
