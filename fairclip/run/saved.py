"""What a run saves and takes up again: the content of its checkpoints."""

from pathlib import Path
from typing import Any

from torch.nn import functional as F

from fairclip.core.distributed import is_main
from fairclip.core.errors import UserError, require
from fairclip.core.log import log
from fairclip.method.anchors import AnchorClassifier
from fairclip.run import checkpoints, resume
from fairclip.run.finished import another_tower
from fairclip.run.tested import Tested


class Saved(Tested):
    """The part of our trainers that saves and resumes; ``fairclip.run.base`` has the rest and explains it."""

    schedule_by_step = False  # whether the learning rate moves with each step, not each epoch

    @property
    def lengths_count(self) -> bool:
        """Whether those of the class vectors do: logits are ``tau <f(x), v>``, not ``tau cos(f(x), v)``."""
        return False

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
