"""What is to be adapted to: images, class names and descriptions, and the file that keeps them."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairclip.core.errors import UserError, few, require
from fairclip.core.files import atomic
from fairclip.core.image_files import images_below, left_out
from fairclip.core.log import log
from fairclip.core.places import DESCRIPTIONS
from fairclip.core.reading import read_json, read_text, reading
from fairclip.data.folders import PART_FOLDERS, find_folder, has_images
from fairclip.predict.images import to_rgb
from fairclip.text.descriptions import load_descriptions, match_names, read_table

FILE = "task.json"  # in the folder of the adapted model
PICTURES = "images"  # the folder in it for images that were in memory
Descriptions = str | os.PathLike | Mapping[str, Sequence[str]] | None


class Task(NamedTuple):
    """Images, classes and what is said of these."""

    images: list[str]  # absolute paths
    classes: list[str]
    descriptions: dict[str, list[str]]  # of the classes that have any
    source: str  # of the descriptions, in words
    settings: dict[str, Any]  # what else decides the model, by the words of the caller
    apart: Sequence[str] = ()  # absolute paths of images that are predicted, but not adapted to


def make_task(images: Any, classes: Any, descriptions: Descriptions, out: Path, **settings: Any) -> Task:
    """The task that a caller describes; arguments as of ``adapt``.

    Raises:
        UserError: no images, fewer than two classes, a class named twice, or descriptions that cannot be read.
    """
    names = read_classes(classes)
    found, apart = find_images(images, out)
    return Task(found, names, *find_descriptions(descriptions, names), settings, apart)


def keep_task(task: Task, out: Path) -> None:
    """Write the task into the folder of the model, unless it is there.

    Raises:
        UserError: the folder holds the model of another task.
    """
    file, content = out / FILE, task._asdict()
    if file.is_file():
        before = read_task(out)._asdict()
        other = [name for name in ("images", "classes", "descriptions") if before[name] != content[name]]
        other += ["test images"] if list(before["apart"]) != list(content["apart"]) else []
        then, now = before["settings"], content["settings"]
        changed = [name for name in now if then.get(name) != now[name]]
        other += [f"{name} ({as_given(name, then)}, now {as_given(name, now)})" for name in changed]
        require(
            not other,
            f"{out} holds a model adapted with other {' and '.join(other)}: choose another --out, or remove it",
        )
        return
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def as_given(name: str, settings: dict[str, Any]) -> str:
    value = settings.get(name)
    return str(value) if value or name == "seed" else "none given"


def read_task(out: Path) -> Task:
    what, advice = "what a model was adapted to", "Remove the folder to begin anew"
    content = read_json(out / FILE, what, advice)
    with reading(out / FILE, what, advice):
        return Task(**content)


# -- Images ------------------------------------------------------------------------------------------------------------


def find_images(images: Any, out: Path) -> tuple[list[str], list[str]]:
    """Paths of the images of a folder, at any depth; of a list of paths or of images; of a torch data set. Apart from
    them those of test/ and val/, in a folder that has train/, too."""
    if isinstance(images, str | os.PathLike):
        folder = Path(images).expanduser()
        require(folder.is_dir(), f"there is no folder {folder}: name a folder of images")
        found = [os.path.abspath(path) for path in images_below(folder).values()]
        mine = os.path.abspath(out) + os.sep  # the model may lie beside its images
        found = [path for path in found if not path.startswith(mine)]
        others = left_out(folder)
        require(found, f"there are no images in {folder}{others}")
        if others:
            log.info(f"{folder}{others}")
        held_out = tuple(os.path.abspath(place) + os.sep for place in to_test_on(folder))
        return [path for path in found if not path.startswith(held_out)], [p for p in found if p.startswith(held_out)]
    found = [keep_image(item, number, out) for number, item in enumerate(_items(images))]
    require(found, "there are no images to adapt to")
    return found, []


def to_test_on(folder: Path) -> list[Path]:
    """The folders of test and validation images, beside one of training images."""
    places = {part: find_folder(folder, *names) for part, names in PART_FOLDERS.items()}
    if not places["train"] or not has_images(places["train"]):
        return []
    return [place for part in ("val", "test") if (place := places[part])]


def _items(images: Any) -> Iterable[Any]:
    """A torch data set has items by number; those that are image and label count by the image."""
    for number in range(len(images)):
        item = images[number]
        yield item[0] if isinstance(item, tuple | list) else item


def keep_image(image: Any, number: int, out: Path) -> str:
    """The absolute path of an image; one in memory, of any form that a predictor takes, is written as a PNG first."""
    if isinstance(image, str | os.PathLike):
        path = Path(image).expanduser()
        require(path.is_file(), f"there is no image {path}")
        return os.path.abspath(path)
    try:
        picture = to_rgb(image)
    except UserError as error:
        raise UserError(f"image {number}: {error}") from error
    path = out / PICTURES / f"{number:06}.png"
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG")
    return os.path.abspath(path)


# -- Classes and descriptions ------------------------------------------------------------------------------------------


def read_classes(classes: Any) -> list[str]:
    """Names from a list, or from a text file with one a line."""
    if isinstance(classes, str | os.PathLike):
        file = Path(classes).expanduser()
        require(file.is_file(), f"there is no file {file}: one class name a line")
        lines = read_text(file, "a text file with a class name a line").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
    names = [str(name).strip() for name in classes]
    require(all(names), "a class name is empty")
    require(len(names) >= 2, f"there must be at least two classes, and there are {len(names)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"classes are named twice: {few(twice)}")
    return names


def find_descriptions(descriptions: Descriptions, names: Sequence[str]) -> tuple[dict[str, list[str]], str]:
    """Sentences by class, and where they are from: what is given, or what comes with the project for such names."""
    if isinstance(descriptions, Mapping):
        unknown = sorted(set(descriptions) - set(names))
        require(not unknown, f"there are descriptions of {few(unknown)}, which are no classes")
        return {name: list(sentences) for name, sentences in descriptions.items() if sentences}, "as given"
    if descriptions:
        file = Path(descriptions).expanduser()
        require(file.is_file(), f"there is no file {file}: JSON, class name -> list of sentences")
        lists = load_descriptions(file, names)
        return {name: found for name, found in zip(names, lists, strict=True) if found}, str(file)
    return shipped_descriptions(names)


def shipped_descriptions(names: Sequence[str]) -> tuple[dict[str, list[str]], str]:
    """From the file of the project that knows most of these names, if that is more than half of them."""
    best: dict[str, list[str]] = {}
    source = ""
    for file in sorted(DESCRIPTIONS.glob("*.json")):
        table = read_table(file)
        keys = match_names(names, table)
        found = {name: table[keys[name]] for name in names if name in keys and table[keys[name]]}
        if len(found) > max(len(best), len(names) / 2):
            best, source = found, file.name
    return best, source
