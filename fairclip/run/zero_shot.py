"""Classifiers without training."""

from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from fairclip.method.anchors import AnchorClassifier
from fairclip.run.base import AdaptationTrainer
from fairclip.run.checks import check_texts
from fairclip.run.settings import write_config


class ZeroShotTrainer(AdaptationTrainer):
    """Base of classifiers without training: a subclass gives one vector per class, ``train`` evaluates it."""

    def class_vectors(self) -> Tensor:
        """[K, d], unit rows."""
        raise NotImplementedError

    def build_model(self) -> None:
        self.model = AnchorClassifier(self.backbone.visual, self.class_vectors(), self.tau, self.prec)
        del self.backbone  # the text tower has done its work
        self.register_model(self.cfg.TRAINER.NAME.lower(), self.model)

    def train(self) -> None:
        write_config(self.cfg, self.output_dir)
        self.finish()

    def load_model(self, directory: str, *others: Any, epoch: int | None = None) -> None:
        """Nothing to load: the classifier is made of text."""


class StartsFromTexts(ZeroShotTrainer):
    """Base of those whose class vectors are name prompts, or the means of descriptions.

    Config keys read of the trainer's node: TEXTS, TEMPLATES, DESCRIPTIONS.
    """

    def class_vectors(self) -> Tensor:
        return self.encode_texts(self.options.TEMPLATES)

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_texts(cfg)
