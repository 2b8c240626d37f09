"""Predictions of a finished run: needs torch and clip, but no Dassl and no data set.

    from fairclip.predict.predictor import Predictor

    predictor = Predictor.load("output/synth_cars/FAIR/tiny/seed1")
    probabilities = predictor(["a.jpg", "b.jpg"])  # [2, K]; classes in the order of predictor.classnames
    predictor.top("a.jpg", k=3)  # [("Aster Prime", 0.91), ...]
    predictor.explain(["a.jpg"])  # which crops decided, an Explanation for each image
    predictor.save("cars.pt")  # what was trained, in one small file that load() takes too

Supported are the trainers whose model is the image tower with one anchor per class (FAIR; DPA). Crops are FAIR's alone.
Nothing here registers a trainer: train.py imports this module along with the others, to no effect.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms as T
import yaml
from PIL import Image
from torch import Tensor

from fairclip.backbones.openai import feature_dim, fingerprint, input_resolution, load_clip
from fairclip.core.errors import UserError, few
from fairclip.core.files import atomic
from fairclip.method.alignment import alignment_scores, select_crops
from fairclip.method.anchors import AnchorClassifier
from fairclip.run.checkpoints import read_checkpoint, read_file
from fairclip.run.results import read_results
from fairclip.views import loading
from fairclip.views.views import Box, FixedCrops, Normalize, crop_boxes

Picture = Image.Image | str | os.PathLike
FORMAT = "fair-predictor-1"  # of the files that save() writes
THREADS = min(8, os.cpu_count() or 1)  # that decode images


@dataclass
class Explanation:
    """What the crops of one image say, and which of them counted."""

    image: Image.Image
    boxes: list[Box]  # of all N crops: left, upper, right, lower, in the image's pixels
    selected: list[int]  # the k that counted, as indices into the boxes, most relevant first
    relevance: list[float]  # r_i = <z_i, z> of the selected
    weights: list[float]  # w_i of the selected, summing to 1
    crops: list[Image.Image]  # the selected at the model's input size
    local: Tensor  # probabilities by the crops, softmax(tau * LAS), [K]
    whole: Tensor  # probabilities by the centre crop alone, [K]


class Predictor:
    """A trained classifier of images. Made by ``Predictor.load``."""

    def __init__(self, model: AnchorClassifier, content: Mapping[str, Any], device: torch.device) -> None:
        settings = content["settings"]
        self.model = model
        self.device = device
        self.classnames: list[str] = list(content["classnames"])
        self.backbone: str = content["backbone"]
        self.settings: dict[str, Any] = settings
        self._content = content
        size, mean, std = settings["size"], settings["mean"], settings["std"]
        self._view = T.Compose(
            [  # Dassl's test transform
                T.Resize(size, T.InterpolationMode(settings["interpolation"])),
                T.CenterCrop(size),
                T.ToTensor(),
                *([T.Normalize(mean, std)] if settings["normalize"] else []),
            ]
        )
        if crops := settings["crops"]:
            self._views = FixedCrops(size, crops["n"], crops["alpha"], crops["beta"])
            self._normalize = Normalize(mean, std).to(device)

    # -- Loading and saving --------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls, path: str | os.PathLike, *, epoch: int | None = None, backbone: str = "", device: str | None = None
    ) -> "Predictor":
        """The model of a finished run.

        Args:
            path: a run's folder (OUTPUT_DIR), or a file that ``save`` wrote.
            epoch: a checkpoint other than the last (the run must have kept it: TRAIN.CHECKPOINT_FREQ).
            backbone: the backbone's name or file, where it is called something else than during training. It must be
                the same network: its tensors are compared with those that the run started from.
            device: "cpu", "cuda", ...; default: a GPU if there is one.

        Raises:
            UserError: no run, an unfinished one, a trainer that is not supported, files of different runs, or another
                backbone than the run's.
        """
        path = Path(path).expanduser()
        if path.is_file():
            if epoch is not None:
                raise UserError(f"{path} is one saved model: an epoch can be chosen in a run's folder only")
            content = _read_saved(path)
        else:
            content = _read_run(path, epoch)
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(_build_model(content, path, backbone, place), content, place)

    def save(self, path: str | os.PathLike) -> Path:
        """Write what was trained, the anchors and the settings to one file, without the backbone's own weights."""
        path = Path(path).expanduser()
        with atomic(path) as temporary:
            torch.save(dict(self._content), temporary)
        return path

    # -- Predicting ----------------------------------------------------------------------------------------------------

    def __call__(self, images: Picture | Sequence[Picture], *, crops: bool = False, batch: int = 64) -> Tensor:
        """Class probabilities, [B, K], float32, on the CPU.

        Args:
            images: PIL images or paths, one or several.
            crops: by the alignment score of local crops (N + 1 views an image) and not by one centre crop.
            batch: images that are encoded together.

        Raises:
            UserError: an image that cannot be read, or crops of a run that has none.
        """
        if crops:
            self._check_crops()
        rows = []
        for pictures in _batches(images, batch):
            if crops:
                rows.append(self._look(pictures)["local"])
            else:
                views = torch.stack([self._view(picture) for picture in pictures])
                with torch.inference_mode():
                    rows.append(self.model(views.to(self.device)).softmax(dim=1).cpu())
        return torch.cat(rows) if rows else torch.empty(0, len(self.classnames))

    def top(self, image: Picture, k: int = 5, *, crops: bool = False) -> list[tuple[str, float]]:
        """The k likeliest classes of one image and their probabilities, best first."""
        best = self(image, crops=crops)[0].topk(min(k, len(self.classnames)))
        return [(self.classnames[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    def explain(self, images: Picture | Sequence[Picture], *, batch: int = 64) -> list[Explanation]:
        """Which crops decided on each image. An image's crops are the same in every call.

        Raises:
            UserError: an image that cannot be read, or a run without crops.
        """
        self._check_crops()
        crops, told = self.settings["crops"], []
        for pictures in _batches(images, batch):
            found = self._look(pictures)
            for i, picture in enumerate(pictures):
                generator = torch.Generator().manual_seed(0)  # FixedCrops draws its crops by the same call
                boxes = crop_boxes(*picture.size, crops["n"], crops["alpha"], crops["beta"], generator)
                row = {name: rows[i] for name, rows in found.items()}
                told.append(explanation(picture, boxes, row, crops["scale"]))
        return told

    def _look(self, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        crops = self.settings["crops"]
        views = torch.stack([self._views(picture) for picture in pictures])
        return look(self.model, lambda view: self._normalize(view.to(self.device)), views, crops["k"], crops["scale"])

    def _check_crops(self) -> None:
        if not self.settings["crops"]:
            raise UserError(
                f"this model of {self.settings['trainer']} was trained without crops (FAIR with N_CROPS above 0 has "
                "them): predict from the whole image"
            )


# -- Crops, also for scripts/draw_crops.py -----------------------------------------------------------------------------


@torch.inference_mode()
def look(
    model: AnchorClassifier, pixels: Callable[[Tensor], Tensor], views: Tensor, k: int, scale: float
) -> dict[str, Tensor]:
    """What a model makes of images and their crops, on the CPU: the `crops` as they are, `index` and `relevance` of the
    k that count [B, k], and the probabilities by the crops (`local`) and by the whole image (`whole`), [B, K].

    Args:
        pixels: views in bytes [B, 3, S, S] -> what the image tower takes, on its device.
        views: [B, 1 + N, 3, S, S] in bytes: the whole image, then its crops.
        scale: sharpness of the crops' weights.
    """
    anchors, tau = model.anchors(), model.tau
    features = torch.stack([model.encode(pixels(view)) for view in views.unbind(1)], dim=1)
    z, local = features[:, 0], features[:, 1:]
    index, relevance = select_crops(z, local, k)
    las = alignment_scores(z, local, anchors, k, scale)
    found = {
        "crops": views[:, 1:],
        "index": index,
        "relevance": relevance,
        "local": (tau * las).softmax(dim=1),
        "whole": (tau * z @ anchors.t()).softmax(dim=1),
    }
    return {name: tensor.cpu() for name, tensor in found.items()}


def explanation(image: Image.Image, boxes: list[Box], found: Mapping[str, Tensor], scale: float) -> Explanation:
    """Of one image, from its row of what ``look`` found; ``boxes`` are where its crops were cut."""
    selected = found["index"].tolist()
    return Explanation(
        image=image,
        boxes=boxes,
        selected=selected,
        relevance=found["relevance"].tolist(),
        weights=(scale * found["relevance"]).softmax(dim=0).tolist(),
        crops=[Image.fromarray(found["crops"][i].permute(1, 2, 0).numpy()) for i in selected],
        local=found["local"],
        whole=found["whole"],
    )


# -- Images ------------------------------------------------------------------------------------------------------------


def read_image(path: str | os.PathLike) -> Image.Image:
    """An image as RGB, read like in training: an orientation that a camera noted (EXIF) is not applied.

    Raises:
        UserError: not there, not an image, or a damaged one; the message names it.
    """
    try:
        return loading.read_image(path)
    except Image.UnidentifiedImageError:  # says the path again
        empty = os.path.getsize(path) == 0
        raise UserError(f"{os.fspath(path)}: {'empty file' if empty else 'not an image'}") from None
    except Exception as error:  # Pillow's plugins raise about everything for a broken file
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{os.fspath(path)}: {reason}") from error


def _batches(images: Picture | Sequence[Picture], size: int) -> Iterator[list[Image.Image]]:
    """Lists of up to ``size`` RGB images. Files are decoded by threads: Pillow lets them run side by side."""
    images = [images] if isinstance(images, (Image.Image, str, os.PathLike)) else list(images)

    def rgb(image: Picture) -> Image.Image:
        return image.convert("RGB") if isinstance(image, Image.Image) else read_image(image)

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(images), size):
            yield list(pool.map(rgb, images[start : start + size]))


# -- Files -------------------------------------------------------------------------------------------------------------


def _read_saved(path: Path) -> dict[str, Any]:
    content = read_file(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path} is not a model that Predictor.save wrote. To load a run, give its folder")
    return content


def _read_run(folder: Path, epoch: int | None) -> dict[str, Any]:
    """What a file of ``save`` holds, gathered from a run's folder."""
    config = folder / "config.yaml"
    if not config.is_file():
        below = sorted(file.parent.name for file in folder.glob("*/config.yaml"))
        raise UserError(
            f"{folder} is not the folder of a run: it has no config.yaml"
            + (f". Runs in it: {few(below, 5)}" if below else "" if folder.is_dir() else ", or does not exist")
        )
    try:
        cfg = yaml.safe_load(config.read_text(encoding="utf-8"))
        trainer, last = cfg["TRAINER"]["NAME"], cfg["OPTIM"]["MAX_EPOCH"]
        state = _read_checkpoint(folder, trainer, last, epoch)
        settings = _settings(cfg, state)
        backbone = cfg["MODEL"]["BACKBONE"]["NAME"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{config} is not the config of a run ({type(error).__name__}: {error})") from error

    results = read_results(folder)
    if state["backbone"] != backbone or (results and results.get("config_hash") != state["config_hash"]):
        raise UserError(
            f"the files in {folder} belong to different runs: its checkpoint has backbone {state['backbone']}, config "
            f"{state['config_hash']}; config.yaml has backbone {backbone}, results.json config "
            f"{(results or {}).get('config_hash')}"
        )
    trained, anchors = dict(state["state_dict"]), _anchors(state, trainer)
    if anchors is None:
        raise UserError(
            f"{folder} is a run of {trainer}, whose model is more than an image tower with one anchor per class: its "
            "predictions are in predictions.csv, and train.py --eval-only makes them for a data set"
        )
    trained.pop("anchors.weight", None)
    return {
        "format": FORMAT,
        "state_dict": trained,
        "anchors": anchors,
        "classnames": state["classnames"],
        "backbone": backbone,
        "tower_hash": state.get("tower_hash"),
        "settings": settings,
    }


def _anchors(state: dict[str, Any], trainer: str) -> Tensor | None:
    """Those in a checkpoint; None for a model that has none."""
    if state.get("anchors") is None and trainer == "FAIR":  # runs from before checkpoints had `anchors`
        return state["state_dict"].get("anchors.weight")
    return state.get("anchors")


def _read_checkpoint(folder: Path, trainer: str, last: int, epoch: int | None) -> dict[str, Any]:
    pointers = list(folder.glob("*/checkpoint"))
    if len(pointers) != 1:
        raise UserError(
            f"{folder} has no checkpoint: the run has not finished an epoch, or {trainer} trains nothing"
            if not pointers
            else f"{folder} has checkpoints of several models: {few(sorted(map(str, pointers)))}"
        )
    home = pointers[0].parent
    path = home / (pointers[0].read_text().strip() if epoch is None else f"model.pth.tar-{epoch}")
    if not path.is_file():
        raise UserError(f"no checkpoint at {path} (there: {', '.join(sorted(os.listdir(home)))})")
    state = read_checkpoint(path)
    if epoch is None and state["epoch"] < last and _anchors(state, trainer) is not None:
        raise UserError(
            f"{folder} is unfinished, {state['epoch']} of {last} epochs: run it to its end, or ask for epoch "
            f"{state['epoch']}"
        )
    return state


def _settings(cfg: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """What decides a prediction besides the weights, in plain data."""
    images, trainer = cfg["INPUT"], cfg["TRAINER"]["NAME"]
    options = cfg["TRAINER"][trainer.upper()]
    if images["NO_TRANSFORM"] or "instance_norm" in images["TRANSFORMS"]:
        raise UserError("INPUT.NO_TRANSFORM and the transform instance_norm are not supported in prediction")
    crops = None
    if trainer == "FAIR" and options["N_CROPS"] > 0:
        crops = {
            "n": options["N_CROPS"],
            "k": options["TOP_K"],
            "alpha": options["ALPHA"],
            "beta": options["BETA"],
            "scale": options["CROP_SCALE"],
        }
    return {
        "trainer": trainer,
        "dataset": cfg["DATASET"]["NAME"],
        "epoch": state["epoch"],
        "seed": state.get("seed"),
        "prec": options["PREC"],
        "size": max(images["SIZE"]),
        "interpolation": images["INTERPOLATION"],
        "normalize": "normalize" in images["TRANSFORMS"],
        "mean": list(images["PIXEL_MEAN"]),
        "std": list(images["PIXEL_STD"]),
        "crops": crops,
    }


def _build_model(content: Mapping[str, Any], path: Path, backbone: str, device: torch.device) -> AnchorClassifier:
    """The classifier, after checking that backbone, anchors and class names belong together."""
    settings, anchors, names = content["settings"], content["anchors"], content["classnames"]
    if len(names) != len(anchors) or len(set(names)) != len(names):
        raise UserError(f"{path} is damaged: {len(anchors)} anchors for {len(set(names))} different class names")
    try:
        clip_model = load_clip(backbone or content["backbone"], device)
    except UserError as error:
        if backbone or "neither a known backbone nor a file" not in str(error):
            raise
        raise UserError(f"{error} The run was trained on that file; say where it is now (backbone)") from error
    tower, expected = clip_model.visual, content["tower_hash"]
    fits = input_resolution(clip_model) == settings["size"] and feature_dim(clip_model) == anchors.shape[1]
    if not fits or (expected and fingerprint(tower.state_dict()) != expected):
        raise UserError(
            f"{backbone or content['backbone']} is not the backbone that {path} was trained on ("
            + ("the same shape, but other weights" if fits else "another shape")
            + ")"
        )
    # float16 autocast is for GPUs; on a CPU the same weights run in full precision.
    prec = "fp32" if settings["prec"] == "amp" and device.type == "cpu" else settings["prec"]
    model = AnchorClassifier(tower, anchors, clip_model.logit_scale.exp().item(), prec).to(device)
    try:
        unexpected = model.load_state_dict(content["state_dict"], strict=False).unexpected_keys
    except RuntimeError as error:
        raise UserError(f"{path} does not fit {content['backbone']}: {error}") from error
    if unexpected:
        raise UserError(f"{path} has parameters that {content['backbone']} lacks: {few(unexpected)}")
    return model
