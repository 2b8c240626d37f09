"""Draws what FAIR sees in a few test images: fair draw-crops [--run RUN] [--root DATA] [--images 4]

    fair draw-crops --run output/synth_cars/FAIR/tiny/seed1 --output crops.png

A row for each image: where its crops are, those of most weight, at most four, numbered by relevance r_i, with thicker
lines for more weight; these crops as the model gets them, with their weights w_i; and the likeliest classes by the
alignment score of the crops and by the whole image. RUN is the folder of a finished run with crops, and needs no Dassl;
without it, the backbone and the anchors are untrained, and the images are those of SynthCars.

First come images on which the crops turn a wrong answer right, then as many on which they turn a right one wrong: both
evenly spaced among those of up to 128 test images. Where there are too few, the first images of evenly spaced classes
follow. The places of the crops, relative to the image, are the same for all images and in every call, as in
`fair predict --crops`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fairclip.core.errors import UserError, require
from fairclip.core.log import log
from fairclip.core.places import CONFIGS, DATA
from fairclip.predict.draw import draw_page, save_page
from fairclip.predict.examples import telling_examples
from fairclip.predict.predictor import Predictor
from fairclip.predict.runs import TrainedModel, read_config
from fairclip.run.results import read_predictions

Labelled = list[tuple[str, str]]  # path and class name of each image, in the test set's order


def trained(run: Path, root: str, backbone: str) -> tuple[Predictor, Labelled]:
    """The model of a finished run, and its test images.

    Args:
        root: the data folder; "": where the run found it.

    Raises:
        UserError: no finished run, another backbone than the run's, or the images are not there.
    """
    predictor = Predictor.load(run, backbone=backbone)
    rows = read_predictions(run)
    if not rows:
        raise UserError(f"{run} has no predictions.csv to say what its test images are")
    folder = Path(root or read_config(run)["DATASET"].get("ROOT", "")).expanduser()
    first = folder / rows[0][0]
    require(first.is_file(), f"the run's test images are not in {folder} (no {first}): name the data folder by --root")
    return predictor, [(str(folder / image), label) for image, label, _ in rows]


def untrained(root: str, backbone: str) -> tuple[Predictor, Labelled]:
    """FAIR before its first step on SynthCars, and the test images.

    Raises:
        UserError: an unknown backbone, or missing data.
    """
    from fairclip.core.plugins import import_plugins
    from fairclip.core.toolbox import use_dassl
    from fairclip.run import config as configs
    from fairclip.run import launch

    use_dassl(announce=False)
    modules, _ = import_plugins("trainers", "datasets")
    from dassl.engine import build_trainer

    arguments = ["--root", root or str(DATA), "--trainer", "FAIR", "--backbone", backbone]
    arguments += ["--config-file", str(CONFIGS / "trainers/FAIR/tiny.yaml")]
    arguments += ["--dataset-config-file", str(CONFIGS / "datasets/synth_cars.yaml"), "VERBOSE", "False"]
    trainer = build_trainer(configs.build_cfg(launch.parse_args(arguments), modules))
    prediction = trainer.prediction()
    model = TrainedModel(
        state_dict={},
        anchors=prediction.pop("anchors"),
        classnames=trainer.classnames,
        backbone=trainer.cfg.MODEL.BACKBONE.NAME,
        tower_hash=None,
        settings={"trainer": "FAIR", "dataset": trainer.cfg.DATASET.NAME, "epoch": 0, "seed": None, **prediction},
    )
    images = [(item.impath, item.classname) for item in trainer.dm.dataset.test]
    return Predictor(trainer.model, model, trainer.device), images


def draw(predictor: Predictor, images: Sequence[tuple[str, str]], count: int, output: Path) -> None:
    predictor.check_crops()
    names = predictor.classnames
    require(1 <= count <= len(names), f"--images {count}: give a number from 1 to {len(names)}, the number of classes")
    chosen = telling_examples(predictor, images, count)
    page = draw_page(chosen.examples, names)
    save_page(page, output)
    log.info(chosen.rule)
    log.info(f"Wrote {output} ({page.width} x {page.height} pixels)")


def main(args: argparse.Namespace) -> None:
    if args.run:
        predictor, images = trained(args.run, args.root, args.backbone)
    else:
        predictor, images = untrained(args.root, args.backbone)
    draw(predictor, images, args.images, args.output or (args.run or Path()) / "crops.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--run", type=Path, help="folder of a finished run with crops; default: none, untrained anchors")
    add("--root", default="", help="folder that holds the data sets (default: the run's; without --run, data/)")
    add(
        "--backbone", default="", help="the run's backbone, if its file has moved; without --run: which (default: tiny)"
    )
    add("--images", type=int, default=4, help="rows (default: 4)")
    add("--output", type=Path, metavar="FILE", help="default: crops.png, in the folder of --run or else here")
