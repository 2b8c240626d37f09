"""The settings of a finished run, as its config.yaml has them, held against others."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fairclip.core.errors import UserError
from fairclip.run.results import NOT_HASHED

FILENAME = "config.yaml"
ABSENT = "absent"  # stands for a key that one of two settings does not have
FROM_BACKBONE = frozenset(  # a run's trainer may have put in what its backbone asks for
    {"INPUT.SIZE", "INPUT.INTERPOLATION", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD"}
)

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings: "OPTIM.LR", 0.001."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_settings(folder: Path) -> dict[str, Any] | None:
    """The content of a run's config.yaml, flat: "OPTIM.LR" -> 0.001. None if there is no such file.

    Raises:
        UserError: the file is not YAML, or no mapping.
    """
    try:
        return dict(flatten(yaml.load((folder / FILENAME).read_text(encoding="utf-8"), Loader)))
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / FILENAME} cannot be read: {error}") from error


def deciding(settings: Mapping[str, Any], trainer: str) -> dict[str, Any]:
    """Those of flat settings that decide the result: not the seed, nor places, nor other trainers' nodes."""
    own = ("NAME", trainer.upper())
    return {
        key: value
        for key, value in settings.items()
        if key not in NOT_HASHED and not (key.startswith("TRAINER.") and key.split(".")[1] not in own)
    }


def changed_settings(folder: Path, now: Mapping[str, Any], trainer: str) -> list[str]:
    """What decides the result and is not as in the run's config.yaml: "TRAINER.FAIR.TOP_K: 8, now 4".

    Args:
        folder: the run's.
        now: the settings to hold against it, a Dassl config or nested dicts.
        trainer: its name; the nodes of other trainers do not count.
    """
    saved = read_settings(folder)
    if saved is None:
        return []
    # Through YAML, as config.yaml was: tuples and such look the same on both sides.
    plain = yaml.load(yaml.safe_dump(_plain(now)), Loader)
    before, after = deciding(saved, trainer), deciding(dict(flatten(plain)), trainer)
    changed = [key for key in sorted(before.keys() | after.keys()) if _shown(before, key) != _shown(after, key)]
    chosen = [key for key in changed if key not in FROM_BACKBONE] or changed
    return [f"{key}: {_shown(before, key)}, now {_shown(after, key)}" for key in chosen]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else ABSENT
