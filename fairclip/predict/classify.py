"""Files of images -> rows of classes, a batch at a time: what `fair predict` and `fair adapt` do with many images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from fairclip.core.bars import bar
from fairclip.core.errors import UserError
from fairclip.core.image_files import images_below, left_out, printable
from fairclip.predict.explanation import Example, Explanation
from fairclip.predict.images import THREADS, read_image
from fairclip.predict.predictor import Predictor

NONE = "none of these"  # in the place of the likeliest class, of an image that is like none


def find_images(places: Sequence[str]) -> list[str]:
    """The files named, and all image files below the folders named; each once, in the order given.

    Raises:
        UserError: a place that is not there, or a folder without images.
    """
    found: list[str] = []
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            below = list(images_below(path).values())
            if not below:
                raise UserError(f"there are no images in {printable(place)}{left_out(path)}")
            found += below
        elif path.exists():
            found.append(str(path))
        else:
            raise UserError(f"there is no image or folder {printable(place)}")
    return list(dict.fromkeys(found))


@dataclass
class Answers:
    """What came out, in the order of the images."""

    rows: list[list[str]] = field(default_factory=list)  # of the CSV, one for each image that can be read
    boxes: list[list[str]] = field(default_factory=list)  # one for each crop that counted
    features: list[Tensor] = field(default_factory=list)  # of the whole images, a batch each, if asked for
    examples: list[Example] = field(default_factory=list)  # of the first images, as many as were asked for
    problems: list[str] = field(default_factory=list)  # what is wrong with the other images


def try_to_read(path: str, upright: bool) -> Image.Image | str:
    """The image, or what is wrong with it."""
    try:
        return read_image(path, upright)
    except UserError as error:
        return str(error)


def read_batches(
    paths: Sequence[str], size: int, problems: list[str], upright: bool
) -> Iterator[dict[str, Image.Image]]:
    """Up to ``size`` images at a time, by path. Those that cannot be read are left out: ``problems`` says why."""
    progress = bar(None, "predict", "image", total=len(paths))
    with progress, ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(paths), size):
            part = paths[start : start + size]
            read = dict(zip(part, pool.map(partial(try_to_read, upright=upright), part), strict=True))
            progress.update(len(read))
            problems += [image for image in read.values() if isinstance(image, str)]
            if images := {path: image for path, image in read.items() if not isinstance(image, str)}:
                yield images


def classify(
    predictor: Predictor,
    paths: Sequence[str],
    top: int,
    crops: bool,
    batch: int,
    least: float = -1.0,
    features: bool = False,
    examples: int = 0,
) -> Answers:
    """Classify the images of these files, ``batch`` at a time.

    Args:
        top: classes in a row.
        crops: by local crops, not by one centre crop.
        least: an image whose cosine with its likeliest class is below this is none of the classes.
        features: keep the images' features.
        examples: images whose crops are kept to be drawn, of ``crops``.
    """
    answers = Answers()
    for images in read_batches(paths, batch, answers.problems, predictor.upright):
        pictures = list(images.values())
        if features or not crops:
            encoded = predictor.features(pictures, batch=batch)
        if crops:
            explained = predictor.explain(pictures, batch=batch)
            for path, explanation in zip(images, explained, strict=True):
                answers.boxes += box_rows(path, explanation)
                if len(answers.examples) < examples:
                    answers.examples.append(Example(caption=printable(path), **vars(explanation)))
            likeness = torch.stack([explanation.scores for explanation in explained])
        else:
            likeness = predictor.compare(encoded)
        if features:
            answers.features.append(encoded)
        answers.rows += class_rows(predictor, list(images), likeness, top, least)
    return answers


def class_rows(
    predictor: Predictor, paths: Sequence[str], likeness: Tensor, top: int, least: float
) -> Iterator[list[str]]:
    """A row of the CSV for each image, by its cosines with the classes, [B, K]."""
    best = predictor.to_probabilities(likeness).topk(top, dim=1)
    first = likeness.gather(1, best.indices[:, :1])[:, 0].tolist()
    for path, values, labels, cosine in zip(paths, best.values.tolist(), best.indices.tolist(), first, strict=True):
        names = [predictor.classnames[i] for i in labels]
        if cosine < least:
            names[0] = NONE
        pairs = (text for name, p in zip(names, values, strict=True) for text in (name, f"{p:.4f}"))
        yield [path, *pairs, f"{cosine:.4f}"]


def box_rows(path: str, explanation: Explanation) -> Iterator[list[str]]:
    """A row for each crop that counted, most relevant first."""
    for rank, i in enumerate(explanation.selected):
        sides = [f"{side:.1f}" for side in explanation.boxes[i]]
        yield [path, str(rank + 1), *sides, f"{explanation.relevance[rank]:.4f}", f"{explanation.weights[rank]:.4f}"]
