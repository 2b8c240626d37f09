"""The training loop, in the four layers that trainers derive from.

`TrainerBase` knows registered models, `SimpleTrainer` the config, the data, checkpoints and testing, `TrainerX` loops
over labelled batches, `TrainerXU` over pairs of a labelled and an unlabelled one. A trainer derives from one of the
last two and fills in `build_model` and `forward_backward`; CoOp's `trainers/coop.py` is the usual example.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterator

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from yacs.config import CfgNode

from ..data import DataManager
from ..evaluation import build_evaluator
from ..utils import (
    AverageMeter,
    MetricMeter,
    get_rng_state,
    load_checkpoint,
    mkdir_if_missing,
    resume_from_checkpoint,
    save_checkpoint,
    tolist_if_not,
)

log = logging.getLogger("dassl")


def __getattr__(name: str) -> object:
    """`from dassl.engine.trainer import SummaryWriter`, as some checkouts do; imported when asked for: it is slow."""
    if name == "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class TrainerBase:
    """A loop over epochs with hooks, and the registered models: those that are saved, resumed and switched between
    training and evaluation mode. What is not registered is none of this class's business."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, nn.Module] = OrderedDict()
        self._optims: OrderedDict[str, torch.optim.Optimizer | None] = OrderedDict()
        self._scheds: OrderedDict[str, object | None] = OrderedDict()
        self._writer = None

    # Models

    def register_model(
        self,
        name: str = "model",
        model: nn.Module | None = None,
        optim: torch.optim.Optimizer | None = None,
        sched: object | None = None,
    ) -> None:
        """Name a module, with its optimizer and scheduler if it has them.

        Raises:
            AttributeError: called before `super().__init__()`.
            ValueError: the name is taken.
        """
        if "_models" not in self.__dict__:
            raise AttributeError("Cannot register a model before super().__init__() is called")
        if name in self._models:
            raise ValueError(f'A model named "{name}" is already registered')
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names: str | list[str] | None = None) -> list[str]:
        """All registered names, or `names` as a list after checking them."""
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        if unknown := [name for name in names if name not in self._models]:
            raise ValueError(f"No model is registered as {unknown}; there are {list(self._models)}")
        return names

    def set_model_mode(self, mode: str = "train", names: str | list[str] | None = None) -> None:
        """`train`, or `eval` (also spelt `test`)."""
        if mode not in ("train", "eval", "test"):
            raise KeyError(f'mode must be "train", "eval" or "test", got "{mode}"')
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    # Checkpoints

    def save_model(
        self,
        epoch: int,
        directory: str,
        is_best: bool = False,
        val_result: float | None = None,
        model_name: str = "",
    ) -> None:
        """Save each registered model with its optimizer and scheduler to `directory/<name>/`, and beside them what a
        resumed run needs to go on as if never stopped: random generators and, where the trainer has one, `scaler`."""
        scaler = getattr(self, "scaler", None)
        for name in self.get_model_names():
            optim, sched = self._optims[name], self._scheds[name]
            save_checkpoint(
                {
                    "state_dict": self._models[name].state_dict(),
                    "epoch": epoch + 1,
                    "optimizer": optim.state_dict() if optim is not None else None,
                    "scheduler": sched.state_dict() if sched is not None else None,
                    "val_result": float(val_result) if val_result is not None else None,
                    "rng": get_rng_state(),
                    "scaler": scaler.state_dict() if scaler is not None else None,
                },
                os.path.join(directory, name),
                is_best=is_best,
                model_name=model_name,
            )

    def resume_model_if_exist(self, directory: str) -> int:
        """Load the latest checkpoint of all registered models, if `directory` has one.

        Returns:
            The index of the next epoch, 0 without a checkpoint.

        Raises:
            ValueError: the models' checkpoints are not of the same epoch.
        """
        folders = {name: os.path.join(directory, name) for name in self.get_model_names()}
        if not folders or not all(os.path.exists(os.path.join(f, "checkpoint")) for f in folders.values()):
            log.info("No checkpoint found, train from scratch")
            return 0
        log.info(f"Found checkpoint at {directory} (will resume training)")
        scaler = getattr(self, "scaler", None)
        epochs = {
            name: resume_from_checkpoint(
                folder, self._models[name], self._optims[name], self._scheds[name], scaler=scaler
            )
            for name, folder in folders.items()
        }
        if len(set(epochs.values())) > 1:
            raise ValueError(f"The latest checkpoints in {directory} are of different epochs: {epochs}")
        return next(iter(epochs.values()))

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load the weights of all registered models from `directory/<name>/`: the best ones, or those after `epoch`.

        Raises:
            FileNotFoundError: no such checkpoint.
        """
        if not directory:
            log.info("Note that load_model() is skipped as no pretrained model is given")
            return
        model_file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            path = os.path.join(directory, name, model_file)
            if not os.path.exists(path):
                raise FileNotFoundError(f'No model at "{path}"')
            checkpoint = load_checkpoint(path)
            val_result = checkpoint.get("val_result")
            result = "" if val_result is None else f", val_result={val_result:.1f}"
            log.info(f"Load {path} to {name} (epoch={checkpoint['epoch']}{result})")
            self._models[name].load_state_dict(checkpoint["state_dict"])

    # Optimisation

    def update_lr(self, names: str | list[str] | None = None) -> None:
        """One step of the schedulers. By convention a trainer calls this in the last batch of each epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names: str | list[str] | None = None) -> float:
        """Learning rate of the first parameter group of the first of these models."""
        return self._optims[self.get_model_names(names)[0]].param_groups[0]["lr"]

    def detect_anomaly(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss).all():
            raise FloatingPointError("Loss is infinite or NaN!")

    def model_zero_grad(self, names: str | list[str] | None = None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss: torch.Tensor) -> None:
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: str | list[str] | None = None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss: torch.Tensor, names: str | list[str] | None = None) -> None:
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    # TensorBoard

    def init_writer(self, log_dir: str) -> None:
        if self._writer is not None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("No TensorBoard files are written, as the package tensorboard is not installed")
            return
        log.info(f"Initialize tensorboard (log_dir={log_dir})")
        self._writer = SummaryWriter(log_dir=log_dir)

    def close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        """Write to TensorBoard; nothing happens where no training is going on."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    # The loop and its hooks

    def train(self, start_epoch: int, max_epoch: int) -> None:
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()  # may move start_epoch
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self) -> None:
        pass

    def after_train(self) -> None:
        pass

    def before_epoch(self) -> None:
        pass

    def after_epoch(self) -> None:
        pass

    def run_epoch(self) -> None:
        raise NotImplementedError

    def test(self) -> float:
        raise NotImplementedError

    def parse_batch_train(self, batch: dict) -> tuple:
        raise NotImplementedError

    def parse_batch_test(self, batch: dict) -> tuple:
        raise NotImplementedError

    def forward_backward(self, batch: dict) -> dict[str, float]:
        raise NotImplementedError

    def model_inference(self, input: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class SimpleTrainer(TrainerBase):
    """Builds data, model and evaluator from the config; resumes, tests and saves.

    `train()` resumes by itself from `cfg.RESUME`, or else from `cfg.OUTPUT_DIR` where that has a checkpoint.

    Raises:
        ValueError: `TEST.FINAL_MODEL` is unknown, or is `best_val` for a data set without a validation split.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        # Upstream takes anything but best_val for the last step, and config files there say last_val.
        if cfg.TEST.FINAL_MODEL not in ("last_step", "last_val", "best_val"):
            raise ValueError(f'TEST.FINAL_MODEL must be "last_step" or "best_val", got "{cfg.TEST.FINAL_MODEL}"')
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        if self._selects_on_val and self.val_loader is None:
            raise ValueError(f"TEST.FINAL_MODEL is best_val, but {cfg.DATASET.NAME} has no validation images")
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = float("-inf")

    @property
    def _selects_on_val(self) -> bool:
        return self.cfg.TEST.FINAL_MODEL == "best_val" and not self.cfg.TEST.NO_TEST

    def check_cfg(self, cfg: CfgNode) -> None:
        """Override to check what the trainer needs of the config."""

    def build_data_loader(self) -> None:
        """An override must set `dm`, the four loaders, `num_classes`, `num_source_domains` and `lab2cname`."""
        dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self) -> None:
        """Override: make `self.model`, and register what is to be trained and saved."""
        raise NotImplementedError(
            f"{type(self).__name__} must define build_model(): this core has no backbones of its own"
        )

    def train(self) -> None:
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.output_dir)
        if self.start_epoch > 0 and self._selects_on_val:
            self.best_result = self._saved_best_result()
        writer_dir = os.path.join(self.output_dir, "tensorboard")
        mkdir_if_missing(writer_dir)
        self.init_writer(writer_dir)
        self.time_start = time.time()

    def _saved_best_result(self) -> float:
        """What a resumed run has to beat before it overwrites the best model in the output folder."""
        path = os.path.join(self.output_dir, self.get_model_names()[0], "model-best.pth.tar")
        result = load_checkpoint(path).get("val_result") if os.path.exists(path) else None
        return float("-inf") if result is None else result

    def after_train(self) -> None:
        log.info("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self._selects_on_val:
                log.info("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                log.info("Deploy the last-epoch model")
            self.test()
        log.info(f"Elapsed: {datetime.timedelta(seconds=round(time.time() - self.time_start))}")
        self.close_writer()

    def after_epoch(self) -> None:
        freq = self.cfg.TRAIN.CHECKPOINT_FREQ
        if self._selects_on_val:
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name="model-best.pth.tar")
        if self.epoch + 1 == self.max_epoch or (freq > 0 and (self.epoch + 1) % freq == 0):
            self.save_model(self.epoch, self.output_dir)

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on `val` or `test` (default `cfg.TEST.SPLIT`).

        Returns:
            The evaluator's first result: accuracy in percent.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        if split != "val" or self.val_loader is None:
            split = "test"  # where there is no validation split
        loader = self.val_loader if split == "val" else self.test_loader
        log.info(f"Evaluate on the *{split}* set")
        for batch in tqdm(loader, disable=None):  # a bar on a terminal only
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return next(iter(results.values()))

    def model_inference(self, input: torch.Tensor) -> torch.Tensor:
        return self.model(input)

    def parse_batch_test(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def _run_batches(self, batches: Iterator[tuple], num_batches: int) -> None:
        """One epoch of `forward_backward(*batch)` with its log lines."""
        self.set_model_mode("train")
        self.num_batches = num_batches
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        freq = self.cfg.TRAIN.PRINT_FREQ
        end = time.time()
        for batch_idx in range(num_batches):
            self.batch_idx = batch_idx
            batch = next(batches)
            data_time.update(time.time() - end)
            losses.update(self.forward_backward(*batch))
            batch_time.update(time.time() - end)

            if (self.batch_idx + 1) % freq == 0 or num_batches < freq:
                remaining = (self.max_epoch - self.epoch) * num_batches - self.batch_idx - 1
                log.info(
                    f"epoch [{self.epoch + 1}/{self.max_epoch}] "
                    f"batch [{self.batch_idx + 1}/{num_batches}] "
                    f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
                    f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
                    f"{losses} "
                    f"lr {self.get_current_lr():.4e} "
                    f"eta {datetime.timedelta(seconds=int(batch_time.avg * remaining))}"
                )

            step = self.epoch * num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(), step)
            end = time.time()


class TrainerX(SimpleTrainer):
    """Trains on labelled data: `forward_backward(batch)` for each batch of `train_loader_x`."""

    def run_epoch(self) -> None:
        self._run_batches(((batch,) for batch in self.train_loader_x), len(self.train_loader_x))

    def parse_batch_train(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image [B, 3, H, W], label [B], domain [B]. CoOp's trainers override this to return the first two."""
        return batch["img"].to(self.device), batch["label"].to(self.device), batch["domain"].to(self.device)


class TrainerXU(SimpleTrainer):
    """Trains on labelled and unlabelled data: `forward_backward(batch_x, batch_u)`, the shorter loader starting over.

    `TRAIN.COUNT_ITER` tells which of the two makes an epoch: `train_x`, `train_u` or `smaller_one`.
    """

    def run_epoch(self) -> None:
        if self.train_loader_u is None:
            raise ValueError(f"{self.cfg.DATASET.NAME} has no unlabelled training images (train_u)")
        len_x, len_u = len(self.train_loader_x), len(self.train_loader_u)
        lengths = {"train_x": len_x, "train_u": len_u, "smaller_one": min(len_x, len_u)}
        if self.cfg.TRAIN.COUNT_ITER not in lengths:
            raise ValueError(f'TRAIN.COUNT_ITER must be one of {list(lengths)}, got "{self.cfg.TRAIN.COUNT_ITER}"')
        pairs = zip(_forever(self.train_loader_x), _forever(self.train_loader_u), strict=True)
        self._run_batches(pairs, lengths[self.cfg.TRAIN.COUNT_ITER])

    def parse_batch_train(self, batch_x: dict, batch_u: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labelled images [B, 3, H, W], their labels [B], unlabelled images [B', 3, H, W]."""
        return batch_x["img"].to(self.device), batch_x["label"].to(self.device), batch_u["img"].to(self.device)


def _forever(loader: DataLoader) -> Iterator[dict]:
    while True:
        yield from loader
