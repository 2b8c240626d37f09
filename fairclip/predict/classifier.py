"""The classifier of a trained model, on the backbone that it was trained on."""

from pathlib import Path

import torch

from fairclip.backbones.openai import UnknownBackbone, feature_dim, fingerprint, input_resolution, load_clip
from fairclip.core.errors import UserError, few
from fairclip.method.anchors import AnchorClassifier
from fairclip.predict.runs import TrainedModel


def build_classifier(trained: TrainedModel, source: Path, backbone: str, device: torch.device) -> AnchorClassifier:
    """The classifier, after a check that backbone, anchors and class names belong together.

    Args:
        source: where the model was read from, for messages.
        backbone: name or file of the backbone; "": what the run calls it.

    Raises:
        UserError: they do not, or there is no such backbone.
    """
    anchors, names = trained.anchors, trained.classnames
    if len(names) != len(anchors) or len(set(names)) != len(names):
        raise UserError(f"{source} is damaged: {len(anchors)} anchors for {len(set(names))} different class names")
    try:
        clip_model = load_clip(backbone or trained.backbone, device)
    except UnknownBackbone as error:
        if backbone:
            raise
        raise UserError(f"{error} The run was trained on that file; say where it is now (backbone)") from error
    tower, expected = clip_model.visual, trained.tower_hash
    fits = input_resolution(clip_model) == trained.settings["size"] and feature_dim(clip_model) == anchors.shape[1]
    if not fits or (expected and fingerprint(tower.state_dict()) != expected):
        reason = "the same shape, but other weights" if fits else "another shape"
        raise UserError(f"{backbone or trained.backbone} is not the backbone that {source} was trained on ({reason})")
    prec = trained.settings["prec"]
    if prec == "amp" and device.type == "cpu":
        prec = "fp32"  # float16 autocast is for GPUs; on a CPU the same weights run in full precision
    model = AnchorClassifier(tower, anchors, clip_model.logit_scale.exp().item(), prec).to(device)
    try:
        unexpected = model.load_state_dict(trained.state_dict, strict=False).unexpected_keys
    except RuntimeError as error:
        raise UserError(f"{source} does not fit {trained.backbone}: {error}") from error
    if unexpected:
        raise UserError(f"{source} has parameters that {trained.backbone} lacks: {few(unexpected)}")
    return model
