"""A small data set, a random CLIP and a call of train.py, for the tests of whole runs."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from PIL import Image

import train

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ["red car", "green car", "blue car"]
EPOCHS = 3


@DATASET_REGISTRY.register()
class Toy(DatasetBase):
    """Images and labels that DATASET.ROOT/split.json lists, and descriptions beside it."""

    def __init__(self, cfg):
        root = Path(cfg.DATASET.ROOT)
        split = json.loads((root / "split.json").read_text())
        self.descriptions_file = root / "descriptions.json"
        train_x, test = (
            [Datum(impath=str(root / name), label=label, classname=CLASSES[label]) for name, label in split[part]]
            for part in ("train", "test")
        )
        train_x = self.generate_fewshot_dataset(train_x, num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(train_x=train_x, test=test)


def write_data(root: Path, train: int = 12, test: int = 4) -> Path:
    """Noise with a coloured square: the class is its colour."""
    rng = np.random.default_rng(0)
    split = {"train": [], "test": []}
    for part, count in (("train", train), ("test", test)):
        for label in range(len(CLASSES)):
            for i in range(count):
                pixels = rng.integers(0, 128, (40, 52, 3), dtype=np.uint8)
                pixels[10:30, 10:40, label] += 100
                name = f"{part}_{label}_{i}.png"
                Image.fromarray(pixels).save(root / name)
                split[part].append((name, label))
    (root / "split.json").write_text(json.dumps(split))
    sentences = {name: [f"a {name} on a road.", f"a {name} with four wheels."][: 1 + i % 2]
                 for i, name in enumerate(CLASSES)}  # fmt: skip
    (root / "descriptions.json").write_text(json.dumps(sentences))
    return root


def permute_labels(data: Path, target: Path) -> Path:
    """The same data with the labels of the training images dealt out anew."""
    target.mkdir()
    for file in data.iterdir():
        (target / file.name).symlink_to(file)
    split = json.loads((data / "split.json").read_text())
    names, labels = zip(*split["train"], strict=True)
    split["train"] = list(zip(names, random.Random(0).sample(labels, len(labels)), strict=True))
    (target / "split.json").unlink()
    (target / "split.json").write_text(json.dumps(split))
    return target


def save_clip(path: Path, resnet: bool = False, seed: int = 0, pixels: int = 32) -> Path:
    """A random CLIP whose shapes lead clip.build_model back to the same architecture."""
    from clip.model import CLIP

    vision = (
        {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_patch_size": None} if resnet
        else {"vision_layers": 2, "vision_width": 64, "vision_patch_size": 8}
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIP(embed_dim=16, image_resolution=pixels, context_length=77, vocab_size=49408, transformer_width=64,
                     transformer_heads=1, transformer_layers=1, **vision)  # fmt: skip
        # A random network sees everything alike. Without the common part it tells images and texts apart.
        with torch.no_grad():
            if not resnet:
                _remove_mean(model.visual.proj, model.encode_image(torch.randn(64, 3, pixels, pixels)))
            _remove_mean(model.text_projection, model.encode_text(torch.randint(1, 49407, (64, 77))))
    torch.save(model.half().state_dict(), path)
    return path


def _remove_mean(projection: torch.Tensor, features: torch.Tensor) -> None:
    mean = torch.nn.functional.normalize(features.mean(dim=0), dim=0)
    projection -= (projection @ mean)[:, None] * mean


def arguments(data: Path, backbone: Path, out: Path, *opts: str, trainer: str, seed: int = 1) -> list[str]:
    return [
        "--root", str(data), "--output-dir", str(out), "--trainer", trainer, "--seed", str(seed),
        "--backbone", str(backbone), "--config-file", str(ROOT / f"configs/trainers/{trainer}/tiny.yaml"),
        "DATASET.NAME", "Toy", "DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "8",
        "DATALOADER.TEST.BATCH_SIZE", "8", "OPTIM.MAX_EPOCH", str(EPOCHS), *opts,
    ]  # fmt: skip


def run(*args, **kwargs) -> dict:
    """A whole run. Returns what its results.json says."""
    argv, stdout = arguments(*args, **kwargs), sys.stdout
    try:
        assert train.main(argv) == 0
    finally:
        sys.stdout = stdout  # setup_logger replaces it
    return json.loads((Path(argv[3]) / "results.json").read_text())


def checkpoint(out: Path, model: str, epoch: int = EPOCHS) -> dict:
    return torch.load(out / model / f"model.pth.tar-{epoch}", weights_only=True)


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def without_timing(epochs: list[dict]) -> list[dict]:
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_second")} for record in epochs]


KILLED = """
import importlib, os, signal, sys
import conftest, toys, train
module, name = sys.argv[1:3]
trainer = getattr(importlib.import_module(module), name)
step = trainer.forward_backward
def stop_midway(self, batch):
    if (self.epoch, self.batch_idx) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch)
trainer.forward_backward = stop_midway
train.main(sys.argv[3:])
"""


def run_and_kill(module: str, argv: list[str], cwd: Path) -> subprocess.CompletedProcess:
    """Start train.py with the trainer named as in ``argv``, defined in ``module``; it dies in its second epoch."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    name = argv[argv.index("--trainer") + 1]
    return subprocess.run([sys.executable, "-c", KILLED, module, name, *argv], cwd=cwd,
                          env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)  # fmt: skip
