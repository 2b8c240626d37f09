"""Zero-shot CLIP (Radford et al., arXiv 2103.00020): class names in one template, or in an ensemble of templates."""

from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.run.zero_shot import ZeroShotTrainer
from fairclip.text.templates import ENSEMBLE, template_of


def extend_cfg(cfg: CfgNode) -> None:
    """Config of both trainers; TEMPLATES () stands for the usual ones."""
    cfg.TRAINER.ZEROSHOTCLIP = CfgNode({"PREC": "auto", "TEMPLATES": ()})
    cfg.TRAINER.ZEROSHOTCLIP2 = CfgNode({"PREC": "auto", "TEMPLATES": ()})


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(ZeroShotTrainer):
    """One template, by default CoOp's for the data set.

    Config keys (TRAINER.ZEROSHOTCLIP): PREC; TEMPLATES, a tuple of templates to use instead.
    """

    def class_vectors(self) -> Tensor:
        return self.encode_names(self.options.TEMPLATES)


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroShotTrainer):
    """An ensemble of templates, by default CLIP's seven for ImageNet and the data set's own (for ImageNet the seven
    alone), as in CoOp.

    Config keys (TRAINER.ZEROSHOTCLIP2): PREC; TEMPLATES, a tuple of templates to use instead.
    """

    def class_vectors(self) -> Tensor:
        name = self.cfg.DATASET.NAME
        own = () if name == "ImageNet" else (template_of(name),)
        return self.encode_names(self.options.TEMPLATES or ENSEMBLE + own)
