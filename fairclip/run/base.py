"""The base of our trainers on any Dassl (upstream, a CoOp checkout's, the bundled one): hooks, and a loop whose epochs
depend on nothing but (seed, epoch)."""

import math
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from dassl.utils import set_random_seed
from torch import Tensor, nn
from yacs.config import CfgNode

from fairclip.core.distributed import gather_objects, global_mean, is_main, parallel, world
from fairclip.core.errors import OneMessage, UserError, require
from fairclip.core.log import details, log
from fairclip.run.curves import Curves
from fairclip.run.progress import epoch_details, epoch_line, is_shown
from fairclip.run.saved import Saved
from fairclip.run.settings import write_config
from fairclip.views.device_views import UncutViews
from fairclip.views.loading import mixed_seed, progress, set_seed


class AdaptationTrainer(Saved):
    """Base of trainers that put a classifier on a CLIP image tower.

    A subclass implements ``build_model`` (set ``self.model``, then ``set_up_training`` or ``register_model``) and, if
    it trains, ``forward_backward``. What it keeps from step to step besides the model it declares by ``keep``.
    ``train_transform``, ``test_transform``, ``model_inference`` and ``predict`` are there for those that need them.

    Before each epoch all random generators, and those of the loader, are set from (seed, epoch). So the order and the
    augmentation of an epoch's images depend neither on what ran before nor on the workers, and a run that was killed
    and resumed ends exactly like one that was not.

    Under torchrun each process works on its part of every batch (see ``fairclip.core.distributed``). All of them run
    the same code, and in the same order where they meet: a mean over a batch is a global one, a training forward goes
    through ``self.net``, and files are written by the main process.

    Config keys read: TRAINER.<NAME>.PREC; MODEL.BACKBONE.NAME, INPUT (see ``with_backbone_facts``), SEED, OUTPUT_DIR,
    RESUME, OPTIM.*, TRAIN.PRINT_FREQ, TRAIN.CHECKPOINT_FREQ (checkpoints to keep besides the newest), TEST.*; where
    train.py declares them, TRAIN.CHUNK, MICRO_BATCH, AUTO_CHUNK and MODEL.COMPILE (docs/memory.md), and
    DATALOADER.VIEWS, CACHE and CACHE_GB (docs/pipeline.md).
    """

    curves: Curves | None = None  # for TensorBoard, while training goes on

    def __init__(self, cfg: CfgNode) -> None:
        OneMessage.install()
        super().__init__(cfg)

    # -- One step ------------------------------------------------------------------------------------------------------

    @cached_property
    def net(self) -> nn.Module:
        """``self.model`` for the forward pass of training: averages gradients over the processes, if there are more."""
        return parallel(self.model)

    def pixels(self, views: Tensor | UncutViews) -> Tensor:
        """Views as a transform made them, cut or not -> what the image tower takes, on the device."""
        views = views.to(self.device, non_blocking=True)
        return self.normalize(views.cut() if isinstance(views, UncutViews) else views)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Images and labels on the device, as Dassl's, but without waiting for them."""
        return batch["img"].to(self.device, non_blocking=True), batch["label"].to(self.device, non_blocking=True)

    def pseudo_accuracy(self, y: Tensor, batch: dict) -> dict[str, Tensor]:
        """How many of the pseudo-labels y [B] are right, in percent; nothing where images have no label.

        The only use of training labels: to show how good the pseudo-labels are. Images without one have label -1.
        """
        labels = batch["label"]
        if (labels < 0).any():
            return {}
        return {"pseudo_accuracy": 100 * (y == labels.to(y.device, non_blocking=True)).float().mean()}

    def descend(self, loss: Tensor, max_norm: float = math.inf) -> None:
        """One step of the optimizer. Change kept state only after it: until then it may be repeated.

        Args: max_norm, of the gradient; a longer one is shortened to it.
        """
        (name,) = self.get_model_names()
        self._optims[name].zero_grad()
        self.scaler.scale(loss).backward()
        self.memory_guard.moved = True
        if max_norm < math.inf:
            self.scaler.unscale_(self._optims[name])
            nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], max_norm)
        self.scaler.step(self._optims[name])
        self.scaler.update()
        if self.schedule_by_step:
            self._scheds[name].step()

    def update_lr(self, names: list[str] | None = None) -> None:
        """Called once an epoch."""
        if not self.schedule_by_step:
            super().update_lr(names)

    # -- The loop ------------------------------------------------------------------------------------------------------

    def before_train(self) -> None:
        super().before_train()  # resumes, opens TensorBoard
        require(
            len(set(gather_objects(self.start_epoch))) == 1,
            f"not all processes see the checkpoints in {self.output_dir}: it must be a shared folder",
        )
        write_config(self.cfg, self.output_dir)
        if is_main():
            self.curves = Curves(Path(self.output_dir) / "tensorboard")
        self.epoch_began = time.time()

    def init_writer(self, log_dir: str) -> None:
        """Dassl's: ours is ``curves``."""

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        if self.curves:
            self.curves.add(tag, scalar_value, global_step)

    def close_writer(self) -> None:
        if self.curves:
            self.curves.close()

    def before_epoch(self) -> None:
        seed = mixed_seed(self.seed, self.epoch)
        set_random_seed(seed)
        set_seed(self.train_loader_x, seed)

    def run_epoch(self) -> None:
        """One pass over the training images. The means of what ``forward_backward`` returns join the history.

        Raises:
            UserError: the loss is no longer finite. The checkpoint of the epoch before stays.
        """
        self.set_model_mode("train")
        self.num_batches = len(self.train_loader_x)
        sums: dict[str, Any] = {}  # tensors: to read their values in each step would make a GPU wait
        images, start = 0, time.time()
        title = f"epoch {self.epoch + 1}/{self.max_epoch}"
        bar = progress(self.train_loader_x, title)
        for self.batch_idx, batch in enumerate(bar):
            count = len(batch["img"])
            for name, value in self.memory_guard.run(self.forward_backward, batch).items():
                sums[name] = sums.get(name, 0) + value * count
            images += count
            if (self.batch_idx + 1) % self.cfg.TRAIN.PRINT_FREQ == 0:
                loss = self._checked(global_mean(sums["loss"])) / images
                details.info(f"{title} batch {self.batch_idx + 1}/{self.num_batches} loss {loss:.4f}")
        shares = gather_objects({name: float(total) / images for name, total in sums.items()})
        means = {name: sum(share.get(name, 0.0) for share in shares) / world() for share in shares for name in share}
        self._checked(means["loss"])
        speed = world() * images / (time.time() - start)
        rates = {"lr": self.get_current_lr(), "images_per_second": speed}
        self.history.append({"epoch": self.epoch + 1} | means | rates)
        self.update_lr()

    def _checked(self, loss: Tensor | float) -> float:
        if not math.isfinite(loss):
            raise UserError(
                f"the loss became {float(loss)} in epoch {self.epoch + 1}: lower OPTIM.LR"
                + (", or set PREC to bf16 or fp32" if self.prec == "amp" else "")
            )
        return float(loss)

    def after_epoch(self) -> None:
        record = self.history[-1]
        # With what a trainer does before and after the pass, such as making labels, and without test and checkpoint.
        record["seconds"] = time.time() - self.epoch_began
        # For learning curves. Nothing is chosen by it: the last epoch is the result.
        if self.cfg.TEST.get("EVERY_EPOCH", False) and self.dm.dataset.test and self.has_labels("test"):
            self.set_model_mode("eval")
            record["test_accuracy"] = self.accuracy(self.predict(self.test_loader, "test"), self.test_loader)
        self.save_model(self.epoch, self.output_dir)
        for name, value in record.items():
            self.write_scalar(f"train/{name}", value, self.epoch + 1)
        left = record["seconds"] * (self.max_epoch - record["epoch"])
        say = log.info if is_shown(record["epoch"], self.max_epoch) else details.info
        say(epoch_line(record, self.max_epoch, left))
        details.info(epoch_details(record))
        self.epoch_began = time.time()

    def after_train(self) -> None:
        self.epoch = self.max_epoch - 1  # also where a resumed run had no epoch left to do
        if not self.cfg.TEST.NO_TEST:
            self.finish()
        else:
            log.info(f"Trained: the model is in {self.output_dir}")
        self.close_writer()
