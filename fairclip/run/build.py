"""From a config to data, backbone, loaders, class texts and an optimizer: what a trainer has before it trains."""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import torch
from dassl.data import DataManager
from dassl.data.datasets import build_dataset
from dassl.data.transforms import build_transform
from dassl.engine import TrainerX
from dassl.utils import set_random_seed
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from torchvision import transforms as T
from yacs.config import CfgNode

from fairclip.backbones.makers import load_backbone
from fairclip.backbones.precision import choose_precision
from fairclip.backbones.towers import ImageClassifier, Passes, channels_last
from fairclip.core.devices import choose_device
from fairclip.core.distributed import from_main, main_first
from fairclip.core.errors import UserError
from fairclip.core.log import as_details, core_as_details, log, show_messages
from fairclip.method.anchors import description_anchors
from fairclip.run import checks, texts
from fairclip.run.loaders import Loaders
from fairclip.run.memory import MemoryGuard
from fairclip.run.optimizers import build_optimizer
from fairclip.run.settings import backbone_options, run_hash, with_backbone_facts, with_input_size
from fairclip.run.state import Kept
from fairclip.views.normalize import Normalize
from fairclip.views.views import whole_view


class Built(TrainerX):
    """The part of our trainers that builds; ``fairclip.run.base`` has the rest and explains it."""

    reads: tuple[str, ...] = ()  # config keys besides those of ``fairclip.run.unread`` and its own node; * is any
    cfg: CfgNode
    needs_float64: bool
    loader: Callable[..., DataLoader]  # batches of images: ``Loaders.make``

    def __init__(self, cfg: CfgNode) -> None:
        show_messages()  # a CoOp checkout's train.py knows nothing of them
        self.kept = Kept(self)
        self.history: list[dict[str, Any]] = []
        self.results: dict[str, Any] = {}
        self.descriptions: dict[str, Any] | None = None  # which file, if there is one
        with core_as_details():
            super().__init__(with_backbone_facts(cfg))

    @classmethod
    def trains_by_steps(cls) -> bool:
        """Whether it takes steps, epoch after epoch: others fit at once, or not at all."""
        return cls.forward_backward != TrainerX.forward_backward

    @property
    def options(self) -> CfgNode:
        """The trainer's own config node."""
        return self.cfg.TRAINER[self.cfg.TRAINER.NAME.upper()]

    def check_cfg(self, cfg: CfgNode) -> None:
        """A subclass adds its own keys. What cannot work is said here, before anything is loaded."""
        checks.check_settings(cfg)
        checks.check_processes(cfg, trains=self.trains_by_steps())
        self.config_hash = run_hash(cfg)
        self.seed = cfg.SEED if cfg.SEED >= 0 else from_main(secrets.randbits(31))
        if cfg.SEED < 0:  # what is random before the first epoch follows it, too
            set_random_seed(self.seed)

    def build_data_loader(self) -> None:
        self.device = choose_device(self.cfg.get("DEVICE", ""), self.cfg.USE_CUDA)
        if self.device.type == "mps" and self.needs_float64:
            raise UserError(f"{self.cfg.TRAINER.NAME} computes in float64, which mps does not have: give DEVICE cpu")
        # An impossible precision ends here, before anything is loaded. All processes compute in the same one.
        self.prec, self.why_prec = from_main(choose_precision(self.device, self.options.PREC))
        drawn = " (drawn, as --seed is not given)" if self.cfg.SEED < 0 else ""
        log.info(f"{self.cfg.TRAINER.NAME} on {self.cfg.DATASET.NAME}, seed {self.seed}{drawn}, on {self.device}")
        with main_first():
            build_dataset(self.cfg)  # missing data is said before a backbone is downloaded; DataManager reads it again
            self.backbone = load_backbone(self.cfg.MODEL.BACKBONE.NAME, self.device, backbone_options(self.cfg))
        # What is needed of it after its text tower has been given up.
        self.pixels_taken, self.backbone_options = self.backbone.pixels, self.backbone.options
        self.backbone_facts = self.backbone.facts
        # As loaded: the checkpoint holds only what moves.
        self.tower_hash, self.text_hash = self.backbone.fingerprint, self.backbone.text_hash
        self.cfg = with_input_size(self.cfg, self.backbone.size)
        with as_details():
            train = self.train_transform() or build_transform(self.cfg, is_train=True)
            test = self.test_transform() or self.usual_test_transform()
            self.dm = dm = DataManager(without_workers(self.cfg), custom_tfm_train=train, custom_tfm_test=test)
        self.num_classes, self.lab2cname = dm.num_classes, dm.lab2cname
        self.num_source_domains = dm.num_source_domains
        self.upright = getattr(dm.dataset, "upright", False)  # a person's own images are turned as they are seen
        self.loader = Loaders(self.cfg, self.device, dm.dataset.train_x, self.upright).make
        self.train_loader_x = self.loader(dm.dataset.train_x, train, train=True)
        self.train_loader_u = None
        self.val_loader = self.loader(dm.dataset.val, test) if dm.dataset.val else None
        self.test_loader = self.loader(dm.dataset.test, test)
        self.normalize = Normalize(self.cfg.INPUT.PIXEL_MEAN, self.cfg.INPUT.PIXEL_STD).to(self.device)
        # float16 gradients underflow unless the loss is scaled up; in other precisions this does nothing.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.prec == "amp")
        self.memory_guard = self._memory_guard()
        self._say_what_is_there()

    def _memory_guard(self) -> MemoryGuard:
        cfg, train = self.cfg, self.cfg.TRAIN
        passes = Passes(train.get("CHUNK", 0), train.get("MICRO_BATCH", 0), cfg.MODEL.get("COMPILE", False))
        settings = (
            f"DATALOADER.TRAIN_X.BATCH_SIZE (now {cfg.DATALOADER.TRAIN_X.BATCH_SIZE}; it changes the result) or "
            f"TRAINER.{cfg.TRAINER.NAME.upper()}.PREC (now {self.prec})"
        )
        return MemoryGuard(passes, train.get("AUTO_CHUNK", False), settings)

    def _say_what_is_there(self) -> None:
        test = None if self.cfg.TEST.NO_TEST else self.dm.dataset.test
        parts = {"training": self.dm.dataset.train_x, "validation": self.dm.dataset.val, "test": test}
        counts = ", ".join(f"{len(images):,} {part}" for part, images in parts.items() if images)
        log.info(f"Data: {self.num_classes} classes; images: {counts}")
        size, squashed = self.backbone.size, ", squashed" if self.input_form["squash"] else ""
        log.info(f"Backbone: {self.backbone.name}, {size} x {size} pixels{squashed} to {self.backbone.width} features")
        log.info(f"Precision: {self.prec}" + (f", {self.why_prec}" if self.why_prec else ""))

    def register_model(self, name: str, model: ImageClassifier, *others: Any) -> None:
        """As Dassl's; before the model is copied, it learns how many images go through its tower at once."""
        model.passes = self.memory_guard.passes
        if self.device.type == "cuda" and self.prec != "fp32":
            channels_last(model.visual)
        super().register_model(name, model, *others)

    def set_up_training(self, groups: Sequence[dict[str, Any]], schedule: Callable[[Optimizer], LRScheduler]) -> None:
        """Train the parameters of these groups, and no others, by OPTIM's optimizer and this schedule.

        Args: groups, as torch's optimizers take them; empty ones are left out.
        """
        groups = [group for group in groups if group["params"]]
        parameters = [parameter for group in groups for parameter in group["params"]]
        for parameter in parameters:
            parameter.requires_grad_(True)
        optim = build_optimizer(self.cfg.OPTIM, groups)
        self.register_model(self.cfg.TRAINER.NAME.lower(), self.model, optim, schedule(optim))
        count, total = sum(p.numel() for p in parameters), sum(p.numel() for p in self.model.parameters())
        log.info(
            f"Trainable: {count:,} of {total:,} parameters, moved to lower the loss (what counts is that it falls, not "
            "how high it is)"
        )

    def keep(self, name: str, value: Any) -> None:
        """Set ``self.<name>``, which belongs in the checkpoint: what has a state_dict, a tensor, or plain data."""
        setattr(self, name, value)
        self.kept.add(name)

    def train_transform(self) -> Callable | None:
        """What turns a training image into a tensor; None for Dassl's own."""
        return None

    def test_transform(self) -> Callable | None:
        """The same for validation and test images."""
        return None

    def usual_test_transform(self) -> Callable:
        """Dassl's, or for a backbone that takes whole images made square, the like of it."""
        usual, form = build_transform(self.cfg, is_train=False), self.input_form
        if not form["squash"]:
            return usual
        return T.Compose([whole_view(**form), *(step for step in usual.transforms if isinstance(step, T.Normalize))])

    @property
    def input_form(self) -> dict[str, Any]:
        """What views of an image must be, for the transforms of ``fairclip.views``."""
        pixels = self.pixels_taken
        return {
            "size": self.cfg.INPUT.SIZE[0],
            "interpolation": pixels.interpolation,
            "squash": pixels.resize == "squash",
        }

    # -- Class texts ---------------------------------------------------------------------------------------------------

    @property
    def classnames(self) -> list[str]:
        return list(self.dm.dataset.classnames)

    @property
    def tau(self) -> float:
        return self.backbone.tau

    def encode_names(self, templates: tuple[str, ...] = ()) -> Tensor:
        """Name prompts t_c, [K, d], unit rows. Without templates: the data set's usual one."""
        return texts.encode_names(self.backbone, self.cfg, self.classnames, templates)

    def encode_texts(self, templates: tuple[str, ...] = ()) -> Tensor:
        """What stands for the classes, [K, d], unit rows: by TEXTS of the trainer's node, names or descriptions."""
        return (
            self.encode_described(templates) if self.options.TEXTS == "descriptions" else self.encode_names(templates)
        )

    def encode_described(self, templates: tuple[str, ...] = ()) -> Tensor:
        """Each class as the mean of its descriptions' embeddings, as in CuPL, [K, d], unit rows; one without any is its
        name prompt. DESCRIPTIONS of the trainer's node may name a file."""
        names = self.encode_names(templates)
        return description_anchors(names, *self.encode_descriptions(self.options.DESCRIPTIONS), scale=1.0, mode="mean")

    def encode_descriptions(self, path: str = "") -> tuple[Tensor, Tensor]:
        """Class descriptions g(d_cm), [K, M, d], unit rows, and the mask of those that exist, [K, M]."""
        *found, self.descriptions = texts.encode_descriptions(
            self.backbone, self.cfg, self.dm.dataset, self.classnames, path
        )
        return found[0], found[1]


def without_workers(cfg: CfgNode) -> CfgNode:
    """For Dassl's own loaders, which our trainers do not use: torch warns of workers that it will never start."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg
