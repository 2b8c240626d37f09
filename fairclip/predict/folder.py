"""A trained model as a folder to share: safetensors and JSON, nothing that is unpickled.

fair.json          format, class names, the backbone's name and hash, the settings of predictions, some results
model.safetensors  `anchors` [K, d], and the parameters of the tower that training moved, as `visual.…`
README.md          a model card, which stays as it is once it is there
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairclip.backbones.open_clip_models import FOLDER, HUB, PREFIX
from fairclip.core.errors import UserError, few, require
from fairclip.core.files import atomic
from fairclip.core.reading import read_json
from fairclip.core.safetensors_files import read_safetensors, write_safetensors
from fairclip.core.tensor_files import digest_of
from fairclip.predict.card import model_card
from fairclip.predict.folder_facts import check_facts
from fairclip.predict.runs import LATER_SETTINGS, TrainedModel

FORMAT = "fair-folder-1"
FACTS, MODEL, CARD = "fair.json", "model.safetensors", "README.md"
ANCHORS = "anchors"


def is_shared(path: Path) -> bool:
    """Whether this is such a folder. One that is a run's, too, counts as a run."""
    return (path / FACTS).is_file() and not (path / "config.yaml").exists()


# -- Writing -----------------------------------------------------------------------------------------------------------


def write_folder(trained: TrainedModel, folder: Path) -> None:
    """Write a model into a folder, which is made if it is not there. A README.md that is there stays.

    Raises:
        UserError: the folder is a file or that of a run, the package safetensors is missing, or the model has settings
            that could not be read again.
    """
    require(not folder.exists() or folder.is_dir(), f"{folder} is a file: name a folder")
    require(not (folder / "config.yaml").exists(), f"{folder} is the folder of a run: name another one for the model")
    tensors = {ANCHORS: trained.anchors, **trained.state_dict}
    tensors = dict(sorted(tensors.items()))
    facts = {
        "format": FORMAT,
        "classnames": trained.classnames,
        "backbone": shared_name(trained.backbone),
        "tower_hash": trained.tower_hash,
        "text_hash": trained.text_hash,
        "settings": trained.settings,
        "results": trained.results,
        "sha256": digest_of(tensors),
    }
    text = json.dumps(facts, indent=2) + "\n"
    read_back = json.loads(text)
    check_facts({key: read_back[key] for key in read_back if key != "format"}, folder / FACTS)
    with atomic(folder / MODEL) as temporary:
        write_safetensors(tensors, temporary, {"format": "pt"})
    if not (folder / CARD).exists():
        with atomic(folder / CARD) as temporary:
            temporary.write_text(model_card(trained, shared_name(trained.backbone)), encoding="utf-8")
    with atomic(folder / FACTS) as temporary:  # last: where it is, the others are
        temporary.write_text(text, encoding="utf-8")


def shared_name(backbone: str) -> str:
    """A backbone's name, without the folders of a file on this machine."""
    before, place = file_in(backbone)
    return before + Path(place).name if is_here(backbone) else backbone


def file_in(backbone: str) -> tuple[str, str]:
    """What of a backbone's name may be a file or a folder, and what stands before it."""
    if backbone.startswith(HUB):
        return backbone, ""
    if backbone.startswith(FOLDER):
        return FOLDER, backbone.removeprefix(FOLDER)
    if backbone.startswith(PREFIX):
        model, slash, place = backbone.partition("/")
        return model + slash, place
    return "", backbone


def is_here(backbone: str) -> bool:
    """Whether a backbone's name leads to a place on this machine."""
    _, place = file_in(backbone)
    path = Path(place).expanduser()
    return bool(place) and (path.is_absolute() or ".." in path.parts or path.exists())


# -- Reading -----------------------------------------------------------------------------------------------------------


def read_folder(folder: Path, backbone: str = "", inside: Path | None = None) -> TrainedModel:
    """The model in a folder of ``write_folder``, whoever wrote it: all that is read is checked.

    Args:
        backbone: the name or file that the caller loads; "": the one that the folder names, which must not be a file of
            this machine that the folder chose.
        inside: where links may lead to, for a cache that has its files beside the folder; default: the folder.

    Raises:
        UserError: what is wrong with which file.
    """
    allowed = (inside or folder).resolve()
    for name in (FACTS, MODEL):
        file = folder / name
        require(file.is_file(), f"{folder} is not the folder of a shared model: it has no {name}")
        require(file.resolve().is_relative_to(allowed), f"{file} leads out of the folder: put the file itself there")
    facts = read_facts(folder / FACTS)
    name = facts["backbone"]
    require(
        backbone or not is_here(name),
        f"{folder / FACTS} names the backbone {name}, which is a file on this machine: if that is the one, say so "
        "(backbone, or --backbone)",
    )
    tensors = read_tensors(folder / MODEL, len(facts["classnames"]), facts.pop("sha256", None))
    anchors = tensors.pop(ANCHORS)
    facts["settings"] = LATER_SETTINGS | facts["settings"]
    return TrainedModel(state_dict=tensors, anchors=anchors, **facts)


def read_facts(file: Path) -> dict[str, Any]:
    content = read_json(file, "the facts of a shared model")
    if content.pop("format", None) != FORMAT:
        raise UserError(f"{file} does not have the format {FORMAT}: Predictor.to_folder writes it")
    check_facts(content, file)
    return content


def read_tensors(file: Path, classes: int, digest: str | None = None) -> dict[str, Tensor]:
    """`anchors` [classes, d] and parameters of the tower. Whether these fit the tower is seen when it is there.

    Args: digest, that the tensors must have; None: not known, as of folders from before it was noted.
    """
    tensors = read_safetensors(file)
    others = sorted(name for name in tensors if name != ANCHORS and not name.startswith("visual."))
    require(not others, f"{file} has tensors that no model of ours has: {few(others)}")
    require(ANCHORS in tensors, f"{file} has no tensor {ANCHORS}, the class vectors")
    shape = tuple(tensors[ANCHORS].shape)
    require(
        len(shape) == 2 and shape[0] == classes,
        f"{file}: {ANCHORS} has the shape {shape}, and {FACTS} has {classes} class names: it should be [{classes}, d]",
    )
    odd = [name for name, tensor in tensors.items() if not (tensor.is_floating_point() and tensor.isfinite().all())]
    require(not odd, f"{file} has tensors that are not finite numbers: {few(odd)}")
    require(
        digest in (None, digest_of(dict(sorted(tensors.items())))),
        f"{file} is damaged, or belongs to another {FACTS}: its tensors have another SHA-256 than that names",
    )
    return {name: tensor.to(torch.float32) for name, tensor in tensors.items()}
