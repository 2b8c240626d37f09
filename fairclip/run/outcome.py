"""What a run tests and saves: predictions, the fields of results.json, the content of checkpoints."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from fairclip.core.distributed import is_main, world
from fairclip.core.errors import UserError, require
from fairclip.core.hardware import hardware
from fairclip.core.log import log
from fairclip.method.anchors import AnchorClassifier
from fairclip.run import checkpoints, resume
from fairclip.run.build import Built
from fairclip.run.evaluation import accuracy, check_finite, evaluate, map_batches, more_figures, save_predictions
from fairclip.run.finished import another_tower
from fairclip.run.provenance import commit, versions
from fairclip.run.results import write_results
from fairclip.views.loading import Images, images_of


class Outcome(Built):
    """The part of our trainers that tests and saves; ``fairclip.run.base`` has the rest and explains it."""

    transductive = False  # whether the prediction for a test image depends on the other test images
    stream = False  # whether it depends on the test images before it, but on none that follow
    needs_float64 = False  # whether it computes in a precision that mps does not have
    uses_labels = False  # whether training reads labels: a reference, not a competitor
    schedule_by_step = False  # whether the learning rate moves with each step, not each epoch

    @property
    def views_per_image(self) -> int:
        """Views of an image in a training step, or in the test of what does not train: a cost."""
        return 1

    @property
    def lengths_count(self) -> bool:
        """Whether those of the class vectors do: logits are ``tau <f(x), v>``, not ``tau cos(f(x), v)``."""
        return False

    # -- Evaluation ----------------------------------------------------------------------------------------------------

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

    # -- Checkpoints ---------------------------------------------------------------------------------------------------

    def checkpoint_folder(self, directory: str) -> Path:
        (name,) = self.get_model_names()
        return Path(directory) / name

    def checkpoint(self, epoch: int) -> dict[str, Any]:
        """All that is saved after so many epochs: tensors and plain data."""
        (name,) = self.get_model_names()
        optim, sched = self._optims[name], self._scheds[name]
        return {
            "state_dict": checkpoints.trained_state(self.model),
            "epoch": epoch,
            "optimizer": optim.state_dict() if optim else None,  # a closed-form fit has neither
            "scheduler": sched.state_dict() if sched else None,
            "val_result": None,
            "scaler": self.scaler.state_dict(),
            "extra": self.kept.state_dict(),
            "history": self.history,
            "seed": self.seed,
            "config_hash": self.config_hash,
            "backbone": self.cfg.MODEL.BACKBONE.NAME,
            "tower_hash": self.tower_hash,
            "text_hash": self.text_hash,
            "classnames": self.classnames,
            "descriptions": self.descriptions,
            "anchors": self.model.anchors.weight.detach() if isinstance(self.model, AnchorClassifier) else None,
            "prediction": self.prediction(),
        }

    def prediction(self) -> dict[str, Any]:
        """What predictions need besides the tower's weights: the class vectors [K, d], unit rows (None: the model is
        more than one vector a class), and how images are prepared. ``crops``: None, or the settings of alignment
        scores. Where they count, the vectors' ``lengths`` and a ``bias``, [K]: logits are tau cos lengths + bias."""
        images, vectors = self.cfg.INPUT, self.model.class_vectors()
        counts = vectors is not None and self.lengths_count
        return ({"lengths": vectors.norm(dim=-1).tolist()} if counts else {}) | {
            "anchors": None if vectors is None else F.normalize(vectors, dim=-1),
            "crops": None,
            "size": images.SIZE[0],
            "resize": self.pixels_taken.resize,
            "backbone_options": self.backbone_options.plain(),
            "interpolation": images.INTERPOLATION,
            "normalize": "normalize" in images.TRANSFORMS,
            "mean": list(images.PIXEL_MEAN),
            "std": list(images.PIXEL_STD),
            "prec": self.prec,
        }

    def say_precision(self, state: dict[str, Any], path: Path) -> None:
        """PREC auto may be another precision on the machine on which a run goes on."""
        before = (state.get("prediction") or {}).get("prec", self.prec)
        if before != self.prec:
            log.warning(
                f"{path} was trained in {before}, and this machine computes in {self.prec} (PREC auto): the run goes "
                "on, and will end a little differently than it would have there"
            )

    def check_tower(self, state: dict[str, Any], path: Path) -> None:
        """A checkpoint has what training moved: it belongs to the very towers that training started from."""
        now = {"tower_hash": self.tower_hash, "text_hash": self.text_hash}
        other = another_tower(state, now, self.cfg.MODEL.BACKBONE.NAME)
        require(not other, f"{path} {other}")

    def save_model(self, epoch: int, directory: str, **_: Any) -> None:
        """Write the checkpoint of ``epoch`` (from 0)."""
        if is_main():
            folder, keep = self.checkpoint_folder(directory), self.cfg.TRAIN.CHECKPOINT_FREQ
            checkpoints.write_checkpoint(folder, self.checkpoint(epoch + 1), keep)

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on from the newest checkpoint in ``directory``, or where TRAIN.EXTENDS says that ``directory`` holds a
        shorter run, from this run's own once it has any. Returns the epoch to start with.

        Raises:
            UserError: the checkpoint is of another configuration or seed, or RESUME names a folder without any.
        """
        (name,) = self.get_model_names()
        extends = self.cfg.TRAIN.get("EXTENDS", 0)
        if extends and checkpoints.find_checkpoint(self.checkpoint_folder(self.output_dir)):
            directory, extends = self.output_dir, 0
        folder = self.checkpoint_folder(directory)
        path = checkpoints.find_checkpoint(folder)
        if path is None:
            require(not self.cfg.RESUME, f"--resume: there is no checkpoint in {folder}")
            return 0
        state = checkpoints.read_checkpoint(path, self.cfg.MODEL.BACKBONE.NAME)
        checkpoints.check_whole(state, path)
        if self.cfg.SEED < 0:
            self.seed = state["seed"]
        self.check_tower(state, path)
        now = {"config_hash": self.config_hash, "seed": self.seed, "descriptions": self.descriptions}
        if extends:  # the settings were compared before anything was loaded
            resume.check_finished_run(state, directory, extends, self.descriptions)
        else:
            resume.check_same_run(state, directory, self.cfg, now)
        self.say_precision(state, path)
        checkpoints.load_trained(self.model, state)
        with checkpoints.fitting(path):
            if extends:
                steps = state["epoch"] * (len(self.train_loader_x) if self.schedule_by_step else 1)
                resume.follow(self._scheds[name], self._optims[name], steps, state["optimizer"])
            else:
                self._optims[name].load_state_dict(state["optimizer"])
                self._scheds[name].load_state_dict(state["scheduler"])
            self.scaler.load_state_dict(state["scaler"])
            self.kept.load_state_dict(state["extra"])
        self.history = state["history"]
        schedule = f"; the learning rate is that of a schedule of {self.max_epoch} epochs" if extends else ""
        last = ", the last: all are trained" if state["epoch"] == self.max_epoch else ""
        log.info(f"Resume {folder} after epoch {state['epoch']}{schedule}{last}")
        return state["epoch"]

    def load_model(self, directory: str, *others: Any, epoch: int | None = None) -> None:
        """Load a trained model for evaluation: the one of ``epoch``, or the newest in ``directory``.

        Args: ``others``, the epoch by position, as Dassl has it, or what else a checkout's train.py gives (CLAP's: the
            config).

        Raises:
            UserError: there is none, or it was trained for other classes or another backbone.
        """
        epoch = next((number for number in others if isinstance(number, int)), epoch)
        if not directory:
            log.info("No model is loaded, as none is given (--model-dir)")
            return
        folder = self.checkpoint_folder(directory)
        path = checkpoints.find_checkpoint(folder, epoch)
        if path is None:
            raise UserError(f"there is no checkpoint in {folder}: --model-dir must name the OUTPUT_DIR of a run")
        state = checkpoints.read_checkpoint(path, self.cfg.MODEL.BACKBONE.NAME)
        require(
            state["classnames"] == self.classnames,
            f"{path} was trained for other classes than those of {self.cfg.DATASET.NAME}",
        )
        self.check_tower(state, path)
        checkpoints.load_trained(self.model, state)
        log.info(f"Load {path} (epoch {state['epoch']})")
