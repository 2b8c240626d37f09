"""From unlabelled images and class names to a classifier, in one call."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fairclip.adapting.settings import choose_settings, config_file
from fairclip.adapting.summary import Answer, in_words, read_words, summarize
from fairclip.adapting.task import Descriptions, Task, keep_task, make_task
from fairclip.backbones.backbone import Backbone
from fairclip.backbones.openai import BUNDLED
from fairclip.core.csv_files import as_csv
from fairclip.core.devices import choose_device
from fairclip.core.errors import require
from fairclip.core.files import atomic
from fairclip.core.image_files import printable
from fairclip.core.invocation import fair_command
from fairclip.core.log import log, show_messages
from fairclip.core.toolbox import use_dassl
from fairclip.method.anchors import AnchorClassifier, text_anchors
from fairclip.predict.classifier import backbone_of, build_classifier, precision_on
from fairclip.predict.classify import classify
from fairclip.predict.draw import draw_page, save_page
from fairclip.predict.examples import even
from fairclip.predict.explanation import Example
from fairclip.predict.predictor import Predictor
from fairclip.predict.runs import read_trained
from fairclip.run import launch
from fairclip.run.checkpoints import find_checkpoint, read_checkpoint

PREDICTIONS, SUMMARY, PICTURE = "predictions.csv", "summary.json", "crops.png"
DRAWN = 6  # images in the picture
FEW = 5  # images a class, below which a warning says that these are few


def adapt(
    images: Any,
    classes: Any,
    descriptions: Descriptions = None,
    backbone: str = "ViT-B/32",
    *,
    out: str | os.PathLike = "adapted",
    epochs: int = 0,
    device: str = "",
    seed: int = 1,
    settings: Sequence[str] = (),
) -> Predictor:
    """Adapt a backbone to classes by unlabelled images, with FAIR.

    What is found lies in ``out``: the checkpoint, predictions.csv (the class of each image, and what it was before),
    crops.png, a few images with their crops, and, written last, summary.json. The same call goes on where it was
    interrupted; where it was not, it trains nothing and says the same again.

    Args:
        images: a folder, in which images are found at any depth; a list of paths, PIL images, arrays or tensors; or a
            torch data set of such, whose labels are not read.
        classes: K names, or a text file with one a line.
        descriptions: sentences by class name, or a JSON file of them. None: those that come with the project, where
            they know more than half of the names.
        backbone: as of ``fairclip.backbones.makers.load_backbone``.
        out: folder of the adapted model.
        epochs: 0: chosen from the number of images and the device.
        device: "cpu", "cuda", "mps"; "": a GPU if there is one.
        seed: of all that is random.
        settings: further config keys and values, as ``("TRAINER.FAIR.N_CROPS", "8")``.

    Raises:
        UserError: what is wrong with which argument.
    """
    show_messages()  # a notebook should see how far it is
    require(epochs >= 0 and seed >= 0, f"epochs {epochs}, seed {seed}: numbers from 0 on")
    folder, place = Path(out).expanduser(), choose_device(device)
    require(not folder.exists() or folder.is_dir(), f"{folder} is a file: name a folder for the adapted model")
    own = {"backbone": backbone, "epochs": epochs, "seed": seed, "settings": list(settings)}
    task = make_task(images, classes, descriptions, folder, **own)
    keep_task(task, folder)
    if (folder / SUMMARY).is_file():
        predictor, words = Predictor.load(folder, device=str(place)), read_words(folder / SUMMARY)
        log.info(f"{folder} is finished already. To adapt anew, remove it, or choose another --out")
        say_result(words, folder)
        return predictor
    say_task(task)
    if backbone in BUNDLED:
        log.warning(f"{backbone} knows drawn cars alone: it shows how this works, and is of no use on photographs")
    chosen = [*choose_settings(len(task.images), place.type, backbone, epochs), *settings]
    train(folder, backbone, str(place), seed, chosen)
    return report(task, folder, place)


def say_task(task: Task) -> None:
    log.info(
        f"{len(task.images):,} images, {len(task.classes)} classes"
        + (f"; {len(task.apart):,} images of test/ and val/ are predicted, and not adapted to" if task.apart else "")
    )
    if len(task.images) < FEW * len(task.classes):
        log.warning(f"fewer than {FEW} images a class: look closely at what changed. Some dozens a class would help")
    known = len(task.descriptions)
    if known:
        log.info(f"Class descriptions: {known} of {len(task.classes)} classes, from {task.source}")
    else:
        log.info(
            "Class descriptions: none, so classes are known by their names alone. Sentences on what one sees of each "
            'class would help (descriptions={"name": ["a name with ..."]}; docs/descriptions.md)'
        )


def train(folder: Path, backbone: str, device: str, seed: int, settings: Sequence[str]) -> None:
    """A run of FAIR's trainer on the task in the folder."""
    use_dassl(announce=False)
    import fairclip.adapting.dataset  # noqa: F401 (registers the data set)

    flags = {
        "--root": folder,
        "--output-dir": folder,
        "--seed": seed,
        "--trainer": "FAIR",
        "--backbone": backbone,
        "--device": device,
        "--config-file": config_file(backbone),
    }
    words = [str(word) for pair in flags.items() for word in pair]
    keys = ["DATASET.NAME", "Unlabelled", "DATASET.SKIP_CORRUPT", "True", "TEST.NO_TEST", "True"]
    launch.run(launch.parse_args([*words, *keys, *settings]))


def report(task: Task, folder: Path, device: torch.device) -> Predictor:
    """Predictions, summary and picture, in the folder and in words; returns the adapted model."""
    trained = read_trained(folder, None)
    backbone = backbone_of(trained, "", device)
    # First the model as it was: the backbone is loaded once, and the trained parameters go into its very tower.
    start = Predictor(unadapted(backbone, task, precision_on(trained, device)), trained, device)
    before = classify(start, [*task.images, *task.apart], 1, False, 64)
    paths = [row[0] for row in before.rows]
    predictor = Predictor(build_classifier(trained, folder, backbone, device), trained, device)
    after = classify(predictor, paths, 1, False, 64)
    rows = zip(after.rows, before.rows, strict=True)
    answers = [Answer(new[0], new[1], float(new[2]), old[1]) for new, old in rows]
    table = as_csv(
        ["image", "prediction", "probability", "prediction_before"],
        ([answer.image, answer.label, f"{answer.probability:.4f}", answer.before] for answer in answers),
    )
    with atomic(folder / PREDICTIONS) as temporary:
        temporary.write_text(table, encoding="utf-8")
    if predictor.settings["crops"]:
        changed = [answer.image for answer in answers if answer.label != answer.before]
        same = [answer.image for answer in answers if answer.label == answer.before]
        shown = even(changed, DRAWN)
        shown += even(same, DRAWN - len(shown))
        examples = zip(below_common(shown, paths), predictor.explain(shown), strict=True)
        page = draw_page([Example(caption=name, **vars(found)) for name, found in examples], predictor.classnames)
        save_page(page, folder / PICTURE)
    summary = summarize(answers, last_agreement(folder))
    with atomic(folder / SUMMARY) as temporary:  # last: where it is, all is there
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    say_result(in_words(summary), folder)
    return predictor


def say_result(words: Sequence[str], folder: Path) -> None:
    for line in words:
        log.info(line)
    files = ", ".join(name for name in (PREDICTIONS, SUMMARY, PICTURE) if (folder / name).is_file())
    log.info(f"Adapted model: {folder} ({files})")
    log.info(f"To classify other images: {fair_command()} predict {shlex.quote(str(folder))} IMAGES")


def below_common(shown: Sequence[str], paths: Sequence[str]) -> list[str]:
    """These paths as titles: relative to the folder that all have in common."""
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [printable(os.path.relpath(path, common)) for path in shown]


def unadapted(backbone: Backbone, task: Task, prec: str) -> AnchorClassifier:
    """The classifier that training started from."""
    lists = [task.descriptions.get(name, []) for name in task.classes]
    with torch.no_grad():
        anchors = text_anchors(backbone, task.classes, lists)
    return AnchorClassifier(backbone.visual, anchors, backbone.tau, prec).to(anchors.device)


def last_agreement(folder: Path) -> float:
    path = find_checkpoint(folder / "fair")
    assert path is not None  # the model was loaded from it
    return float(read_checkpoint(path)["history"][-1]["agreement"])
