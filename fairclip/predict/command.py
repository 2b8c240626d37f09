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
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

from fairclip.core.csv_files import as_csv
from fairclip.core.errors import require
from fairclip.core.files import atomic
from fairclip.core.image_files import left_out, printable
from fairclip.predict.classify import NONE, Answers, classify, find_images
from fairclip.predict.draw import draw_page, save_page
from fairclip.predict.predictor import Predictor

SHOWN = 16  # rows in a picture


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
    examples = SHOWN if args.show else 0
    answers = classify(predictor, paths, top, crops, args.batch, args.min_score, bool(args.features), examples)
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
