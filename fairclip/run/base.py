"""What our trainers share on any Dassl (upstream, a CoOp checkout's, the bundled one): loading CLIP, class texts,
epochs that depend on nothing but (seed, epoch), checkpoints, resuming, and results.json."""

import math
import os
import secrets
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from dassl.data import DataManager
from dassl.data.datasets import Datum, build_dataset
from dassl.data.transforms import build_transform
from dassl.engine import TrainerX
from dassl.utils import set_random_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from fairclip.backbones.openai import autocast, fingerprint, input_resolution, load_clip
from fairclip.backbones.towers import ImageClassifier, Passes, channels_last, out_of_memory
from fairclip.core.distributed import (
    from_main,
    gather_list,
    gather_objects,
    global_mean,
    is_main,
    launched,
    local_world,
    main_first,
    parallel,
    started,
    world,
)
from fairclip.core.download import checksum_of
from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.method.anchors import AnchorClassifier
from fairclip.run.checkpoints import read_checkpoint
from fairclip.run.results import commit, config_hash, versions, write_predictions, write_results
from fairclip.text.descriptions import find_descriptions, load_descriptions
from fairclip.text.embeddings import encode_ragged, name_prompts
from fairclip.text.templates import template_of
from fairclip.views.device_views import DrawOnly, UncutViews
from fairclip.views.image_cache import ImageCache, check_cache
from fairclip.views.loading import Images, build_loader, mixed_seed, progress, read_image, set_seed
from fairclip.views.views import Normalize, Views

UNSET_SIZE = (224, 224)  # Dassl's default for INPUT.SIZE
SAMPLERS = {"RandomSampler": True, "SequentialSampler": False}  # whether they shuffle


def run_hash(cfg: CfgNode) -> str:
    """Hash of what decides the result: other trainers' nodes do not, and neither do the seed nor the folders."""
    own = cfg.clone()
    own.defrost()
    for node in [key for key in own.TRAINER if key not in ("NAME", cfg.TRAINER.NAME.upper())]:
        del own.TRAINER[node]
    return config_hash(own)


def cache_settings(cfg: CfgNode) -> tuple[str, float]:
    """DATALOADER.CACHE and CACHE_GB, with the defaults of a config that does not have them."""
    return cfg.DATALOADER.get("CACHE", "none"), cfg.DATALOADER.get("CACHE_GB", 16.0)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training moves, by name: all that a checkpoint needs besides the backbone's own file."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


class AdaptationTrainer(TrainerX):
    """Base of trainers that put a classifier on a CLIP image tower.

    A subclass implements ``build_model`` (set ``self.model`` and register it) and, if it trains, ``forward_backward``;
    ``train_transform``, ``test_transform``, ``model_inference``, ``predict``, ``extra_state`` and ``load_extra_state``
    are there for those that need them.

    Before each epoch all random generators, and those of the loader, are set from (seed, epoch). So the order and the
    augmentation of an epoch's images depend neither on what ran before nor on the workers, and a run that was killed
    and resumed ends exactly like one that was not.

    Under torchrun each process works on its part of every batch (see ``modules.distributed``). All of them run the same
    code, and in the same order where they meet: a mean over a batch is a global one, a training forward goes through
    ``self.net``, and files are written by the main process.

    Config keys read: TRAINER.<NAME>.PREC; MODEL.BACKBONE.NAME, INPUT.SIZE (follows the backbone), SEED, OUTPUT_DIR,
    RESUME, OPTIM.MAX_EPOCH, TRAIN.PRINT_FREQ, TRAIN.CHECKPOINT_FREQ (checkpoints to keep besides the newest), TEST.*;
    where train.py declares them, TRAIN.CHUNK, MICRO_BATCH, AUTO_CHUNK and MODEL.COMPILE (docs/memory.md), and
    DATALOADER.VIEWS, CACHE and CACHE_GB (docs/pipeline.md).
    """

    views_per_image = 1
    transductive = False  # whether the prediction for a test image depends on the other test images
    uses_labels = False  # whether training reads labels: a reference, not a competitor
    schedule_by_step = False  # whether the learning rate moves with each step, not each epoch

    # -- set-up ---------------------------------------------------------------------------------------------------

    @property
    def options(self) -> CfgNode:
        """The trainer's own config node."""
        return self.cfg.TRAINER[self.cfg.TRAINER.NAME.upper()]

    def check_cfg(self, cfg: CfgNode) -> None:
        name = cfg.TRAINER.NAME
        if name.upper() not in cfg.TRAINER:
            raise UserError(
                f"the config has no TRAINER.{name.upper()}: call extend_cfg(cfg) of the module that defines {name} "
                "before the YAML files are merged (in a CoOp checkout: in extend_cfg of train.py)"
            )
        if cfg.TEST.FINAL_MODEL != "last_step":
            raise UserError(
                f"TEST.FINAL_MODEL is {cfg.TEST.FINAL_MODEL!r}, but {name} reports the last epoch: choosing an epoch "
                "would need labels. Set it to last_step"
            )
        if cfg.DATALOADER.TRAIN_X.SAMPLER not in SAMPLERS:
            raise UserError(
                f"DATALOADER.TRAIN_X.SAMPLER {cfg.DATALOADER.TRAIN_X.SAMPLER}: {name} takes RandomSampler (or "
                "SequentialSampler); others choose images by their label or domain"
            )
        if cfg.DATALOADER.K_TRANSFORMS != 1:
            raise UserError(f"DATALOADER.K_TRANSFORMS: {name} makes its own views of an image, leave it at 1")
        if (place := cfg.DATALOADER.get("VIEWS", "auto")) not in ("auto", "worker", "device"):
            raise UserError(f"DATALOADER.VIEWS {place!r}: choose auto, worker or device")
        check_cache(*cache_settings(cfg))
        for key in ("CHUNK", "MICRO_BATCH"):
            if cfg.TRAIN.get(key, 0) < 0:
                raise UserError(f"TRAIN.{key} {cfg.TRAIN[key]}: a number of images is not negative, 0 sets no limit")
        self.check_processes(cfg)
        self.config_hash = run_hash(cfg)
        self.seed = cfg.SEED if cfg.SEED >= 0 else from_main(secrets.randbits(31))
        self.history: list[dict[str, Any]] = []
        self.results: dict[str, Any] = {}
        self.descriptions: dict[str, Any] | None = None  # which file, if there is one

    def check_processes(self, cfg: CfgNode) -> None:
        """Can the processes that torchrun started share the work?"""
        if launched() and not started():
            raise UserError("this train.py does not know of torchrun: start it by python")
        if world() > 1 and cfg.TRAIN.get("AUTO_CHUNK", False):
            raise UserError("TRAIN.AUTO_CHUNK is for one process: several would not do a step again together")
        gpus = torch.cuda.device_count() if cfg.USE_CUDA else 0
        if 0 < gpus < local_world():
            raise UserError(
                f"{local_world()} processes on this machine, and {gpus} GPUs: start at most one a GPU (torchrun "
                f"--nproc_per_node={gpus}), or set USE_CUDA False"
            )
        size, trains = cfg.DATALOADER.TRAIN_X.BATCH_SIZE, type(self).forward_backward != TrainerX.forward_backward
        if trains and size % world():
            raise UserError(
                f"DATALOADER.TRAIN_X.BATCH_SIZE {size} cannot be shared evenly by {world()} processes: set it to a "
                f"multiple of {world()}, such as {size - size % world() or world()}, or start fewer processes"
            )

    @staticmethod
    def check_label_free(cfg: CfgNode) -> None:
        """For trainers that read no training label: refuse the settings of Dassl and CoOp that would."""
        for chooses, key in (
            (cfg.DATASET.NUM_SHOTS > 0, "NUM_SHOTS"),
            (cfg.DATASET.get("SUBSAMPLE_CLASSES", "all") != "all", "SUBSAMPLE_CLASSES"),
        ):
            if chooses:
                raise UserError(
                    f"DATASET.{key} picks training images by label, and {cfg.TRAINER.NAME} trains without labels"
                )

    def build_data_loader(self) -> None:
        autocast(self.device, self.options.PREC)  # an impossible precision ends here, before anything is loaded
        with main_first():
            build_dataset(self.cfg)  # missing data is said before a backbone is downloaded; DataManager reads it again
            self.clip_model = load_clip(self.cfg.MODEL.BACKBONE.NAME, self.device)
        # As loaded: the checkpoint holds only what moves.
        self.tower_hash = fingerprint(self.clip_model.visual.state_dict())
        self.cfg = self._with_input_size(input_resolution(self.clip_model))
        train = self.train_transform() or build_transform(self.cfg, is_train=True)
        test = self.test_transform() or build_transform(self.cfg, is_train=False)
        dm = DataManager(self.cfg, custom_tfm_train=train, custom_tfm_test=test)
        self.dm = dm
        kind, gigabytes = cache_settings(self.cfg)
        self.image_cache = None if kind == "none" else ImageCache(kind, gigabytes)
        self.train_loader_x = self.loader(dm.dataset.train_x, train, train=True)
        self.train_loader_u = None
        self.val_loader = self.loader(dm.dataset.val, test) if dm.dataset.val else None
        self.test_loader = self.loader(dm.dataset.test, test)
        self.normalize = Normalize(self.cfg.INPUT.PIXEL_MEAN, self.cfg.INPUT.PIXEL_STD).to(self.device)
        # float16 gradients underflow unless the loss is scaled up; in other precisions this does nothing.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.options.PREC == "amp")
        train, model = self.cfg.TRAIN, self.cfg.MODEL
        self.passes = Passes(train.get("CHUNK", 0), train.get("MICRO_BATCH", 0), model.get("COMPILE", False))
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname

    def loader(self, images: Sequence[Datum], transform: Callable, train: bool = False) -> DataLoader:
        """Batches of these images: in training shuffled and all of one size, else in order."""
        nodes = self.cfg.DATALOADER
        if self.cuts_on_device and isinstance(transform, Views):
            transform = DrawOnly(transform)
        # Training images come again in each epoch; no other split does.
        read = self.image_cache.read if self.image_cache and images is self.dm.dataset.train_x else read_image
        return build_loader(
            Images([item.impath for item in images], [item.label for item in images], transform, read=read),
            nodes.TRAIN_X.BATCH_SIZE if train else nodes.TEST.BATCH_SIZE,
            nodes.NUM_WORKERS,
            self.device,
            shuffle=train and SAMPLERS[nodes.TRAIN_X.SAMPLER],
            train=train,
        )

    @property
    def cuts_on_device(self) -> bool:
        """Whether the views of ``Views`` are cut on the device. Other transforms are always done by the workers."""
        place = self.cfg.DATALOADER.get("VIEWS", "auto")
        return self.device.type == "cuda" if place == "auto" else place == "device"

    def _with_input_size(self, size: int) -> CfgNode:
        given = tuple(self.cfg.INPUT.SIZE)
        if given not in (UNSET_SIZE, (size, size)):
            raise UserError(
                f"INPUT.SIZE is {given}, but {self.cfg.MODEL.BACKBONE.NAME} takes {size} x {size} pixels: "
                "leave INPUT.SIZE out, it follows the backbone"
            )
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.INPUT.SIZE = (size, size)
        cfg.freeze()
        return cfg

    def register_model(self, name: str, model: ImageClassifier, *others: Any) -> None:
        """As Dassl's; before the model is copied, it learns how many images go through its tower at once."""
        model.passes = self.passes
        if self.device.type == "cuda" and self.options.PREC != "fp32":
            channels_last(model.visual)
        super().register_model(name, model, *others)

    def train_transform(self) -> Callable | None:
        """What turns a training image into a tensor; None for Dassl's own."""
        return None

    def test_transform(self) -> Callable | None:
        """The same for validation and test images."""
        return None

    # -- class texts ----------------------------------------------------------------------------------------------

    @property
    def classnames(self) -> list[str]:
        return list(self.dm.dataset.classnames)

    @property
    def tau(self) -> float:
        return self.clip_model.logit_scale.exp().item()

    def encode_names(self, templates: tuple[str, ...] = ()) -> Tensor:
        """Name prompts t_c, [K, d], unit rows. Without templates: the data set's usual one."""
        templates = tuple(templates) or (template_of(self.cfg.DATASET.NAME),)
        print(f"Templates: {' | '.join(templates)}")
        return name_prompts(self.clip_model, self.classnames, templates)

    def encode_descriptions(self, path: str = "") -> tuple[Tensor, Tensor]:
        """Class descriptions g(d_cm), [K, M, d], unit rows, and the mask of those that exist, [K, M].

        Without a file of descriptions no class has any, and every anchor will be its name prompt.
        """
        file = find_descriptions(path, self.dm.dataset)
        if file is None:
            node = f"TRAINER.{self.cfg.TRAINER.NAME.upper()}.DESCRIPTIONS"
            print(
                f"Warning: there are no class descriptions for {self.cfg.DATASET.NAME}, so its classes are known by "
                f"their names alone. Put a file into descriptions/ (JSON, class name -> list of sentences) or name one "
                f"by {node}"
            )
            sentences: list[list[str]] = [[] for _ in self.classnames]
        else:
            sentences = load_descriptions(file, self.classnames)
            self.descriptions = {"file": str(file), "sha256": checksum_of(file, "SHA-256")}
            print(f"Descriptions: {sum(map(len, sentences))} for {len(sentences)} classes from {file}")
        return encode_ragged(self.clip_model, sentences)

    # -- training -------------------------------------------------------------------------------------------------

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

    def descend(self, loss: Tensor) -> None:
        """One step of the optimizer. What a trainer keeps from step to step must not change before."""
        (name,) = self.get_model_names()
        self._optims[name].zero_grad()
        self.scaler.scale(loss).backward()
        self.moved = True
        self.scaler.step(self._optims[name])
        self.scaler.update()
        if self.schedule_by_step:
            self._scheds[name].step()

    def update_lr(self, names: list[str] | None = None) -> None:
        """Called once an epoch."""
        if not self.schedule_by_step:
            super().update_lr(names)

    moved = False  # whether what is being done has changed parameters, and cannot be done again

    def within_memory(self, work: Callable, *args: Any) -> Any:
        """``work(*args)``; where memory runs out, TRAIN.AUTO_CHUNK does it again with fewer images at once.

        Raises:
            UserError: memory ran out, and nothing is left to lower, or AUTO_CHUNK is off.
        """
        while True:
            self.moved = False
            try:
                return work(*args)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                reason = str(error).split("\n")[0]
            # Here the error is gone, and with it what it kept alive.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            last, cfg, auto = self.passes.last, self.cfg, self.cfg.TRAIN.get("AUTO_CHUNK", False)
            halved = self.passes.halve() if auto and not self.moved else None
            if halved is None:
                raise UserError(
                    f"out of memory ({reason}) after a pass of {last[1]} images. Lower TRAIN.CHUNK (now "
                    f"{self.passes.chunk}: images of a pass without gradients), TRAIN.MICRO_BATCH (now "
                    f"{self.passes.micro_batch}: of one with; 0 sets no limit), DATALOADER.TRAIN_X.BATCH_SIZE (now "
                    f"{cfg.DATALOADER.TRAIN_X.BATCH_SIZE}; it changes the result) or TRAINER.{cfg.TRAINER.NAME.upper()}"
                    f".PREC (now {self.options.PREC})" + ("" if auto else ", or set TRAIN.AUTO_CHUNK True")
                )
            print(f"Out of memory with {last[1]} images at once: {halved} from here on")

    def before_train(self) -> None:
        super().before_train()  # resumes, opens TensorBoard
        if len(set(gather_objects(self.start_epoch))) > 1:
            raise UserError(f"not all processes see the checkpoints in {self.output_dir}: it must be a shared folder")
        self.write_config()

    def write_config(self) -> None:
        """config.yaml, by which others read the run's files: not every train.py writes it."""
        if is_main():
            with atomic(Path(self.output_dir) / "config.yaml") as path:
                path.write_text(self.cfg.dump(), encoding="utf-8")

    def init_writer(self, log_dir: str) -> None:
        if is_main():
            super().init_writer(log_dir)

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
        title = f"epoch [{self.epoch + 1}/{self.max_epoch}]"
        bar = progress(self.train_loader_x, title)
        for self.batch_idx, batch in enumerate(bar):
            count = len(batch["img"])
            for name, value in self.within_memory(self.forward_backward, batch).items():
                sums[name] = sums.get(name, 0) + value * count
            images += count
            if (self.batch_idx + 1) % self.cfg.TRAIN.PRINT_FREQ == 0:
                loss = self._checked(global_mean(sums["loss"])) / images
                print(f"{title} batch [{self.batch_idx + 1}/{self.num_batches}] loss {loss:.4f}")
        shares = gather_objects({name: float(total) / images for name, total in sums.items()})
        means = {name: sum(share.get(name, 0.0) for share in shares) / world() for share in shares for name in share}
        self._checked(means["loss"])
        seconds = time.time() - start
        self.history.append(
            {"epoch": self.epoch + 1}
            | means
            | {"lr": self.get_current_lr(), "images_per_second": world() * images / seconds, "seconds": seconds}
        )
        self.update_lr()

    def _checked(self, loss: Tensor | float) -> float:
        if not math.isfinite(loss):
            raise UserError(
                f"the loss became {float(loss)} in epoch {self.epoch + 1}: lower OPTIM.LR"
                + (", or set PREC to bf16 or fp32" if self.options.PREC == "amp" else "")
            )
        return float(loss)

    def after_epoch(self) -> None:
        record = self.history[-1]
        # For learning curves. Nothing is chosen by it: the last epoch is the result.
        if self.cfg.TEST.get("EVERY_EPOCH", False):
            self.set_model_mode("eval")
            record["test_accuracy"] = self.accuracy(self.predict(self.test_loader, "test"), self.test_loader)
        self.save_model(self.epoch, self.output_dir)
        for name, value in record.items():
            self.write_scalar(f"train/{name}", value, self.epoch + 1)
        facts = [f"{name} {value:.4g}" for name, value in record.items() if name != "epoch"]
        print(f"epoch [{self.epoch + 1}/{self.max_epoch}] {' '.join(facts)}")

    def after_train(self) -> None:
        print("Finish training")
        self.epoch = self.max_epoch - 1  # also where a resumed run had no epoch left to do
        if not self.cfg.TEST.NO_TEST:
            self.test()
            self.write_results()
        self.close_writer()

    # -- evaluation -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def over(self, loader: DataLoader, function: Callable[[dict], Tensor], title: str) -> Tensor:
        """``function`` of every batch: its rows for all images, [N, ...], in the loader's order and on the device.

        Of several processes each works on its share of the images, and all get all rows.
        """
        return gather_list([self.within_memory(function, batch) for batch in progress(loader, title)]).to(self.device)

    def predict(self, loader: DataLoader, title: str) -> Tensor:
        """Logits of all images, [N, K], in the loader's order."""
        return self.over(loader, lambda batch: self.model_inference(self.parse_batch_test(batch)[0]), title)

    @staticmethod
    def accuracy(scores: Tensor, loader: DataLoader) -> float:
        """In percent, of the scores [N, K] of all images."""
        labels = torch.tensor(loader.dataset.labels, device=scores.device)
        return 100 * (scores.argmax(dim=1) == labels).float().mean().item()

    def loader_of(self, split: str) -> DataLoader:
        """Raises UserError for a split without images."""
        if split == "val" and self.val_loader is None:
            raise UserError(f"TEST.SPLIT val: {self.cfg.DATASET.NAME} has no validation images")
        return self.val_loader if split == "val" else self.test_loader

    def test(self, split: str | None = None) -> float:
        """Evaluate on TEST.SPLIT; ``self.results`` keeps every figure, predictions.csv what was said of each image.

        Returns the accuracy in percent.
        """
        start = time.time()
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        loader = self.loader_of(split)
        print(f"Evaluate on the *{split}* set")
        logits, images = self.predict(loader, split), loader.dataset
        self.evaluator.process(logits, torch.tensor(images.labels, device=logits.device))
        figures = from_main(self.evaluator.evaluate() if is_main() else None)  # it may write a file
        for name, value in figures.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch + 1)
        self.results = {name: float(figures[name]) for name in ("accuracy", "macro_f1")} | {
            "split": split,
            "test_seconds": time.time() - start,
        }
        if is_main():
            sure, predicted = logits.softmax(dim=1).max(dim=1)
            rows = zip(images.paths, images.labels, predicted.tolist(), sure.tolist(), strict=True)
            write_predictions(self.output_dir, self.cfg.DATASET.ROOT, self.classnames, rows)
        return self.results["accuracy"]

    def write_results(self) -> None:
        """results.json: what the run was and what came out. Written last, so its presence says that the run is done."""
        if not is_main():
            return
        cfg = self.cfg
        write_results(
            self.output_dir,
            {
                "dataset": cfg.DATASET.NAME,
                "trainer": cfg.TRAINER.NAME,
                "transductive": self.transductive,
                "uses_labels": self.uses_labels,
                "backbone": cfg.MODEL.BACKBONE.NAME,
                "seed": self.seed,
                "device": str(self.device),
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
            },
        )

    # -- what predictions need ----------------------------------------------------------------------------------------

    def prediction(self) -> dict[str, Any]:
        """What a prediction needs besides the tower: tensors and plain data, for the checkpoint.

        ``anchors``: unit rows [K, d], or None where the model is more than a tower with one anchor a class.
        """
        inputs = self.cfg.INPUT
        return {
            "anchors": self.model.anchors().detach() if type(self.model) is AnchorClassifier else None,
            "crops": None,
            "size": max(inputs.SIZE),
            "interpolation": inputs.INTERPOLATION,
            "normalize": "normalize" in inputs.TRANSFORMS,
            "mean": [float(value) for value in inputs.PIXEL_MEAN],
            "std": [float(value) for value in inputs.PIXEL_STD],
            "prec": self.options.PREC,
        }

    # -- checkpoints: OUTPUT_DIR/<model>/model.pth.tar-<epoch>, and a file `checkpoint` that names the newest ----------

    def extra_state(self) -> dict[str, Any]:
        """State of training beyond model, optimizer and scheduler: tensors and plain data."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what ``extra_state`` gave."""

    def _folder(self, directory: str) -> Path:
        (name,) = self.get_model_names()
        return Path(directory) / name

    def save_model(self, epoch: int, directory: str, **_: Any) -> None:
        """Write the checkpoint of ``epoch`` (from 0). Killed at any moment, a complete one remains."""
        if not is_main():
            return
        (name,) = self.get_model_names()
        folder, optim, sched = self._folder(directory), self._optims[name], self._scheds[name]
        newest = folder / f"model.pth.tar-{epoch + 1}"
        with atomic(newest) as path:
            torch.save(
                {
                    "state_dict": trained_state(self.model),
                    "epoch": epoch + 1,
                    "optimizer": optim.state_dict() if optim else None,  # a closed-form fit has neither
                    "scheduler": sched.state_dict() if sched else None,
                    "val_result": None,
                    "scaler": self.scaler.state_dict(),
                    "extra": self.extra_state(),
                    "history": self.history,
                    "seed": self.seed,
                    "config_hash": self.config_hash,
                    "backbone": self.cfg.MODEL.BACKBONE.NAME,
                    "tower_hash": self.tower_hash,
                    "classnames": self.classnames,
                    "descriptions": self.descriptions,
                    # All that predictions need besides the tower, also where training leaves them alone.
                    "anchors": self.model.anchors.weight.detach() if type(self.model) is AnchorClassifier else None,
                    "prediction": self.prediction(),
                },
                path,
            )
        with atomic(folder / "checkpoint") as path:
            path.write_text(f"{newest.name}\n")
        keep = self.cfg.TRAIN.CHECKPOINT_FREQ
        for old in folder.glob("model.pth.tar-*"):
            number = int(old.name.rpartition("-")[2])
            if old != newest and not (keep > 0 and number % keep == 0):
                old.unlink()

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on from the newest checkpoint in ``directory``. Returns the epoch to start with.

        Raises:
            UserError: the checkpoint is of another configuration or seed, or RESUME names a folder without any.
        """
        (name,) = self.get_model_names()
        pointer = self._folder(directory) / "checkpoint"
        if not pointer.exists():
            if self.cfg.RESUME:
                raise UserError(f"--resume: there is no checkpoint in {pointer.parent}")
            print("No checkpoint found, train from scratch")
            return 0
        state = self._read_checkpoint(pointer.parent / pointer.read_text().strip())
        if self.cfg.SEED < 0:
            self.seed = state["seed"]
        if (state["config_hash"], state["seed"]) != (self.config_hash, self.seed):
            raise UserError(
                f"{directory} holds an unfinished run with another configuration or seed (config {state['config_hash']}"
                f", seed {state['seed']}; now {self.config_hash}, seed {self.seed}): choose another OUTPUT_DIR, or "
                "remove that folder"
            )
        now = self.descriptions
        used = state.get("descriptions", now)  # a checkpoint from before they were noted has none
        if (used or {}).get("sha256") != (now or {}).get("sha256"):
            old, new = (described["file"] if described else "none" for described in (used, now))
            raise UserError(
                f"{directory} holds an unfinished run with other class descriptions: {old}, now {new}"
                f"{', which was edited' if old == new else ''}. Put the old file back, choose another OUTPUT_DIR, or "
                "remove that folder"
            )
        self._load_trained(state)
        self._optims[name].load_state_dict(state["optimizer"])
        self._scheds[name].load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        self.load_extra_state(state["extra"])
        self.history = state["history"]
        print(f"Resume {pointer.parent} after epoch {state['epoch']}")
        return state["epoch"]

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load a trained model for evaluation: the one of ``epoch``, or the newest in ``directory``.

        Raises:
            UserError: there is none, or it was trained for other classes or another backbone.
        """
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        folder = self._folder(directory)
        pointer = folder / "checkpoint"
        if epoch is None and not pointer.exists():
            raise UserError(f"there is no checkpoint in {folder}: --model-dir must name the OUTPUT_DIR of a run")
        path = folder / (pointer.read_text().strip() if epoch is None else f"model.pth.tar-{epoch}")
        state = self._read_checkpoint(path)
        if state["classnames"] != self.classnames:
            raise UserError(f"{path} was trained for other classes than those of {self.cfg.DATASET.NAME}")
        self._load_trained(state)
        print(f"Load {path} (epoch {state['epoch']})")

    def _read_checkpoint(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            there = ", ".join(sorted(os.listdir(path.parent))) if path.parent.is_dir() else "no such folder"
            raise UserError(f"no checkpoint at {path} (there: {there})")
        state = read_checkpoint(path)
        if state["backbone"] != self.cfg.MODEL.BACKBONE.NAME:
            raise UserError(f"{path} belongs to backbone {state['backbone']}, not {self.cfg.MODEL.BACKBONE.NAME}")
        return state

    def _load_trained(self, checkpoint: dict[str, Any]) -> None:
        """Copy the saved parameters and anchors into the model; what training left alone stays as the backbone's file
        has it."""
        saved = dict(checkpoint["state_dict"])
        if checkpoint.get("anchors") is not None:  # frozen ones too: the descriptions may have been edited since
            saved["anchors.weight"] = checkpoint["anchors"]
        try:
            unexpected = self.model.load_state_dict(saved, strict=False).unexpected_keys
        except RuntimeError as error:
            raise UserError(f"the checkpoint does not fit the model: {error}") from error
        if unexpected:
            raise UserError(f"the checkpoint has parameters that the model lacks: {', '.join(unexpected)}")


class ZeroShotTrainer(AdaptationTrainer):
    """Base of classifiers without training: a subclass gives one vector per class, ``train`` evaluates it."""

    def class_vectors(self) -> Tensor:
        """[K, d], unit rows."""
        raise NotImplementedError

    def build_model(self) -> None:
        self.model = AnchorClassifier(self.clip_model.visual, self.class_vectors(), self.tau, self.options.PREC)
        del self.clip_model  # the text tower has done its work
        self.register_model(self.cfg.TRAINER.NAME.lower(), self.model)

    def train(self) -> None:
        self.write_config()
        self.test()
        self.write_results()

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Nothing to load: the classifier is made of text."""
