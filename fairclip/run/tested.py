"""What a run tests: predictions, and the fields of results.json."""

import time
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from fairclip.core.distributed import is_main, world
from fairclip.core.errors import UserError, require
from fairclip.core.hardware import hardware
from fairclip.core.log import log
from fairclip.run.build import Built
from fairclip.run.evaluation import accuracy, check_finite, evaluate, map_batches, more_figures, save_predictions
from fairclip.run.provenance import commit, versions
from fairclip.run.results import write_results
from fairclip.views.loading import Images, images_of


class Tested(Built):
    """The part of our trainers that tests; ``fairclip.run.base`` has the rest and explains it."""

    transductive = False  # whether the prediction for a test image depends on the other test images
    stream = False  # whether it depends on the test images before it, or in its batch: they come in a seeded order
    needs_float64 = False  # whether it computes in a precision that mps does not have
    uses_labels = False  # whether training reads labels: a reference, not a competitor

    @property
    def views_per_image(self) -> int:
        """Views of an image in a training step, or in the test of what does not train: a cost."""
        return 1

    def map_batches(self, loader: DataLoader, function: Callable[[dict], Tensor], title: str) -> Tensor:
        """``function`` of every batch: its rows for all images, [N, ...], in the loader's order and on the device."""
        return map_batches(loader, function, self.device, title, self.memory_guard.run)

    def predict(self, loader: DataLoader, title: str) -> Tensor:
        """Logits of all images, [N, K], in the loader's order."""
        return self.map_batches(loader, lambda batch: self.model_inference(self.parse_batch_test(batch)[0]), title)

    def loader_of(self, split: str) -> DataLoader:
        """Raises UserError for a split without images."""
        require(split in ("val", "test"), f"TEST.SPLIT {split!r}: choose test or val")
        if split == "test":
            return self.test_loader
        if self.val_loader is None:
            raise UserError(f"TEST.SPLIT val: {self.cfg.DATASET.NAME} has no validation images")
        return self.val_loader

    def test(self, split: str | None = None, **_: Any) -> float:
        """Evaluate on TEST.SPLIT; ``self.results`` keeps every figure, predictions.csv what was said of each image.

        Returns the accuracy in percent. Some checkouts' train.py give more arguments, such as ``is_final``.
        """
        start = time.time()
        split = split or self.cfg.TEST.SPLIT
        logits, images = self.predict_split(split)
        figures = evaluate(self.evaluator, logits, images.labels)
        for name, value in figures.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch + 1)
        self.results = {name: figures[name] for name in ("accuracy", "macro_f1")}
        self.results |= more_figures(logits, images.labels)
        self.results |= {"split": split, "test_seconds": time.time() - start}
        log.info(
            f"Accuracy on the {split} images: {figures['accuracy']:.2f} % (macro F1 {figures['macro_f1']:.2f} %, "
            f"{len(images):,} images)"
        )
        return self.results["accuracy"]

    def predict_split(self, split: str) -> tuple[Tensor, Images]:
        """Logits [N, K] of the images of a split, which go into predictions.csv, and those images."""
        self.set_model_mode("eval")
        loader = self.loader_of(split)
        logits, images = self.predict(loader, split), images_of(loader)
        check_finite(logits, split)
        if is_main():
            root = self.cfg.DATASET.ROOT
            save_predictions(self.output_dir, root, self.classnames, images.paths, images.labels, logits)
        return logits, images

    def finish(self) -> None:
        """The test and its results; of test images without labels, which may be a person's own, predictions alone."""
        if self.has_labels(self.cfg.TEST.SPLIT):
            self.test()
            self.write_results()
        else:
            self.only_predict()

    def only_predict(self) -> None:
        _, images = self.predict_split(self.cfg.TEST.SPLIT)
        log.info(
            f"No accuracy, as the test images have no labels. Predictions ({len(images):,} images): "
            f"{self.output_dir} (predictions.csv)"
        )

    def has_labels(self, split: str) -> bool:
        return min(images_of(self.loader_of(split)).labels, default=0) >= 0

    def accuracy(self, scores: Tensor, loader: DataLoader) -> float:
        """In percent, of the scores [N, K] of all images of a loader. Raises UserError for any that are not finite."""
        check_finite(scores, "test")
        return accuracy(scores, images_of(loader).labels)

    def write_results(self) -> None:
        """results.json: what the run was and what came out. Written last, so its presence says that the run is done."""
        if not is_main():
            return
        cfg = self.cfg
        facts = {
            "dataset": cfg.DATASET.NAME,
            "trainer": cfg.TRAINER.NAME,
            "transductive": self.transductive,
            "stream": self.stream,
            "uses_labels": self.uses_labels,
            "backbone": cfg.MODEL.BACKBONE.NAME,
            "tower_hash": self.tower_hash,
            "text_hash": self.text_hash,
            "seed": self.seed,
            "device": str(self.device),
            "hardware": hardware(self.device.type),
            "prec": self.prec,
            "processes": world(),
            **self.results,
            "descriptions": self.descriptions,
            "epochs": self.history,
            "seconds": sum(record["seconds"] for record in self.history) + self.results["test_seconds"],
            "trainable_parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "views_per_image": self.views_per_image,
            "versions": versions(),
            "commit": commit(),
            "config_hash": self.config_hash,
        }
        write_results(self.output_dir, facts)
        log.info(f"Results: {self.output_dir} (results.json, predictions.csv, log.txt)")
