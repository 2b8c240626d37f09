"""Classifies images with a finished run: fair predict RUN IMAGES... [--output FILE.csv] [--crops]

    fair predict output/synth_cars/FAIR/tiny/seed1 photos/ car.jpg --output cars.csv

RUN is the folder of a finished run (output/<dataset>/<trainer>/<config>/seed<k>), a file that --save wrote, or the
folder of a shared model (Predictor.to_folder). IMAGES are files, and folders that are searched for images at any depth.
A line of the CSV is an image, its likeliest classes with their probabilities, and `likeness`: how like the first class
the image is, a cosine from -1 to 1. Probabilities only share one out among the classes; a likeness that is small beside
those of other images says that perhaps none fits. Needs neither Dassl nor a data set.

Exit status: 0; 1 if images could not be read (each is named, the others are classified); 2 for other mistakes, after a
message. Files are written at the end, whole or not at all.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fairclip.core.bars import bar
from fairclip.core.csv_files import as_csv
from fairclip.core.errors import UserError, require
from fairclip.core.files import atomic
from fairclip.core.image_files import images_below, left_out, printable
from fairclip.predict.draw import draw_page, save_page
from fairclip.predict.explanation import Example, Explanation
from fairclip.predict.images import THREADS, read_image
from fairclip.predict.predictor import Predictor

SHOWN = 16  # rows in a picture
NONE = "none of these"  # in the place of the likeliest class, of an image that is like none


# -- Reading and classifying -------------------------------------------------------------------------------------------


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
    examples: list[Example] = field(default_factory=list)  # of the first SHOWN images
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
) -> Answers:
    """Classify the images of these files, ``batch`` at a time.

    Args:
        top: classes in a row.
        crops: by local crops, not by one centre crop.
        least: an image whose cosine with its likeliest class is below this is none of the classes.
        features: keep the images' features.
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
                if len(answers.examples) < SHOWN:
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


# -- Writing -----------------------------------------------------------------------------------------------------------


def tell(message: str) -> None:
    """A message for people: standard output is for the CSV."""
    print(message, file=sys.stderr)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", "backslashreplace"))  # names of files may be any bytes
    tell(f"Wrote {path}")


def columns(top: int) -> list[str]:
    """The head of the table: the first names are those of the predictions.csv of runs and of fair adapt."""
    ranks = ["", *(f"_{rank}" for rank in range(2, top + 1))]
    return ["image", *(name + rank for rank in ranks for name in ("prediction", "probability")), "likeness"]


def write_answers(answers: Answers, classnames: Sequence[str], top: int, args: argparse.Namespace) -> None:
    """The table, printed or in --output, and the files of --boxes and --show."""
    text = as_csv(columns(top), answers.rows)
    if args.output:
        write_text(args.output, text)
    else:
        print(text, end="")
    if args.boxes:
        head = ["image", "crop", "left", "upper", "right", "lower", "relevance", "weight"]
        write_text(args.boxes, as_csv(head, answers.boxes))
    if args.features:
        images = np.array([printable(row[0]) for row in answers.rows])
        with atomic(args.features) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, images=images, features=torch.cat(answers.features).numpy())
        tell(f"Wrote {args.features}")
    if args.show:
        save_page(draw_page(answers.examples, classnames), args.show)
        part = f", the first {SHOWN} of {len(answers.rows)} images" if len(answers.rows) > SHOWN else ""
        tell(f"Wrote {args.show}{part}")


# -- Command line ------------------------------------------------------------------------------------------------------


def main(args: argparse.Namespace) -> int:
    require(args.top >= 1 and args.batch >= 1, "--top and --batch take whole numbers from 1")
    require(args.images or args.save, "name images or folders to classify")
    files = (args.output, args.boxes, args.show, args.features)
    require(args.images or not any(files), "--output, --boxes, --show and --features need images")
    require(-1 <= args.min_score <= 1, f"--min-score {args.min_score}: a cosine lies between -1 and 1")
    paths = find_images(args.images)
    with redirect_stdout(sys.stderr):  # whatever is said while a backbone is loaded
        predictor = Predictor.load(args.run, epoch=args.epoch, backbone=args.backbone, device=args.device)
    predictor.upright = not args.as_stored
    if args.save:
        tell(f"Wrote {predictor.save(args.save)}")
    if not paths:
        return 0

    top = min(args.top, len(predictor.classnames))
    crops = args.crops or bool(args.boxes or args.show)
    answers = classify(predictor, paths, top, crops, args.batch, args.min_score, bool(args.features))
    for place in map(Path, args.images):
        if place.is_dir() and (text := left_out(place)):
            tell(f"{printable(str(place))}{text}")
    for problem in answers.problems:
        tell(f"Skipped: {problem}")
    if answers.rows:
        write_answers(answers, predictor.classnames, top, args)
    else:
        tell("No image can be read: nothing is written")
    if answers.problems:
        tell(f"{len(answers.problems)} of {len(paths)} images were skipped")
    return 1 if answers.problems else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="folder of a finished run or of a shared model, or a file that --save wrote"
    )
    parser.add_argument("images", metavar="IMAGES", nargs="*", help="image files, and folders of images")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="classes in a line (default: 3)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="CSV file (default: print)")
    parser.add_argument("--crops", action="store_true", help="predict from local crops (the alignment score)")
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE",
        help="CSV file of the crops that decided: box in pixels, relevance, weight; implies --crops",
    )
    parser.add_argument(
        "--show",
        type=Path,
        metavar="FILE",
        help=f"PNG file that draws them for the first {SHOWN} images; implies --crops",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=-1.0,
        metavar="X",
        help=f"least cosine with the likeliest class (likeness); an image below it is '{NONE}'",
    )
    parser.add_argument(
        "--as-stored",
        action="store_true",
        help="images as they are in their files, as the benchmarks' protocol has it; else they are turned as the "
        "camera noted (EXIF), and transparent parts are white",
    )
    parser.add_argument("--features", type=Path, metavar="FILE", help="NPZ file of the images and their features")
    parser.add_argument("--epoch", type=int, help="a checkpoint other than the last")
    parser.add_argument("--backbone", default="", metavar="NAME", help="the run's backbone, if its file has moved")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--batch", type=int, default=64, help="images at a time (default: 64)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the trained part to one small file")
