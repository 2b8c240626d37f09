"""What tests of trainers share: a toy data set, small random CLIPs, and runs through train.py."""

import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from commands import train
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from forked import Forked
from PIL import Image

from fairclip.backbones.backbone import Backbone, TextTower
from fairclip.backbones.openai import ClipTokenizer
from fairclip.backbones.pixels import CLIP_PIXELS
from fairclip.core.plugins import import_plugins
from fairclip.run import config as configs
from fairclip.run import launch

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ["red car", "green car", "blue car"]
EPOCHS = 3
TIMING = {"seconds", "images_per_second"}


@DATASET_REGISTRY.register()
class Toy(DatasetBase):
    """Images and labels that DATASET.ROOT/split.json lists, and descriptions beside it."""

    def __init__(self, cfg):
        root = Path(cfg.DATASET.ROOT)
        split = json.loads((root / "split.json").read_text())
        self.descriptions_file = root / "descriptions.json"
        train_x, val, test = (
            [Datum(impath=str(root / name), label=label, classname=CLASSES[label]) for name, label in items]
            for items in (split.get(part, []) for part in ("train", "val", "test"))
        )
        train_x = self.generate_fewshot_dataset(train_x, num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(train_x=train_x, val=val or None, test=test)


def make_data(root: Path, train: int = 12, test: int = 4, val: int = 0) -> Path:
    """Three classes, so many images of each: noise with a patch in the colour of the class."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    split = {"train": [], "val": [], "test": []}
    for part, count in (("train", train), ("val", val), ("test", test)):
        for label in range(len(CLASSES)):
            for i in range(count):
                pixels = rng.integers(0, 128, (40, 52, 3), dtype=np.uint8)
                pixels[10:30, 10:40, label] += 100
                name = f"{part}_{label}_{i}.png"
                Image.fromarray(pixels).save(root / name)
                split[part].append((name, label))
    (root / "split.json").write_text(json.dumps(split))
    sentences = {
        name: [f"a {name} on a road.", f"a {name} with four wheels."][: 1 + i % 2] for i, name in enumerate(CLASSES)
    }
    (root / "descriptions.json").write_text(json.dumps(sentences))
    return root


def permute_labels(data: Path, root: Path, *parts: str) -> Path:
    """The same images under labels that were shuffled, within these splits (by default in training)."""
    root.mkdir(parents=True)
    for file in data.iterdir():
        if file.name != "split.json":
            (root / file.name).symlink_to(file)
    split = json.loads((data / "split.json").read_text())
    for part in parts or ("train",):
        names, labels = zip(*split[part], strict=True)
        shuffled = random.Random(0).sample(labels, len(labels))
        assert shuffled != list(labels)
        split[part] = list(zip(names, shuffled, strict=True))
    (root / "split.json").write_text(json.dumps(split))
    return root


def save_clip(path: Path, tower: str = "vit", seed: int = 0, pixels: int = 32) -> Path:
    """A random CLIP, tower "vit", "vit_l" (its patches and proportions, in small) or "resnet", whose shapes lead
    clip.build_model back to the same architecture."""
    from clip.model import CLIP

    vision = {
        "vit": {"vision_layers": 2, "vision_width": 64, "vision_patch_size": 8},
        "vit_l": {"vision_layers": 3, "vision_width": 128, "vision_patch_size": 14},
        "resnet": {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_patch_size": None},
    }[tower]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CLIP(
            embed_dim=16,
            image_resolution=pixels,
            context_length=77,
            vocab_size=49408,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=1,
            **vision,
        )
        # A random network sees everything alike. Without the common part it tells images and texts apart.
        with torch.no_grad():
            if tower != "resnet":
                _remove_mean(model.visual.proj, model.encode_image(torch.randn(64, 3, pixels, pixels)))
            _remove_mean(model.text_projection, model.encode_text(torch.randint(1, 49407, (64, 77))))
    torch.save(model.half().state_dict(), path)
    return path


def _remove_mean(projection: torch.Tensor, features: torch.Tensor) -> None:
    mean = torch.nn.functional.normalize(features.mean(dim=0), dim=0)
    projection -= (projection @ mean)[:, None] * mean


def arguments(trainer: str, data: Path, backbone: Path, out: Path, *opts: str, seed: int = 1) -> list[str]:
    """The command line of a run of three epochs in batches of 8."""
    return [
        "--root",
        str(data),
        "--output-dir",
        str(out),
        "--trainer",
        trainer,
        "--seed",
        str(seed),
        "--backbone",
        str(backbone),
        "--config-file",
        str(ROOT / f"configs/trainers/{trainer}/tiny.yaml"),
        "DATASET.NAME",
        "Toy",
        "DATALOADER.NUM_WORKERS",
        "0",
        "DATALOADER.TRAIN_X.BATCH_SIZE",
        "8",
        "DATALOADER.TEST.BATCH_SIZE",
        "8",
        "OPTIM.MAX_EPOCH",
        str(EPOCHS),
        *opts,
    ]


def run(*args, **kwargs) -> dict:
    """A run through train.py that must succeed; arguments as above. Returns its results."""
    argv = arguments(*args, **kwargs)
    stdout = sys.stdout  # setup_logger replaces it
    try:
        assert train(argv) == 0
    finally:
        sys.stdout = stdout
    return json.loads((Path(argv[3]) / "results.json").read_text())


def build(*args, **kwargs):
    """The trainer that such a run would use, before it trains."""
    from dassl.engine import build_trainer

    modules, _ = import_plugins("trainers", "datasets")
    return build_trainer(configs.build_cfg(launch.parse_args(arguments(*args, **kwargs)), modules))


def run_killed(trainer: str, data: Path, backbone: Path, out: Path, *opts: str) -> None:
    """A run that is killed in the middle of its second epoch."""
    from dassl.engine import TRAINER_REGISTRY

    import_plugins("trainers")
    method = TRAINER_REGISTRY.get(trainer)
    step = method.forward_backward

    def stop_midway(self, batch):
        if (self.epoch, self.batch_idx) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch)

    def work() -> int:
        method.forward_backward = stop_midway
        return train(arguments(trainer, data, backbone, out, *opts))

    killed = Forked(work, out.with_name(f"{out.name} said"))
    assert killed.wait() == -signal.SIGKILL, killed.said()
    assert (checkpoints(out, trainer) / "checkpoint").read_text() == "model.pth.tar-1\n"


def check_refused(argv: list[str], message: str, capsys) -> None:
    """train.py must end with one message that says this, and no traceback."""
    assert train(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and message in error and "Traceback" not in error


def check_same_end(trainer: str, out: Path, other: Path) -> None:
    """A run that was killed and resumed must have the state and the results of one that was not."""
    a, b = checkpoint(out, trainer), checkpoint(other, trainer)
    for part in ("state_dict", "extra", "optimizer", "scheduler"):
        assert same(a[part], b[part]), part
    resumed, whole = (json.loads((folder / "results.json").read_text()) for folder in (out, other))
    assert untimed(resumed["epochs"]) == untimed(whole["epochs"])
    for name in [name for name in whole if name.endswith("accuracy")]:
        assert resumed[name] == whole[name], name


def checkpoints(out: Path, trainer: str) -> Path:
    """Where a run keeps them."""
    return out / ("linear_probe" if trainer == "LinearProbe" else trainer.lower())


def checkpoint(out: Path, trainer: str, epoch: int | None = None) -> dict:
    """What a run saved after an epoch, or last."""
    folder = checkpoints(out, trainer)
    name = f"model.pth.tar-{epoch}" if epoch else (folder / "checkpoint").read_text().strip()
    state = torch.load(folder / name, weights_only=True)
    del state["sha256"]  # so that a test may change it, and save it as runs did before there was one
    return state


def same(a: object, b: object) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def untimed(epochs: list[dict]) -> list[dict]:
    """Records of epochs without what differs between equal runs."""
    return [{key: value for key, value in record.items() if key not in TIMING} for record in epochs]


def as_backbone(model: Any) -> Backbone:
    """A CLIP of the clip package's or of ours, as trainers get it."""
    return Backbone(
        name="toy",
        visual=model.visual,
        text=TextTower(model),
        tokenizer=ClipTokenizer(model.context_length),
        tau=model.logit_scale.exp().item(),
        size=model.visual.input_resolution,
        width=model.text_projection.shape[1],
        pixels=CLIP_PIXELS,
    )
