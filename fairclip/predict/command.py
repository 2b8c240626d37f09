"""Classifies images with a finished run: fair predict RUN IMAGES... [--output FILE.csv] [--crops]

RUN is the folder of a finished run (output/<dataset>/FAIR/<config>/seed<k>) or a file that --save wrote. IMAGES are
files, and folders that are searched for images at any depth. A line of the CSV is an image and its likeliest classes
with their probabilities. Needs neither Dassl nor a data set.

Exit status: 0; 1 if images could not be read (each is named, the others are classified); 2 for other mistakes, after a
message. Files are written at the end, whole or not at all.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.data.folders import images_below
from fairclip.predict import draw
from fairclip.predict.predictor import THREADS, Explanation, Predictor, read_image

SHOWN = 16  # rows in a picture


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
                raise UserError(f"there are no images in {place}")
            found += below
        elif path.exists():
            found.append(str(path))
        else:
            raise UserError(f"there is no image or folder {place}")
    return list(dict.fromkeys(found))


@dataclass
class Answers:
    """What came out, in the order of the images."""

    rows: list[list[str]] = field(default_factory=list)  # of the CSV, one for each image that can be read
    boxes: list[list[str]] = field(default_factory=list)  # one for each crop that counted
    examples: list[draw.Example] = field(default_factory=list)  # of the first SHOWN images
    problems: list[str] = field(default_factory=list)  # what is wrong with the other images


def try_to_read(path: str) -> Image.Image | str:
    """The image, or what is wrong with it."""
    try:
        return read_image(path)
    except UserError as error:
        return str(error)


def classify(predictor: Predictor, paths: Sequence[str], top: int, crops: bool, batch: int) -> Answers:
    answers = Answers()
    bar = tqdm(total=len(paths), desc="predict", unit="image", leave=False, disable=None)
    with bar, ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(paths), batch):
            read = dict(
                zip(paths[start : start + batch], pool.map(try_to_read, paths[start : start + batch]), strict=True)
            )
            bar.update(len(read))
            answers.problems += [image for image in read.values() if isinstance(image, str)]
            images = {path: image for path, image in read.items() if not isinstance(image, str)}
            if not images:
                continue
            if crops:
                explained = predictor.explain(list(images.values()), batch=batch)
                for path, example in zip(images, explained, strict=True):
                    answers.boxes += box_rows(path, example)
                    if len(answers.examples) < SHOWN:
                        answers.examples.append(draw.Example(truth=None, caption=path, **vars(example)))
                probabilities = torch.stack([example.local for example in explained])
            else:
                probabilities = predictor(list(images.values()), batch=batch)
            best = probabilities.topk(top, dim=1)
            for path, values, labels in zip(images, best.values.tolist(), best.indices.tolist(), strict=True):
                pairs = zip(labels, values, strict=True)
                answers.rows.append([path, *(t for i, p in pairs for t in (predictor.classnames[i], f"{p:.4f}"))])
    return answers


def box_rows(path: str, example: Explanation) -> Iterable[list[str]]:
    """A row for each crop that counted, most relevant first."""
    for rank, i in enumerate(example.selected):
        sides = [f"{side:.1f}" for side in example.boxes[i]]
        yield [path, str(rank + 1), *sides, f"{example.relevance[rank]:.4f}", f"{example.weights[rank]:.4f}"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"Wrote {path}", file=sys.stderr)


def main(args: argparse.Namespace) -> int:
    if args.top < 1 or args.batch < 1:
        raise UserError("--top and --batch take whole numbers from 1")
    if not args.images and not args.save:
        raise UserError("name images or folders to classify")
    if not args.images and (args.output or args.boxes or args.show):
        raise UserError("--output, --boxes and --show need images")
    paths = find_images(args.images)
    crops = args.crops or bool(args.boxes or args.show)
    with redirect_stdout(sys.stderr):  # standard output is for the CSV
        predictor = Predictor.load(args.run, epoch=args.epoch, backbone=args.backbone, device=args.device)
    if args.save:
        print(f"Wrote {predictor.save(args.save)}", file=sys.stderr)
    if not paths:
        return 0

    top = min(args.top, len(predictor.classnames))
    answers = classify(predictor, paths, top, crops, args.batch)
    for problem in answers.problems:
        print(f"Skipped: {problem}", file=sys.stderr)
    head = ["image", *(f"{column}_{i + 1}" for i in range(top) for column in ("class", "probability"))]
    if not answers.rows:
        print("No image can be read: nothing is written", file=sys.stderr)
    elif args.output:
        write(args.output, table(head, answers.rows))
    else:
        print(table(head, answers.rows), end="")
    if answers.rows and args.boxes:
        head = ["image", "crop", "left", "upper", "right", "lower", "relevance", "weight"]
        write(args.boxes, table(head, answers.boxes))
    if answers.rows and args.show:
        page = draw.draw_page(answers.examples, predictor.classnames)
        with atomic(args.show) as temporary:
            page.quantize(256).save(temporary, format="PNG", optimize=True)
        part = f", the first {SHOWN} of {len(answers.rows)} images" if len(answers.rows) > SHOWN else ""
        print(f"Wrote {args.show}{part}", file=sys.stderr)
    if answers.problems:
        print(f"{len(answers.problems)} of {len(paths)} images were skipped", file=sys.stderr)
    return 1 if answers.problems else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or a file that --save wrote")
    parser.add_argument("images", metavar="IMAGES", nargs="*", help="image files, and folders of images")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="classes in a line (default: 3)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="CSV file (default: print)")
    parser.add_argument("--crops", action="store_true", help="predict from local crops (FAIR's alignment score)")
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
    parser.add_argument("--epoch", type=int, help="a checkpoint other than the last")
    parser.add_argument("--backbone", default="", metavar="NAME", help="the run's backbone, if its file has moved")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--batch", type=int, default=64, help="images at a time (default: 64)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the trained part to one small file")
