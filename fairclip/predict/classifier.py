"""The classifier of a trained model, on the backbone that it was trained on."""

from pathlib import Path

import torch

from fairclip.backbones.backbone import Backbone, Options, UnknownBackbone
from fairclip.backbones.makers import load_backbone
from fairclip.core.errors import UserError, few
from fairclip.method.anchors import AnchorClassifier
from fairclip.predict.runs import TrainedModel


def backbone_of(trained: TrainedModel, name: str, device: torch.device) -> Backbone:
    """The backbone that a model was trained on.

    Args: name, of the backbone or its file; "": what the run calls it.

    Raises:
        UserError: there is none of this name.
    """
    options = Options.of(trained.settings["backbone_options"])
    try:
        return load_backbone(name or trained.backbone, device, options)
    except UnknownBackbone as error:
        if name:
            raise
        raise UserError(f"{error} The run was trained on that file; say where it is now (backbone)") from error


def precision_on(trained: TrainedModel, device: torch.device) -> str:
    """float16 autocast is for GPUs; on a CPU the same weights run in full precision."""
    prec = str(trained.settings["prec"])
    return "fp32" if prec == "amp" and device.type == "cpu" else prec


def build_classifier(trained: TrainedModel, source: Path, backbone: Backbone, device: torch.device) -> AnchorClassifier:
    """The classifier, after a check that backbone, anchors and class names belong together. What was trained is put
    into the backbone's own image tower.

    Args:
        source: where the model was read from, for messages.
        backbone: of ``backbone_of``.

    Raises:
        UserError: they do not.
    """
    anchors, names = trained.anchors, trained.classnames
    if len(names) != len(anchors) or len(set(names)) != len(names):
        raise UserError(f"{source} is damaged: {len(anchors)} anchors for {len(set(names))} different class names")
    fits = backbone.size == trained.settings["size"] and backbone.width == anchors.shape[1]
    if difference := _difference(backbone, trained, fits):
        raise UserError(f"{backbone.name} is not the backbone that {source} was trained on ({difference})")
    model = AnchorClassifier(backbone.visual, anchors, backbone.tau, precision_on(trained, device)).to(device)
    try:
        unexpected = model.load_state_dict(trained.state_dict, strict=False).unexpected_keys
    except RuntimeError as error:
        raise UserError(f"{source} does not fit {trained.backbone}: {error}") from error
    if unexpected:
        raise UserError(f"{source} has parameters that {trained.backbone} lacks: {few(unexpected)}")
    return model


def _difference(backbone: Backbone, trained: TrainedModel, fits: bool) -> str:
    """In what the backbone is another than the model's, "" if in nothing. A hash of None is not on record."""
    if not fits:
        return "another shape"
    if trained.tower_hash not in (None, backbone.fingerprint):
        return "the same shape, but other weights"
    return "" if trained.text_hash in (None, backbone.text_hash) else "another text tower or temperature"
