"""ZLaP: label propagation from class texts to images, without training.

V. Stojnić, Y. Kalantidis, G. Tolias, "Label Propagation for Zero-shot Classification with Vision-Language Models",
arXiv 2404.04072 (CVPR 2024).
"""

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.core.errors import UserError, require
from fairclip.method.zlap import keep_strongest, log_shares, propagate, scores_of_others, similarity_graph
from fairclip.run.checks import check_label_free, check_least
from fairclip.run.frozen import FrozenFeatures
from fairclip.run.zero_shot import StartsFromTexts
from fairclip.views.loading import images_of

SETUPS = ("inductive", "sparse-inductive", "transductive")


def extend_cfg(cfg: CfgNode) -> None:
    """Defaults are the public code's, the same for all data sets, but for SETUP: there it is transductive."""
    cfg.TRAINER.ZLAP = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "TEXTS": "names",  # what stands for a class: names | descriptions, their mean as CuPL's
            "TEMPLATES": (),  # templates of the name prompts; (): the data set's usual one
            "DESCRIPTIONS": "",  # with TEXTS descriptions: JSON file; "": the data set's own
            "SETUP": "inductive",  # images of the graph: training (inductive | sparse-inductive) or test (transductive)
            "NEIGHBOURS": 5,  # images, and texts, that an image has edges to
            "GAMMA": 5.0,  # power of similarities between images and texts
            "ALPHA": 0.3,  # share of a node's label that comes from its neighbours
        }
    )


@TRAINER_REGISTRY.register()
class ZLaP(FrozenFeatures, StartsFromTexts):
    """Label propagation on a graph of nearest neighbours, whose nodes are the class texts and images without labels.

    Each text has its class as label, and labels spread along the edges: z = (I - alpha S)^-1 y, solved by conjugate
    gradients for each class. SETUP "inductive": the images of the graph are the training images; a test image, alone,
    sums what has arrived at its neighbours by similarity. "sparse-inductive": the same with the greatest class alone
    kept at each node. "transductive": the images of the graph are the test images, all at once.

    Config keys (TRAINER.ZLAP): PREC; TEXTS, TEMPLATES, DESCRIPTIONS; SETUP; NEIGHBOURS; GAMMA; ALPHA.

    Deviations:
        - Labels start at the name prompts, or with TEXTS descriptions at CuPL's means of descriptions (this project's
          by default). The paper also has InMaP's proxies.
        - An image counts among its own neighbours and that edge is dropped, as in the public code. There an image with
          many identical ones may not be among its own, and keeps one more.
        - Inductive scores come from one solution for each class; the public code solves for each test image. S is
          symmetric, so both are the same.
        - sparse-inductive zeroes the other entries but stores them; the paper saves their memory.
        - Computed in float64, on the CPU too; neighbours are searched a piece at a time.
    """

    transductive = False
    needs_float64 = True

    def spread(self, features: Tensor) -> Tensor:
        """Z, [K + N, K], of the graph of texts and these images, [N, d] float64."""
        opt = self.options
        graph = similarity_graph(features, self.texts, opt.NEIGHBOURS, opt.GAMMA)
        return propagate(graph, self.num_classes, opt.ALPHA)

    @property
    def texts(self) -> Tensor:
        return self.model.anchors().double()

    def scores(self, features: Tensor) -> Tensor:
        """Logs of the classes' shares, [N, K]."""
        features = features.double()
        found = self.spread(features)[self.num_classes :] if self.transductive else self.score_alone(features)
        return log_shares(found).float()

    # -- The inductive setups ------------------------------------------------------------------------------------------

    graph: tuple[Tensor, Tensor] | None = None  # made on first use, so that --eval-only has it too

    def score_alone(self, features: Tensor) -> Tensor:
        """Each image by itself, [N, K]."""
        opt = self.options
        if self.graph is None:
            images = self.encode_all(images_of(self.train_loader_x), "train").double()
            z = self.spread(images)
            self.graph = images, keep_strongest(z) if opt.SETUP == "sparse-inductive" else z
        images, z = self.graph
        return scores_of_others(features, images, self.texts, z, opt.NEIGHBOURS, opt.GAMMA)

    @torch.no_grad()
    def model_inference(self, images: Tensor) -> Tensor:
        if self.transductive:
            raise UserError("ZLaP classifies a whole split at once; for single images set SETUP inductive")
        return self.scores(self.model.encode(images))

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        opt = cfg.TRAINER.ZLAP
        require(opt.SETUP in SETUPS, f"TRAINER.ZLAP.SETUP {opt.SETUP!r}: choose one of {', '.join(SETUPS)}")
        self.transductive = opt.SETUP == "transductive"
        if not self.transductive:
            check_label_free(cfg)
        check_least(opt, "TRAINER.ZLAP", NEIGHBOURS=1)
        require(opt.GAMMA > 0, f"TRAINER.ZLAP.GAMMA {opt.GAMMA}: it must be above 0")
        require(0 <= opt.ALPHA < 1, f"TRAINER.ZLAP.ALPHA {opt.ALPHA}: a share from 0, below 1")
