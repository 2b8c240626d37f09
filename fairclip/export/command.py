"""Takes an adapted CLIP out of a run, in a layout that other software reads: fair export RUN --to LAYOUT --out FOLDER

    fair export output/synth_cars/FAIR/tiny/seed1 --to open_clip --out exported
    fair export model.pt --to onnx --out exported

RUN is the folder of a finished run, or a file of `fair predict --save`. Layouts:

    openai       model.pt, a state dict for clip.load and clip.build_model
    open_clip    a folder for open_clip.create_model("local-dir:FOLDER"), also of open_clip's own architectures
    hf           a folder for Transformers' CLIPModel.from_pretrained (Vision Transformers)
    safetensors  model.safetensors, OpenAI's names
    onnx         classifier.onnx: images -> features and logits, any number of images
    torchscript  classifier.ts, the same for torch.jit.load

Beside it lie classes.npy, the class vectors [K, d] (unit rows, in the order of the names), and export.json: class
names, temperature, how images are prepared, and what the run was.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from fairclip.core.errors import require
from fairclip.core.files import atomic, work_folder
from fairclip.core.log import log
from fairclip.export.classifier import Classifier
from fairclip.export.layouts import LAYOUTS, write_json
from fairclip.predict.predictor import Predictor

FILES = ("classes.npy", "export.json")


@torch.no_grad()
def export(run: str | Path, layout: str, folder: str | Path, backbone: str = "") -> Path:
    """Write a run's adapted CLIP and its classes into ``folder``, and return that.

    Args:
        run: as of ``Predictor.load``.
        layout: a key of ``LAYOUTS``.
        folder: made if it is not there; files of the same names are written over.
        backbone: name or file, where the run's has moved.

    Raises:
        UserError: as of ``Predictor.load``; a layout that the backbone has no place in, or that needs a package.
    """
    require(layout in LAYOUTS, f"--to {layout}: choose one of {', '.join(LAYOUTS)}")
    place = Path(folder).expanduser()
    require(not place.exists() or place.is_dir(), f"--out {place} is a file: name a folder")
    predictor = Predictor.load(run, backbone=backbone, device="cpu")
    beyond = [key for key in ("lengths", "bias") if predictor.settings.get(key)]
    require(
        not beyond,
        f"{run} is a run of {predictor.settings['trainer']}, whose logits are more than cosines times a temperature "
        f"(its classes have {' and '.join(beyond)}): layouts of other software have no place for that",
    )
    loaded = predictor.loaded_backbone(backbone)
    loaded.visual.load_state_dict(predictor.model.visual.state_dict())  # as it was trained
    anchors = predictor.model.class_vectors()
    assert anchors is not None  # a predictor has them
    classifier = Classifier(loaded.visual, anchors, predictor.model.tau).eval().requires_grad_(False)
    settings = predictor.settings
    facts = {name: settings[name] for name in ("size", "mean", "std", "interpolation", "resize", "normalize")}
    place.mkdir(parents=True, exist_ok=True)
    # First beside the others, so that a failure leaves no half of them.
    with work_folder(place / "export") as temporary:
        files = LAYOUTS[layout](loaded, classifier, facts, temporary)
        np.save(temporary / FILES[0], classifier.anchors.numpy(), allow_pickle=False)
        about = {name: settings[name] for name in ("trainer", "dataset", "epoch", "seed")}
        content = {"classes": predictor.classnames, "tau": classifier.tau, "images": facts, "run": about}
        write_json({"layout": layout, "files": files, "backbone": predictor.backbone} | content, temporary / FILES[1])
        for file in (*files, *FILES):
            with atomic(place / file) as target:
                os.replace(temporary / file, target)
    return place


def main(args: argparse.Namespace) -> None:
    log.info(f"Wrote {export(args.run, args.to, args.out, args.backbone)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or a file that fair predict --save wrote")
    parser.add_argument("--to", required=True, metavar="LAYOUT", help=f"one of {', '.join(LAYOUTS)}")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the files go")
    parser.add_argument("--backbone", default="", metavar="NAME", help="the run's backbone, if its file has moved")
