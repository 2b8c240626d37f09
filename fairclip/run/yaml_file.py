"""Reading a YAML file of settings: plain data within limits, never code."""

from pathlib import Path
from typing import Any

from fairclip.core.errors import UserError, require
from fairclip.core.reading import parse_yaml, read_text, reading

WHAT = "a config file"


def read_yaml(path: str) -> dict[str, Any]:
    """The settings in a file; none for an empty one.

    Raises:
        UserError: there is no such file, or it is not YAML of this kind, too large, too deep, or repeats itself.
    """
    require(not path.endswith(".py"), f"{path}: a config file is YAML; Python files are not run")
    require(not Path(path).is_dir(), f"{path} is a folder: give a config file in it")
    require(Path(path).exists(), f"there is no config file {path}")
    text = read_text(path, WHAT)
    with reading(path, WHAT):
        settings = parse_yaml(text)
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{path}: a config file consists of lines KEY: VALUE")
    check_keys(settings, path)
    return settings


def check_keys(settings: dict[Any, Any], path: str, prefix: str = "") -> None:
    """Raises UserError for a key that is not a word."""
    for key, value in settings.items():
        require(isinstance(key, str), f"{path}: {prefix}{key} is no config key: keys are words")
        if isinstance(value, dict):
            check_keys(value, path, f"{prefix}{key}.")
