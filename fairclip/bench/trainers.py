"""FAIR's trainers, as `fair train` builds them, on made-up photos."""

import gc
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from fairclip.bench.photos import photo_files
from fairclip.core.places import CONFIGS
from fairclip.core.plugins import import_plugins
from fairclip.run import config as configs
from fairclip.run import launch

PHOTOS = 48  # different ones; more files than that repeat them


@contextmanager
def cache_in(folder: str) -> Iterator[None]:
    """Inside, what photos and random weights leave behind goes into this folder and not into the user's cache."""
    before = os.environ.get("FAIR_CACHE")
    os.environ["FAIR_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["FAIR_CACHE"]
        os.environ |= {"FAIR_CACHE": before} if before is not None else {}


class TrainerFactory:
    """Builds trainers on photos in a folder.

    Args:
        folder: for the photos and the runs.
        backbone: MODEL.BACKBONE.NAME.
        device: "cpu" or "cuda".
        prec: TRAINER.FAIR.PREC.
    """

    def __init__(self, folder: Path, backbone: str, device: str, prec: str) -> None:
        self.folder, self.backbone, self.device, self.prec = folder, backbone, device, prec
        self.data = folder / "data"
        self._photos = photo_files(PHOTOS)
        self._write("test/class 0/0.jpg", self._photos[0])
        self._modules, _ = import_plugins("trainers", "datasets")

    @property
    def photo_bytes(self) -> int:
        """Size of a photo's file, on average."""
        return sum(map(len, self._photos)) // len(self._photos)

    def build(self, batch: int, crops: int, classes: int, batches: int = 1, **settings: Any) -> Any:
        """A FAIR about to make its first step of an epoch of so many batches. Settings: config keys, "__" for a dot."""
        from dassl.engine import build_trainer

        self._lay_out(batch * batches, classes)
        options = {
            "DATASET.NAME": "ImageFolder",
            "USE_CUDA": self.device == "cuda",
            "DATALOADER.NUM_WORKERS": 0,
            "DATALOADER.TRAIN_X.BATCH_SIZE": batch,
            "TRAINER.FAIR.PREC": self.prec,
            "TRAINER.FAIR.N_CROPS": crops,
            "TRAINER.FAIR.TOP_K": max(1, min(4, crops)),
            "TRAINER.FAIR.STUDENT_CROPS": min(2, crops),
            **{key.replace("__", "."): value for key, value in settings.items()},
        }
        arguments = {
            "--root": self.data,
            "--output-dir": self.folder / "run",
            "--trainer": "FAIR",
            "--seed": 1,
            "--backbone": self.backbone,
            "--config-file": CONFIGS / "trainers/FAIR/vit_b32.yaml",
        }
        words = [str(word) for pair in (*arguments.items(), *options.items()) for word in pair]
        gc.collect()  # the trainer before this one is full of cycles
        with redirect_stdout(io.StringIO()):
            trainer = build_trainer(configs.build_cfg(launch.parse_args(words), self._modules))
            trainer.before_train()
            trainer.before_epoch()
            trainer.set_model_mode("train")
        return trainer

    def _lay_out(self, images: int, classes: int) -> None:
        """So many training images and class names in the data folder."""
        for index in range(images):
            self._write(f"train/{index:05}.jpg", self._photos[index % PHOTOS])
        for other in sorted((self.data / "train").iterdir())[images:]:
            other.unlink()
        self._write("classes.txt", "".join(f"class {i}\n" for i in range(classes)).encode())

    def _write(self, name: str, content: bytes) -> None:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
