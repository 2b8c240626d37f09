"""A toy data set with all three splits, small random CLIPs, and the command line that runs a trainer on them."""

import json
import random
from pathlib import Path

import numpy as np
import torch
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from PIL import Image

import train

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ["red car", "green car", "blue car"]


@DATASET_REGISTRY.register()
class SplitToy(DatasetBase):
    """Images and labels that DATASET.ROOT/split.json lists, and descriptions beside it."""

    def __init__(self, cfg):
        root = Path(cfg.DATASET.ROOT)
        split = json.loads((root / "split.json").read_text())
        self.descriptions_file = root / "descriptions.json"
        train_x, val, test = (
            [Datum(impath=str(root / name), label=label, classname=CLASSES[label]) for name, label in split[part]]
            for part in ("train", "val", "test")
        )
        super().__init__(train_x=train_x, val=val, test=test)


def make_data(root: Path, counts: dict[str, int]) -> Path:
    """Draw ``counts[part]`` images per class and part: noise with a bright patch in the colour of the class."""
    rng = np.random.default_rng(0)
    split = {part: [] for part in ("train", "val", "test")}
    for part, count in counts.items():
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


def permute_training_labels(data: Path, folder: Path) -> Path:
    """A copy of ``data`` (its images are links) in which the training images have each other's labels."""
    folder.mkdir()
    for file in data.iterdir():
        (folder / file.name).symlink_to(file)
    split = json.loads((data / "split.json").read_text())
    names, labels = zip(*split["train"], strict=True)
    split["train"] = list(zip(names, random.Random(0).sample(labels, len(labels)), strict=True))
    (folder / "split.json").unlink()
    (folder / "split.json").write_text(json.dumps(split))
    return folder


def save_clip(path: Path, tower: str) -> Path:
    """A random CLIP, tower "vit" or "resnet", whose shapes lead clip.build_model back to the same architecture."""
    from clip.model import CLIP

    vision = {
        "vit": {"vision_layers": 2, "vision_width": 64, "vision_patch_size": 8},
        "resnet": {"vision_layers": (1, 1, 1, 1), "vision_width": 8, "vision_patch_size": None},
    }[tower]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(embed_dim=16, image_resolution=32, context_length=77, vocab_size=49408, transformer_width=64,
                     transformer_heads=1, transformer_layers=1, **vision)  # fmt: skip
        # A random network sees everything alike. Without the common part it tells images and texts apart.
        with torch.no_grad():
            if tower == "vit":
                remove_mean(model.visual.proj, model.encode_image(torch.randn(64, 3, 32, 32)))
            remove_mean(model.text_projection, model.encode_text(torch.randint(1, 49407, (64, 77))))
    torch.save(model.half().state_dict(), path)
    return path


def remove_mean(projection: torch.Tensor, features: torch.Tensor) -> None:
    mean = torch.nn.functional.normalize(features.mean(dim=0), dim=0)
    projection -= (projection @ mean)[:, None] * mean


def arguments(data: Path, backbone: Path, out: Path, trainer: str, *opts: str, seed: int = 1) -> list[str]:
    return [
        "--root", str(data), "--output-dir", str(out), "--trainer", trainer, "--seed", str(seed),
        "--backbone", str(backbone), "--config-file", str(ROOT / f"configs/trainers/{trainer}/tiny.yaml"),
        "DATASET.NAME", "SplitToy", "DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "8",
        "DATALOADER.TEST.BATCH_SIZE", "8", *opts,
    ]  # fmt: skip


def run(*args, **kwargs) -> dict:
    """The results of a run that must end well."""
    argv = arguments(*args, **kwargs)
    assert train.main(argv) == 0
    return json.loads((Path(argv[3]) / "results.json").read_text())


def build(*args, **kwargs):
    """The trainer that such a run would use, before it trains."""
    from dassl.engine import build_trainer

    modules, _ = train.import_plugins()
    return build_trainer(train.build_cfg(train.parse_args(arguments(*args, **kwargs)), modules))
