"""Predictions of a finished run, in Python: needs torch and clip, but no Dassl and no data set.

    from fairclip import Predictor

    predictor = Predictor.load("output/synth_cars/FAIR/tiny/seed1")
    probabilities = predictor(["a.jpg", "b.jpg"])  # [2, K]; classes in the order of predictor.classnames
    predictor.top("a.jpg", k=3)  # [("Aster Prime", 0.91), ...]
    predictor.explain(["a.jpg"])  # which crops decided, an Explanation for each image
    predictor.likeness("a.jpg").max()  # how like the best class it is at all: low for what is none of them
    predictor.features(["a.jpg", "b.jpg"])  # unit features of the adapted tower, [2, d]
    predictor.with_classes(["Aster", "Birch"])  # the adapted tower with other classes
    predictor.save("cars.pt")  # what was trained, in one small file that load() takes too
    predictor.to_folder("cars")  # the same to share: safetensors, JSON and a model card; push_to_hub() uploads it

Runs whose model is the image tower with one vector per class are supported. What else a prediction needs, such as the
settings of the crops, is in the run's checkpoint.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms as T
from PIL import Image
from torch import Tensor

from fairclip.backbones.backbone import Backbone
from fairclip.core.devices import choose_device
from fairclip.core.errors import few, require
from fairclip.method.anchors import AnchorClassifier, text_anchors
from fairclip.predict.classifier import backbone_of, build_classifier
from fairclip.predict.explanation import Explanation, ViewPredictions, explain_image, predict_views
from fairclip.predict.folder import is_shared, read_folder, write_folder
from fairclip.predict.hub import pull, push
from fairclip.predict.images import Picture, rgb_batches
from fairclip.predict.runs import TrainedModel, read_trained, write_saved
from fairclip.views.normalize import Normalize
from fairclip.views.views import Box, FixedCrops, whole_view


class Predictor:
    """A trained classifier of images. Made by ``Predictor.load``.

    Attributes:
        model: the classifier, on ``device``.
        classnames: K names, in the order of the probabilities.
        backbone: name or file of the backbone that the run was trained on.
        settings: what the run was, and what decides a prediction besides the weights.
        upright: whether images are turned as the camera noted (EXIF), and transparent parts shown on white. Set it to
            False for those of a benchmark, whose protocol reads them as they are stored.
    """

    upright = True

    def __init__(self, model: AnchorClassifier, trained: TrainedModel, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.classnames: list[str] = list(trained.classnames)
        self.backbone = trained.backbone
        self.settings: dict[str, Any] = trained.settings
        self._trained = trained
        size, mean, std = self.settings["size"], self.settings["mean"], self.settings["std"]
        form = {"interpolation": self.settings["interpolation"], "squash": self.settings["resize"] == "squash"}
        view = whole_view(size, **form)
        self._whole_view = T.Compose([view, T.Normalize(mean, std)]) if self.settings["normalize"] else view
        if crops := self.settings["crops"]:
            self._views = FixedCrops(size, crops["n"], crops["alpha"], crops["beta"], **form)
            self._normalize = Normalize(mean, std).to(device)

    # -- Loading and saving --------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls, path: str | os.PathLike, *, epoch: int | None = None, backbone: str = "", device: str | None = None
    ) -> "Predictor":
        """The model of a finished run.

        Args:
            path: a run's folder (OUTPUT_DIR), a file that ``save`` wrote, or a folder that ``to_folder`` wrote.
            epoch: a checkpoint other than the last (the run must have kept it: TRAIN.CHECKPOINT_FREQ).
            backbone: the backbone's name or file, where it is called something else than during training. It must be
                the same network: its tensors are compared with those that the run started from.
            device: "cpu", "cuda", ...; default: a GPU if there is one.

        Raises:
            UserError: no run, an unfinished one, a model that is not supported, files of different runs, or another
                backbone than the run's.
        """
        source = Path(path).expanduser()
        if is_shared(source):
            require(epoch is None, f"{source} is one shared model: an epoch can be chosen in a run's folder only")
            return cls.from_folder(source, backbone=backbone, device=device)
        return cls._made(read_trained(source, epoch), source, backbone, device)

    @classmethod
    def _made(cls, trained: TrainedModel, source: Path, backbone: str, device: str | None) -> "Predictor":
        place = choose_device(device or "")
        return cls(build_classifier(trained, source, backbone_of(trained, backbone, place), place), trained, place)

    def save(self, path: str | os.PathLike) -> Path:
        """Write what was trained, the anchors and the settings to one file, without the backbone's own weights."""
        file = Path(path).expanduser()
        write_saved(self._trained, file)
        return file

    # -- Sharing -------------------------------------------------------------------------------------------------------

    def to_folder(self, folder: str | os.PathLike) -> Path:
        """Write a folder to share: fair.json, model.safetensors and README.md, a model card, unless it is there.
        Raises UserError for a file or a run's folder, or where the package safetensors is missing."""
        place = Path(folder).expanduser()
        write_folder(self._trained, place)
        return place

    @classmethod
    def from_folder(cls, folder: str | os.PathLike, *, backbone: str = "", device: str | None = None) -> "Predictor":
        """The model of such a folder, whoever wrote it: nothing is unpickled, all that is read is checked. Arguments as
        for ``load``. Raises UserError: what is wrong with which file, or another backbone than the model's."""
        place = Path(folder).expanduser()
        return cls._made(read_folder(place, backbone), place, backbone, device)

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload what ``to_folder`` writes to the Hugging Face Hub, "owner/name", and return the address. A README.md
        that is there stays. Raises UserError with what the hub said; needs the package huggingface_hub."""
        return push(self._trained, repo_id, private)

    @classmethod
    def from_hub(
        cls, repo_id: str, *, revision: str | None = None, backbone: str = "", device: str | None = None
    ) -> "Predictor":
        """A model that ``push_to_hub`` uploaded, at a branch, tag or commit. The rest is as for ``from_folder``."""
        return cls._made(pull(repo_id, revision, backbone), Path(repo_id), backbone, device)

    # -- Predicting ----------------------------------------------------------------------------------------------------

    def __call__(self, images: Picture | Sequence[Picture], *, crops: bool = False, batch: int = 64) -> Tensor:
        """Class probabilities, [B, K], float32, on the CPU.

        Args:
            images: one or several, each a PIL image, a path, a file's bytes or the open file, or pixels: an array
                [H, W, 3] or a tensor [3, H, W], in bytes or as numbers from 0 to 1.
            crops: by the alignment score of local crops (N + 1 views an image) and not by one centre crop.
            batch: images that are encoded together.

        Raises:
            UserError: an image that cannot be read, or crops of a run that has none.
        """
        return self.to_probabilities(self.likeness(images, crops=crops, batch=batch))

    def likeness(self, images: Picture | Sequence[Picture], *, crops: bool = False, batch: int = 64) -> Tensor:
        """Cosines of images and class vectors, [B, K], in [-1, 1]: what probabilities are made of. A probability says
        which of the classes is likeliest; how high its cosine is says whether the image is like any of them.

        Arguments and errors as for a call.
        """
        if not crops:
            return self.compare(self.features(images, batch=batch))
        self.check_crops()
        rows = [self._predict_views(pictures).scores for pictures in rgb_batches(images, batch, self.upright)]
        return torch.cat(rows) if rows else torch.empty(0, len(self.classnames))

    def compare(self, features: Tensor) -> Tensor:
        """Cosines of unit features [B, d] and class vectors, [B, K]."""
        return features @ self.model.anchors().detach().cpu().t()

    def to_probabilities(self, likeness: Tensor) -> Tensor:
        """Class probabilities of cosines, [B, K] each."""
        logits = self.model.tau * likeness
        if self.settings.get("lengths"):
            logits = logits * torch.tensor(self.settings["lengths"])
        if self.settings.get("bias"):
            logits = logits + torch.tensor(self.settings["bias"])
        return logits.softmax(dim=1)

    def features(self, images: Picture | Sequence[Picture], *, batch: int = 64) -> Tensor:
        """Unit features of the adapted image tower, [B, d], float32, on the CPU; arguments and errors as for a call."""
        rows = [torch.empty(0, self.model.anchors.weight.shape[1])]
        for pictures in rgb_batches(images, batch, self.upright):
            views = torch.stack([self._whole_view(picture) for picture in pictures])
            with torch.inference_mode():
                rows.append(self.model.encode(views.to(self.device)).cpu())
        return torch.cat(rows)

    def with_classes(
        self, names: Sequence[str], descriptions: Mapping[str, Sequence[str]] | None = None
    ) -> "Predictor":
        """The adapted tower with other classes, whose vectors come from the text tower as it was before training.

        Args:
            names: K of them, all different.
            descriptions: sentences on classes, by name; a class without any is known by its name alone.

        Raises:
            UserError: names that are missing or double, or descriptions of other classes.
        """
        require(names and len(set(names)) == len(names), "with_classes needs class names, each of them once")
        unknown = sorted(set(descriptions or {}) - set(names))
        require(not unknown, f"there are descriptions of {few(unknown)}, which are no classes")
        lists = [list((descriptions or {}).get(name, ())) for name in names]
        anchors = text_anchors(self.loaded_backbone(), names, lists)
        settings = {key: value for key, value in self.settings.items() if key not in ("lengths", "bias")}
        trained = replace(self._trained, anchors=anchors.cpu(), classnames=list(names), settings=settings, results={})
        model = AnchorClassifier(self.model.visual, anchors, self.model.tau, self.model.prec).to(self.device)
        other = Predictor(model, trained, self.device)
        other.upright = self.upright
        return other

    def loaded_backbone(self, name: str = "") -> Backbone:
        """The backbone as it was before training, loaded again; ``name``, where it has moved."""
        return backbone_of(self._trained, name, self.device)

    def top(self, image: Picture, k: int = 5, *, crops: bool = False) -> list[tuple[str, float]]:
        """The k likeliest classes of one image and their probabilities, best first."""
        best = self(image, crops=crops)[0].topk(min(k, len(self.classnames)))
        return [(self.classnames[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    def explain(self, images: Picture | Sequence[Picture], *, batch: int = 64) -> list[Explanation]:
        """Which crops decided on each image. An image's crops are the same in every call.

        Raises:
            UserError: an image that cannot be read, or a run without crops.
        """
        self.check_crops()
        explained: list[Explanation] = []
        for pictures in rgb_batches(images, batch, self.upright):
            predicted = self._predict_views(pictures)
            explained += [
                explain_image(picture, self._crop_boxes(picture), predicted, row)
                for row, picture in enumerate(pictures)
            ]
        return explained

    def _predict_views(self, pictures: Sequence[Image.Image]) -> ViewPredictions:
        crops = self.settings["crops"]
        views = torch.stack([self._views(picture) for picture in pictures])

        def to_input(view: Tensor) -> Tensor:
            return self._normalize(view.to(self.device))

        return predict_views(self.model, to_input, views, crops["k"], crops["sharpness"])

    def _crop_boxes(self, picture: Image.Image) -> list[Box]:
        """Where the crops are: the first view is the whole image's."""
        return self._views.boxes(*picture.size)[1:]

    def check_crops(self) -> None:
        """Raises UserError if the model was trained without crops, or with crops weighted by an older rule."""
        crops, trainer = self.settings["crops"], self.settings["trainer"]
        require(crops, f"this model of {trainer} was trained without crops: predict from the whole image")
        require(
            "sharpness" in crops,
            f"this model of {trainer} is from before crops were weighted in standard deviations of their relevance: "
            "predict from the whole image, or train it again",
        )
