"""Writes miniatures of data sets, in every layout that people have, with annotation files in the official formats.

A picture is a function of the image's official name alone, so that it can be told in whatever layout it lies.
"""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from dassl.config import get_cfg_default
from PIL import Image
from scipy.io import savemat

from datasets import synth_cars
from fairclip.data import settings
from fairclip.data.classes import class_list

TRAIN, TEST = 8, 4  # images of a class


def config(root: Path, name: str, **dataset):
    """The config of one data set, as train.py would make it; ``dataset`` sets keys of DATASET."""
    cfg = get_cfg_default()
    settings.extend_cfg(cfg)
    synth_cars.extend_cfg(cfg)
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.SEED = str(root), name, 1
    for key, value in dataset.items():
        cfg.DATASET[key] = value
    return cfg


# -- Helpers -----------------------------------------------------------------------------------------------------------


def picture(path: Path, name: str) -> None:
    """A small JPEG of four colours that depend on `name`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = np.frombuffer(random.Random(name).randbytes(12), np.uint8).reshape(2, 2, 3)
    Image.fromarray(colours).resize((16, 12), Image.Resampling.NEAREST).save(path, "JPEG", quality=95)


def records(rows: Iterable[dict]) -> np.ndarray:
    """A struct array for `savemat`, 1 x n as MATLAB has them, every field an object."""
    rows = list(rows)
    table = np.empty((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for index, row in enumerate(rows):
        table[0, index] = tuple(row.values())
    return table


def cells(texts: Sequence[str]) -> np.ndarray:
    """A cell array of text for `savemat`, 1 x n."""
    return np.array([texts], dtype=object)


def write_mat(path: Path, **variables) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# -- Stanford Cars -----------------------------------------------------------------------------------------------------

CARS = ("AM General Hummer SUV 2000", "Audi TTS Coupe 2012", "Ram C/V Cargo Van Minivan 2012")
CARS_WITH_COOPS_NAMES = ("coop", "kaggle", "mats at the root", "doubled", "other case", "wrapped", "tree", "vissl tree")
CARS_LAYOUTS = (*CARS_WITH_COOPS_NAMES, "flat")


def cars() -> list[tuple[str, str, str]]:
    """(part, official file name, source name of the class); the classes alternate."""
    return [
        (part, f"{number + 1:05}.jpg", CARS[number % len(CARS)])
        for part, count in (("train", TRAIN), ("test", TEST))
        for number in range(count * len(CARS))
    ]


def cars_labels() -> dict[str, int]:
    """source name -> label from 0, among all 196."""
    return {source: label for label, (_, source) in enumerate(class_list("stanford_cars"))}


def cars_zhou() -> dict[str, list]:
    """The split that stands for CoOp's: the last two training images of every class are for validation."""
    label, names = cars_labels(), [name for name, _ in class_list("stanford_cars")]
    split: dict[str, list] = {"train": [], "val": [], "test": []}
    for part, file, source in cars():
        index = (int(file[:5]) - 1) // len(CARS)
        place = "val" if part == "train" and index >= TRAIN - 2 else part
        split[place].append([f"cars_{part}/{file}", label[source], names[label[source]]])
    return split


def stanford_cars(root: Path, layout: str = "coop", zhou: bool = False, mats: bool = True) -> Path:
    """Writes the miniature to `root`/stanford_cars in one of CARS_LAYOUTS, with the split file if `zhou`, with the
    annotations if `mats` (trees never have them). Returns that folder."""
    home = root / "stanford_cars"
    inside = {"doubled": home / "stanford_cars", "wrapped": home / "archive" / "car_data"}.get(layout, home)
    folders = {
        "kaggle": {"train": "cars_train/cars_train", "test": "cars_test/cars_test"},
        "other case": {"train": "Cars_Train", "test": "Cars_Test"},
    }.get(layout, {"train": "cars_train", "test": "cars_test"})
    label = cars_labels()
    annotations: dict[str, list[dict]] = {"train": [], "test": [], "flat": []}
    for index, (part, file, source) in enumerate(cars()):
        place = f"{folders[part]}/{file.upper() if layout == 'other case' else file}"
        if layout == "tree":
            place = f"{part}/{source.replace('/', '-')}/{file}"
        elif layout == "vissl tree":
            place = f"{part}/{label[source]:03}_{source.replace('/', '_').replace(' ', '_')}/{file}"
        elif layout == "flat":  # numbered through, train and test mixed
            place = f"car_ims/{(index * 7) % len(cars()) + 1:06}.jpg"
        picture(inside / place, f"{part} {file}")
        box = {"bbox_x1": 1, "bbox_y1": 1, "bbox_x2": 9, "bbox_y2": 9}
        annotations[part].append({**box, "class": label[source] + 1, "fname": file})
        row = {"relative_im_path": place, **box, "class": label[source] + 1, "test": int(part == "test")}
        annotations["flat"].append(row)

    names = cells([source for _, source in class_list("stanford_cars")])
    if mats and layout == "flat":
        write_mat(inside / "cars_annos.mat", annotations=records(annotations["flat"]), class_names=names)
    elif mats and "tree" not in layout:
        devkit = {"kaggle": "car_devkit/devkit", "mats at the root": "."}.get(layout, "devkit")
        write_mat(inside / devkit / "cars_meta.mat", class_names=names)
        write_mat(inside / devkit / "cars_train_annos.mat", annotations=records(annotations["train"]))
        write_mat(inside / "cars_test_annos_withlabels.mat", annotations=records(annotations["test"]))
        unlabelled = [{key: row[key] for key in row if key != "class"} for row in annotations["test"]]
        write_mat(inside / devkit / "cars_test_annos.mat", annotations=records(unlabelled))
    if zhou:
        (home / "split_zhou_StanfordCars.json").write_text(json.dumps(cars_zhou()))
    return home


# -- Food-101 ----------------------------------------------------------------------------------------------------------

FOOD = ("apple_pie", "hot_and_sour_soup", "waffles")
FOOD_LAYOUTS = ("coop", "doubled", "tree")


def food() -> list[tuple[str, str]]:
    """(part, key without ending), as in meta/train.txt."""
    return [
        (part, f"{name}/{1000 * index + number}")
        for index, name in enumerate(FOOD)
        for part, numbers in (("train", range(TRAIN)), ("test", range(100, 100 + TEST)))
        for number in numbers
    ]


def food101(root: Path, layout: str = "coop", zhou: bool = False) -> Path:
    """Writes the miniature to `root`/food-101 in one of FOOD_LAYOUTS. Returns that folder."""
    home = root / "food-101"
    inside = home / "food-101" if layout == "doubled" else home
    for part, key in food():
        picture(inside / (part if layout == "tree" else "images") / f"{key}.jpg", key)
    if layout != "tree":
        for part in ("train", "test"):
            write_lines(inside / "meta" / f"{part}.txt", [key for p, key in food() if p == part])
        write_lines(inside / "meta" / "classes.txt", FOOD)
    if zhou:
        label = {name: index for index, (name, _) in enumerate(class_list("food-101"))}
        split: dict[str, list] = {"train": [], "val": [], "test": []}
        for number, (_, key) in enumerate(food()):  # official train and test are mixed, as in CoOp's
            name = key.split("/")[0]
            split[("train", "val", "test")[number % 3]].append([f"{key}.jpg", label[name], name])
        (home / "split_zhou_Food101.json").write_text(json.dumps(split))
    return home
