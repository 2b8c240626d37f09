"""Reading a trained model from a run's folder, or from a file that ``Predictor.save`` wrote."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fairclip.backbones.backbone import NO_OPTIONS
from fairclip.core import rules
from fairclip.core.errors import UserError, few, require
from fairclip.core.files import atomic
from fairclip.core.reading import read_yaml, reading
from fairclip.core.rules import Rule, check, check_nested
from fairclip.core.tensor_files import are_tensors, are_vectors, read_tensors, save_tensors
from fairclip.predict.folder_facts import RESULTS, SETTINGS, check_counts
from fairclip.run.checkpoints import POINTER, find_checkpoint, read_checkpoint
from fairclip.run.results import read_results

FORMAT = "fair-predictor-1"  # of the files that `write_saved` writes
# Settings that came later, with what was meant without them.
LATER_SETTINGS = {"resize": "shortest", "backbone_options": NO_OPTIONS.plain()}
CONFIG = {  # what is read of a run's config.yaml
    "TRAINER.NAME": Rule(rules.is_text, "a name"),
    "DATASET.NAME": Rule(rules.is_text, "a name"),
    "DATASET.ROOT": Rule(rules.is_string, "a folder", optional=True),
    "MODEL.BACKBONE.NAME": Rule(rules.is_text, "a name"),
    "OPTIM.MAX_EPOCH": Rule(rules.is_whole, "a whole number"),
    "INPUT.NO_TRANSFORM": Rule(rules.is_flag, "true or false"),
    "INPUT.TRANSFORMS": Rule(lambda value: isinstance(value, list), "a list of names"),
}
TOLD = ("accuracy", "crop_accuracy", "macro_f1", "split", "uses_labels")  # of results.json


@dataclass(frozen=True)
class TrainedModel:
    """All that a prediction needs besides the backbone's own file: tensors and plain data."""

    state_dict: dict[str, Tensor]  # the parameters of the tower that training moved
    anchors: Tensor  # [K, d]; only the direction of a row counts
    classnames: list[str]  # K, in the order of the anchors
    backbone: str  # name or file
    tower_hash: str | None  # fingerprint of the tower that training started from; None: not on record
    # What the run was (trainer, dataset, epoch, seed) and what else its checkpoint says under `prediction`.
    settings: dict[str, Any]
    # Of results.json, what people want to know of a model. Empty: not known, or of another epoch or other classes.
    results: dict[str, Any] = field(default_factory=dict)
    text_hash: str | None = None  # as ``tower_hash``, of the text tower and the temperature


def read_trained(path: Path, epoch: int | None = None) -> TrainedModel:
    """The model in a run's folder (its last checkpoint, or that of ``epoch``) or in a file of ``write_saved``.

    Raises:
        UserError: no run, an unfinished one, one whose model is not supported, or files of different runs.
    """
    if path.is_file():
        require(epoch is None, f"{path} is one saved model: an epoch can be chosen in a run's folder only")
    trained = read_saved(path) if path.is_file() else read_run(path, epoch)
    trained = replace(trained, settings=LATER_SETTINGS | trained.settings)
    check_model(trained, path)
    return trained


# -- One file ----------------------------------------------------------------------------------------------------------


MODEL = {
    "state_dict": Rule(are_tensors, "parameters by name, finite numbers"),
    "anchors": Rule(are_vectors, "a tensor [K, d] of finite numbers"),
    "classnames": Rule(rules.are_names, "a list of names"),
    "backbone": Rule(rules.is_text, "a name"),
    "tower_hash": Rule(rules.is_hash, "a SHA-256 or None"),
    "text_hash": Rule(rules.is_hash, "a SHA-256 or None", optional=True),
    "settings": Rule(rules.is_object, "settings by name"),
    "results": Rule(rules.is_object, "figures by name", optional=True),
}


def write_saved(trained: TrainedModel, path: Path) -> None:
    with atomic(path) as temporary:
        save_tensors({"format": FORMAT, **vars(trained)}, temporary)


def read_saved(path: Path) -> TrainedModel:
    content = read_tensors(path, "a saved model")
    if content.pop("format", None) != FORMAT:
        raise UserError(f"{path} is not a model that Predictor.save wrote. To load a run, give its folder")
    check(content, MODEL, path, closed=True)
    return TrainedModel(**content)


def check_model(trained: TrainedModel, source: Path) -> None:
    """Raises UserError for settings that a model cannot have, whichever way it was read."""
    check(trained.settings, SETTINGS, source, "settings.")
    check(trained.results, RESULTS, source, "results.")
    check_counts({"classnames": trained.classnames, "settings": trained.settings}, source)


# -- A run's folder ----------------------------------------------------------------------------------------------------


def read_run(folder: Path, epoch: int | None) -> TrainedModel:
    cfg = read_config(folder)
    trainer, dataset, last = cfg["TRAINER"]["NAME"], cfg["DATASET"]["NAME"], cfg["OPTIM"]["MAX_EPOCH"]
    backbone, images = cfg["MODEL"]["BACKBONE"]["NAME"], cfg["INPUT"]
    odd_images = images["NO_TRANSFORM"] or "instance_norm" in images["TRANSFORMS"]
    require(not odd_images, "INPUT.NO_TRANSFORM and the transform instance_norm are not supported in prediction")
    state, file = read_newest(folder, trainer, epoch)
    if "prediction" in state:
        prediction = state["prediction"]
    else:
        with reading(folder / "config.yaml", "the config of a run"):
            prediction = prediction_of_old_run(cfg, state)
    require("anchors" in prediction, f"{file} lacks prediction.anchors")
    anchors = prediction["anchors"]
    require(anchors is None or are_vectors(anchors), f"{file}: prediction.anchors is no tensor [K, d], finite numbers")
    if anchors is None:
        raise UserError(
            f"{folder} is a run of {trainer}, whose model is more than an image tower with one vector per class (as "
            "LaFTer's, whose prompts go through the tower, and microCLIP's, which pools patches), or whose checkpoint "
            "is from before it had the vectors (UPL, PromptLearning, MUST, LinearProbe: train again). Its predictions "
            "are in predictions.csv, and train.py --eval-only makes them for a data set"
        )
    by_epochs = state.get("optimizer") is not None  # a closed-form fit has no optimizer, and does not count epochs
    if epoch is None and by_epochs and state["epoch"] < last:
        raise UserError(
            f"{folder} is unfinished, {state['epoch']} of {last} epochs: run it to its end, or ask for epoch "
            f"{state['epoch']}"
        )
    results = check_files_agree(folder, state, backbone)
    run = {"trainer": trainer, "dataset": dataset, "epoch": state["epoch"], "seed": state.get("seed")}
    return TrainedModel(
        state_dict={name: value for name, value in state["state_dict"].items() if name.startswith("visual.")},
        anchors=anchors,
        classnames=state["classnames"],
        backbone=backbone,
        tower_hash=state.get("tower_hash"),
        text_hash=state.get("text_hash"),
        settings=run | {key: value for key, value in prediction.items() if key != "anchors"},
        results={key: results[key] for key in TOLD if key in results} if epoch in (None, last) else {},
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a run's config.yaml."""
    path = folder / "config.yaml"
    if not path.is_file():
        if not folder.is_dir():
            near = sorted(str(file.parent) for file in folder.parent.parent.glob("*/*/config.yaml"))
            raise UserError(f"there is no folder {folder}" + (f". Runs near it: {few(near, 5)}" if near else ""))
        below = sorted(file.parent.name for file in folder.glob("*/config.yaml"))
        raise UserError(
            f"{folder} is not the folder of a run: it has no config.yaml"
            + (f". Runs in it: {few(below, 5)}" if below else "")
        )
    cfg = read_yaml(path, "the config of a run")
    check_nested(cfg, CONFIG, path)
    return cfg


def read_newest(folder: Path, trainer: str, epoch: int | None) -> tuple[dict[str, Any], Path]:
    """The content of the newest checkpoint in a run's folder, or of that of ``epoch``; and its file."""
    pointers = list(folder.glob(f"*/{POINTER}"))
    require(pointers, f"{folder} has no checkpoint: the run has not finished an epoch, or {trainer} trains nothing")
    names = few(sorted(map(str, pointers)))
    require(len(pointers) == 1, f"{folder} has checkpoints of several models: {names}")
    path = find_checkpoint(pointers[0].parent, epoch)
    assert path is not None  # its pointer is there
    return read_checkpoint(path), path


def check_files_agree(folder: Path, state: dict[str, Any], backbone: str) -> dict[str, Any]:
    """Do the checkpoint, config.yaml and results.json belong together? Returns the results, if there are any."""
    results = read_results(folder) or {}
    if state["backbone"] != backbone or (results and results.get("config_hash") != state["config_hash"]):
        raise UserError(
            f"the files in {folder} belong to different runs: its checkpoint has backbone {state['backbone']}, config "
            f"{state['config_hash']}; config.yaml has backbone {backbone}, results.json config "
            f"{results.get('config_hash')}"
        )
    return results


def prediction_of_old_run(cfg: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """For runs from before checkpoints had `prediction`: the same facts, from config.yaml.

    A run has crops where the trainer's own settings have all of those below. In the oldest runs of that trainer, the
    anchors are among the parameters only.
    """
    images, own = cfg["INPUT"], cfg["TRAINER"][cfg["TRAINER"]["NAME"].upper()]
    keys = {"n": "N_CROPS", "k": "TOP_K", "alpha": "ALPHA", "beta": "BETA", "scale": "CROP_SCALE"}
    by_crops = all(key in own for key in keys.values())
    anchors = state.get("anchors")
    if anchors is None and by_crops:
        anchors = state["state_dict"].get("anchors.weight")
    return {
        "anchors": anchors,
        "crops": {name: own[key] for name, key in keys.items()} if by_crops and own["N_CROPS"] > 0 else None,
        "size": max(images["SIZE"]),
        "interpolation": images["INTERPOLATION"],
        "normalize": "normalize" in images["TRANSFORMS"],
        "mean": list(images["PIXEL_MEAN"]),
        "std": list(images["PIXEL_STD"]),
        "prec": own["PREC"],
    }
