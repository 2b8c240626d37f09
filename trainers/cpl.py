"""CPL: prompts learned from sets of candidate classes, over rounds.

J. Zhang, Q. Wei, F. Liu, L. Feng, "Candidate Pseudolabel Learning: Enhancing Vision-Language Models by Prompt Tuning
with Unlabeled Data", arXiv 2406.10502 (ICML 2024).
"""

from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.core.errors import require
from fairclip.method.candidates import candidate_sets

from .grip import PromptRounds


def extend_cfg(cfg: CfgNode) -> None:
    """CPL's config; defaults from its public code but for PREC, ALPHA, GAMMA and TEMPLATES (see ``CPL``)."""
    cfg.TRAINER.CPL = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            # Candidates
            "ALPHA": 0.75,  # quantile of the images' greatest probabilities that an image's candidates sum up to
            "GAMMA": 2.0,  # a class is a candidate of the GAMMA / K of all images that it is most probable for
            # Images
            "TEMPLATES": (),  # of the name prompts that label the first round; (): the data set's usual one
            "STEP": 0.1,  # share of the training images that joins in each round. Public code: 0.2 for CUB
            "TOP_K": 0,  # images of each class in all rounds; 0: as many as STEP says
            # Prompts
            "ROUND_EPOCHS": 50,  # epochs of a round; OPTIM.MAX_EPOCH has those of all rounds
            "RESTART": True,  # each round from the first start; False: from the vectors of the round before
            "MAX_NORM": 0.8,  # of the gradient
            "N_CTX": 16,  # context vectors in front of the class name
            "CSC": False,  # a context of each class's own
        }
    )


@TRAINER_REGISTRY.register()
class CPL(PromptRounds):
    """Prompt learning over rounds, where an image may be one of several classes: -log of the sum of their
    probabilities is the loss.

    A class is a candidate of an image by two rules at once. Of the image's classes it is among the most probable ones,
    which together pass the ALPHA-quantile of all images' greatest probabilities; and of the class's images, this is
    among the GAMMA / K most probable ones. An image without candidates is left out. The others stand on leaderboards,
    one image on one board and each board of one of its candidates, and those boards choose whom a round trains on.

    Config keys: TRAINER.CPL (see ``extend_cfg``), and those of ``PromptRounds``. The public code trains by SGD at a
    rate that is given by hand (here 0.02), with 2 epochs of warm-up, weight decay 0.05, batches of 64, and 50 epochs in
    each of 10 rounds (5 for CUB).

    Deviations from the public code:
        - One ALPHA and one GAMMA for all data sets. There, each has its own: ALPHA 0.6 for Flowers, 0.75 for CUB, DTD
          and EuroSAT, 0.9 for Aircraft and RESISC45; the quantile 1 - GAMMA / K is given as a number, from which
          GAMMA is 1 for Flowers, 1.4 for RESISC45, 2 for CUB and EuroSAT, 2.4 for DTD, 3 for Aircraft.
        - Candidates count alike in all rounds, as in the paper. There, those of the first round count by their
          probabilities.
        - Boards have equally many places. There, a board that was not full in the round before grows from the images
          that it had.
        - Of its two kinds of prompts the textual one. A full stop follows the name; there, nothing does.
        - Warm-up is Dassl's, and names are put into the data set's usual template for the first round, as in ``GRIP``.
        - Float32 or mixed precision instead of half precision.
    """

    @property
    def max_norm(self) -> float:
        return self.options.MAX_NORM

    def candidates(self, probs: Tensor) -> Tensor:
        return candidate_sets(probs, self.options.ALPHA, max(0.0, 1 - self.options.GAMMA / self.num_classes))

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        opt, node = cfg.TRAINER.CPL, "TRAINER.CPL"
        require(0 <= opt.ALPHA <= 1, f"{node}.ALPHA {opt.ALPHA}: a quantile lies between 0 and 1")
        require(opt.GAMMA > 0, f"{node}.GAMMA {opt.GAMMA}: a share of the images above 0")
        require(opt.MAX_NORM > 0, f"{node}.MAX_NORM {opt.MAX_NORM}: a length above 0")
