"""Classifiers without training."""

from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from fairclip.core.errors import require
from fairclip.method.anchors import AnchorClassifier, description_anchors
from fairclip.run.base import AdaptationTrainer
from fairclip.run.settings import write_config


class ZeroShotTrainer(AdaptationTrainer):
    """Base of classifiers without training: a subclass gives one vector per class, ``train`` evaluates it."""

    def class_vectors(self) -> Tensor:
        """[K, d], unit rows."""
        raise NotImplementedError

    def described(self) -> Tensor:
        """Each class as the mean of its descriptions' embeddings, [K, d], unit rows; one without any is its name
        prompt.

        Config keys read of the trainer's node: DESCRIPTIONS, TEMPLATES.
        """
        descriptions, mask = self.encode_descriptions(self.options.DESCRIPTIONS)
        names = self.encode_names(self.options.TEMPLATES)
        return description_anchors(names, descriptions, mask, scale=1.0, mode="mean")

    def build_model(self) -> None:
        self.model = AnchorClassifier(self.backbone.visual, self.class_vectors(), self.tau, self.prec)
        del self.backbone  # the text tower has done its work
        self.register_model(self.cfg.TRAINER.NAME.lower(), self.model)

    def train(self) -> None:
        write_config(self.cfg, self.output_dir)
        self.test()
        self.write_results()

    def load_model(self, directory: str, *others: Any, epoch: int | None = None) -> None:
        """Nothing to load: the classifier is made of text."""


class StartsFromTexts(ZeroShotTrainer):
    """Base of those whose class vectors are name prompts, or the means of descriptions.

    Config keys read of the trainer's node: TEXTS, TEMPLATES, DESCRIPTIONS.
    """

    def class_vectors(self) -> Tensor:
        return self.described() if self.options.TEXTS == "descriptions" else self.encode_names(self.options.TEMPLATES)

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        name = f"TRAINER.{cfg.TRAINER.NAME.upper()}"
        opt = cfg.TRAINER[cfg.TRAINER.NAME.upper()]
        require(
            opt.TEXTS == "descriptions" or not opt.DESCRIPTIONS,
            f"{name}.DESCRIPTIONS is read with {name}.TEXTS descriptions alone: give that too",
        )
