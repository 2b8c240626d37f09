"""A procedural fine-grained data set of cars: classes, sentences and pictures (see `catalogue` and `render`)."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image

from fairclip.core.bars import bar
from fairclip.core.files import work_folder
from fairclip.core.log import log
from fairclip.data.synth.catalogue import CarModel, catalogue, describe
from fairclip.data.synth.lights import BLUE_HOUR, LIGHTS
from fairclip.data.synth.render import render

__all__ = ["BLUE_HOUR", "LIGHTS", "catalogue", "class_images", "describe", "render", "render_dataset"]

COUNTS = {"train": 50, "val": 10, "test": 40}  # images a class
CLUTTER = 4.0


def render_dataset(folder: Path, seed: int = 0, light: str = BLUE_HOUR) -> None:
    """Renders the data set of `seed` in one of `LIGHTS` into `folder`, unless somebody else does so first.

    Writes `images/<class>/<split>_<k>.png`, `split_zhou_SynthCars.json` in CoOp's format and `descriptions.json`.
    Everything is drawn into a temporary folder beside it and renamed at the end: `folder` is whole or absent.
    """
    folder = Path(folder)
    models = catalogue(seed)
    log.info(f"Drawing the images of {folder.name}, this once")
    with work_folder(folder) as work:
        jobs = [(work / "images", model, label, seed, light) for label, model in enumerate(models)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            drawn = pool.map(_render_class, jobs)
            rendered = list(bar(drawn, f"drawing {folder.name}", "class", total=len(jobs)))
        split = {name: [item for items in rendered for item in items[name]] for name in COUNTS}
        _write_json(work / "split_zhou_SynthCars.json", split)
        _write_json(work / "descriptions.json", {model.name: describe(model) for model in models})
        try:
            os.rename(work, folder)
        except OSError:
            if not folder.is_dir():  # it is there: another run has drawn the very same images meanwhile
                raise


def class_images(model: CarModel, split: str, seed: int, light: str = BLUE_HOUR) -> Iterator[Image.Image]:
    """The images of one class in one split. Another light shows the same cars, in the same places."""
    rng = random.Random(f"synth-cars-{seed}-{model.name}-{split}")
    for _ in range(COUNTS[split]):
        yield render(model.body, model.values, rng, clutter=CLUTTER, light=light)[0]


def _render_class(job: tuple[Path, CarModel, int, int, str]) -> dict[str, list[tuple[str, int, str]]]:
    images, model, label, seed, light = job
    name = model.name.lower().replace(" ", "_")
    (images / name).mkdir(parents=True)
    items: dict[str, list[tuple[str, int, str]]] = {}
    for split in COUNTS:
        items[split] = []
        for k, image in enumerate(class_images(model, split, seed, light)):
            file = f"{name}/{split}_{k:03d}.png"
            image.save(images / file)
            items[split].append((file, label, model.name))
    return items


def _write_json(path: Path, data: object) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
