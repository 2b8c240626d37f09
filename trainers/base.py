"""What our trainers share on any Dassl (upstream, a CoOp checkout's, the bundled one): loading CLIP, class texts,
epochs that depend on nothing but (seed, epoch), checkpoints, resuming, and results.json."""

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dassl.data import DataManager
from dassl.data.datasets import build_dataset
from dassl.engine import TrainerX
from dassl.utils import set_random_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from yacs.config import CfgNode

from .modules.anchors import AnchorClassifier
from .modules.backbone import autocast, fingerprint, input_resolution, load_clip
from .modules.checkpoints import read_checkpoint
from .modules.descriptions import find_descriptions, load_descriptions
from .modules.download import checksum_of
from .modules.errors import UserError
from .modules.results import atomic, commit, config_hash, versions, write_predictions, write_results
from .modules.text import DEFAULT_TEMPLATE, TEMPLATES, encode_ragged, name_prompts

UNSET_SIZE = (224, 224)  # Dassl's default for INPUT.SIZE


def run_hash(cfg: CfgNode) -> str:
    """Hash of what decides the result: other trainers' nodes do not, and neither do the seed nor the folders."""
    own = cfg.clone()
    own.defrost()
    for node in [key for key in own.TRAINER if key not in ("NAME", cfg.TRAINER.NAME.upper())]:
        del own.TRAINER[node]
    return config_hash(own)


def epoch_seed(seed: int, epoch: int) -> int:
    """A well-mixed 32-bit seed for one epoch of one run."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that training moves, by name: all that a checkpoint needs besides the backbone's own file."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


class AdaptationTrainer(TrainerX):
    """Base of trainers that put a classifier on a CLIP image tower.

    A subclass implements ``build_model`` (set ``self.model`` and register it) and, if it trains, ``forward_backward``;
    ``train_transform``, ``test_transform``, ``model_inference``, ``predict``, ``extra_state`` and ``load_extra_state``
    are there for those that need them.

    Before each epoch all random generators are set from (seed, epoch). So sampling and augmentation of an epoch do not
    depend on what ran before, and a run that was killed and resumed ends exactly like one that was not.

    Config keys read: TRAINER.<NAME>.PREC; MODEL.BACKBONE.NAME, INPUT.SIZE (follows the backbone), SEED, OUTPUT_DIR,
    RESUME, OPTIM.MAX_EPOCH, TRAIN.PRINT_FREQ, TRAIN.CHECKPOINT_FREQ (checkpoints to keep besides the newest), TEST.*.
    """

    views_per_image = 1
    transductive = False  # whether the prediction for a test image depends on the other test images
    uses_labels = False  # whether training reads labels: a reference, not a competitor

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
        self.config_hash = run_hash(cfg)
        self.seed = cfg.SEED if cfg.SEED >= 0 else secrets.randbits(31)
        self.history: list[dict[str, Any]] = []
        self.results: dict[str, Any] = {}
        self.descriptions: dict[str, Any] | None = None  # which file, if there is one

    @staticmethod
    def check_label_free(cfg: CfgNode) -> None:
        """For trainers that read no training label: refuse the settings of Dassl that would."""
        name, sampler = cfg.TRAINER.NAME, cfg.DATALOADER.TRAIN_X.SAMPLER
        if cfg.DATASET.NUM_SHOTS > 0:
            raise UserError(f"DATASET.NUM_SHOTS picks images by label, and {name} trains without labels")
        if sampler not in ("RandomSampler", "SequentialSampler"):
            raise UserError(
                f"DATALOADER.TRAIN_X.SAMPLER {sampler}: {name} trains without labels, use RandomSampler"
            )

    def build_data_loader(self) -> None:
        autocast(self.device, self.options.PREC)  # an impossible precision ends here, before anything is loaded
        build_dataset(self.cfg)  # missing data is said before a backbone is downloaded; DataManager reads it again
        self.clip_model = load_clip(self.cfg.MODEL.BACKBONE.NAME, self.device)
        self.tower_hash = fingerprint(self.clip_model.visual)  # as loaded: the checkpoint holds only what moves
        self.cfg = self._with_input_size(input_resolution(self.clip_model))
        dm = DataManager(
            self.cfg, custom_tfm_train=self.train_transform(), custom_tfm_test=self.test_transform()
        )
        self.dm = dm
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname

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
        templates = tuple(templates) or (TEMPLATES.get(self.cfg.DATASET.NAME, DEFAULT_TEMPLATE),)
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

    def before_train(self) -> None:
        super().before_train()  # resumes, opens TensorBoard
        with atomic(Path(self.output_dir) / "config.yaml") as path:  # not every train.py does
            path.write_text(self.cfg.dump(), encoding="utf-8")

    def before_epoch(self) -> None:
        set_random_seed(epoch_seed(self.seed, self.epoch))

    def run_epoch(self) -> None:
        """One pass over the training images. The means of what ``forward_backward`` returns join the history."""
        self.set_model_mode("train")
        self.num_batches = len(self.train_loader_x)
        sums, images, start = Counter(), 0, time.time()
        title = f"epoch [{self.epoch + 1}/{self.max_epoch}]"
        bar = tqdm(self.train_loader_x, desc=title, leave=False, disable=None)  # a bar on a terminal only
        for self.batch_idx, batch in enumerate(bar):
            count = len(batch["img"])
            for name, value in self.forward_backward(batch).items():
                sums[name] += value * count
            images += count
            if (self.batch_idx + 1) % self.cfg.TRAIN.PRINT_FREQ == 0:
                print(f"{title} batch [{self.batch_idx + 1}/{self.num_batches}] loss {sums['loss'] / images:.4f}")
        seconds = time.time() - start
        self.history.append(
            {"epoch": self.epoch + 1}
            | {name: total / images for name, total in sums.items()}
            | {"lr": self.get_current_lr(), "images_per_second": images / seconds, "seconds": seconds}
        )
        self.update_lr()

    def after_epoch(self) -> None:
        record = self.history[-1]
        # For learning curves. Nothing is chosen by it: the last epoch is the result.
        if self.cfg.TEST.get("EVERY_EPOCH", False):
            self.set_model_mode("eval")
            hits = [p.argmax(dim=1) == labels for p, labels, _ in self.predict(self.test_loader, "test")]
            record["test_accuracy"] = 100 * torch.cat(hits).float().mean().item()
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
    def predict(self, loader: DataLoader, title: str) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        """Logits [B, K], labels [B] and paths of the images of each batch, in the loader's order."""
        for batch in tqdm(loader, desc=title, leave=False, disable=None):
            images, labels = self.parse_batch_test(batch)
            yield self.model_inference(images), labels, list(batch["impath"])

    def test(self, split: str | None = None) -> float:
        """Evaluate on TEST.SPLIT; ``self.results`` keeps every figure, predictions.csv what was said of each image.

        Returns the accuracy in percent.
        """
        start = time.time()
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        if split == "val" and self.val_loader is None:
            raise UserError(f"TEST.SPLIT val: {self.cfg.DATASET.NAME} has no validation images")
        loader = self.val_loader if split == "val" else self.test_loader
        print(f"Evaluate on the *{split}* set")
        rows = []
        for logits, labels, paths in self.predict(loader, split):
            self.evaluator.process(logits, labels)
            sure, predicted = logits.softmax(dim=1).max(dim=1)
            rows += zip(paths, labels.tolist(), predicted.tolist(), sure.tolist(), strict=True)
        figures = self.evaluator.evaluate()
        for name, value in figures.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch + 1)
        self.results = {name: float(figures[name]) for name in ("accuracy", "macro_f1")} | {
            "split": split,
            "test_seconds": time.time() - start,
        }
        write_predictions(self.output_dir, self.cfg.DATASET.ROOT, self.classnames, rows)
        return self.results["accuracy"]

    def write_results(self) -> None:
        """results.json: what the run was and what came out. Written last, so its presence says that the run is done."""
        cfg = self.cfg
        write_results(self.output_dir, {
            "dataset": cfg.DATASET.NAME,
            "trainer": cfg.TRAINER.NAME,
            "transductive": self.transductive,
            "uses_labels": self.uses_labels,
            "backbone": cfg.MODEL.BACKBONE.NAME,
            "seed": self.seed,
            "device": str(self.device),
            **self.results,
            "descriptions": self.descriptions,
            "epochs": self.history,
            "seconds": sum(record["seconds"] for record in self.history) + self.results["test_seconds"],
            "trainable_parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "views_per_image": self.views_per_image,
            "versions": versions(),
            "commit": commit(),
            "config_hash": self.config_hash,
        })

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
        (name,) = self.get_model_names()
        folder, optim, sched = self._folder(directory), self._optims[name], self._scheds[name]
        newest = folder / f"model.pth.tar-{epoch + 1}"
        with atomic(newest) as path:
            torch.save({
                "state_dict": trained_state(self.model),
                "epoch": epoch + 1,
                "optimizer": optim.state_dict() if optim else None,  # a closed-form fit has neither
                "scheduler": sched.state_dict() if sched else None,
                "val_result": None,
                "extra": self.extra_state(),
                "history": self.history,
                "seed": self.seed,
                "config_hash": self.config_hash,
                "backbone": self.cfg.MODEL.BACKBONE.NAME,
                "tower_hash": self.tower_hash,
                "classnames": self.classnames,
                # All that predictions need besides the tower, also where training leaves them alone.
                "anchors": self.model.anchors.weight.detach() if type(self.model) is AnchorClassifier else None,
            }, path)
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
        self._load_trained(state["state_dict"])
        self._optims[name].load_state_dict(state["optimizer"])
        self._scheds[name].load_state_dict(state["scheduler"])
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
        self._load_trained(state["state_dict"])
        print(f"Load {path} (epoch {state['epoch']})")

    def _read_checkpoint(self, path: Path) -> dict[str, Any]:
        if not path.is_file():
            there = ", ".join(sorted(os.listdir(path.parent))) if path.parent.is_dir() else "no such folder"
            raise UserError(f"no checkpoint at {path} (there: {there})")
        state = read_checkpoint(path)
        if state["backbone"] != self.cfg.MODEL.BACKBONE.NAME:
            raise UserError(f"{path} belongs to backbone {state['backbone']}, not {self.cfg.MODEL.BACKBONE.NAME}")
        return state

    def _load_trained(self, state: dict[str, Tensor]) -> None:
        """Copy the saved parameters into the model; what training left alone stays as the backbone's file has it."""
        try:
            unexpected = self.model.load_state_dict(state, strict=False).unexpected_keys
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
        self.register_model(self.cfg.TRAINER.NAME.lower(), self.model)

    def train(self) -> None:
        self.test()
        self.write_results()

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Nothing to load: the classifier is made of text."""
