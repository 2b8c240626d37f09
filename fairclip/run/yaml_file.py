"""Reading a YAML file of settings: plain data within limits, never code."""

from typing import Any

import yaml

from fairclip.core.errors import UserError, require

LARGEST = 256 * 1024  # bytes
DEEPEST = 20  # nested lists and groups
MOST = 10_000  # values, those that aliases repeat among them


def read_yaml(path: str) -> dict[str, Any]:
    """The settings in a file; none for an empty one.

    Raises:
        UserError: there is no such file, or it is not YAML of this kind, too large, too deep, or repeats itself.
    """
    require(not path.endswith(".py"), f"{path}: a config file is YAML; Python files are not run")
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise UserError(f"there is no config file {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: give a config file in it") from None
    require(len(content) <= LARGEST, f"{path}: a config file has at most {LARGEST:,} bytes")
    try:
        text = content.decode("utf-8-sig")
        check_size(text)
        settings = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}): is it a config file?") from None
    except (yaml.YAMLError, UserError, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: {error}") from None  # dates such as 2024-99-99 are ValueErrors
    if settings is None:
        return {}
    require(isinstance(settings, dict), f"{path}: a config file consists of lines KEY: VALUE")
    check_keys(settings, path)
    return settings


def check_size(text: str) -> None:
    """Raises UserError for what would be too deep or too much once aliases are filled in, before anything is built."""
    sizes: dict[str | None, int] = {}  # of what has an anchor
    above: list[tuple[str | None, int]] = []  # of each list and group around this place: its anchor, values before it
    values = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            require(event.anchor not in [anchor for anchor, _ in above], f"*{event.anchor} contains itself")
            values += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            above.append((event.anchor, values))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = above.pop()
            if anchor:
                sizes[anchor] = values - before + 1
        require(len(above) <= DEEPEST, f"more than {DEEPEST} nested groups or lists")
        require(values <= MOST, f"more than {MOST:,} values")


def check_keys(settings: dict[Any, Any], path: str, prefix: str = "") -> None:
    """Raises UserError for a key that is not a word."""
    for key, value in settings.items():
        require(isinstance(key, str), f"{path}: {prefix}{key} is no config key: keys are words")
        if isinstance(value, dict):
            check_keys(value, path, f"{prefix}{key}.")
