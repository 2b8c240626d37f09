"""CuPL (Pratt et al., arXiv 2209.03320): each class is the mean of its descriptions' embeddings."""

from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.run.zero_shot import ZeroShotTrainer


def extend_cfg(cfg: CfgNode) -> None:
    """DESCRIPTIONS "" stands for the data set's own file; TEMPLATES serve classes that have no description."""
    cfg.TRAINER.CUPL = CfgNode({"PREC": "auto", "DESCRIPTIONS": "", "TEMPLATES": ()})


@TRAINER_REGISTRY.register()
class CuPL(ZeroShotTrainer):
    """Zero-shot classification by class descriptions.

    Config keys (TRAINER.CUPL): PREC; DESCRIPTIONS, path of a JSON file; TEMPLATES.

    Deviations:
        - The descriptions are by default this project's, five to seven a class, which all methods here share; the paper
          has 20 to 90 a class. DESCRIPTIONS takes its public files.
        - A class without descriptions is its name prompt.
    """

    def class_vectors(self) -> Tensor:
        return self.encode_described(self.options.TEMPLATES)
