"""StatA: classify all images of a data set together, with class statistics that stay near the texts.

M. Zanella, C. Fuchs, C. De Vleeschouwer, I. Ben Ayed, "Realistic Test-Time Adaptation of Vision-Language Models", arXiv
2501.03729 (CVPR 2025).
"""

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.core.errors import UserError, require
from fairclip.method.stata import fit
from fairclip.run.frozen import FrozenFeatures
from fairclip.run.zero_shot import ZeroShotTrainer


def extend_cfg(cfg: CfgNode) -> None:
    """Defaults are the paper's, the same for all data sets."""
    cfg.TRAINER.STATA = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "TEMPLATES": (),  # templates of the name prompts; (): the data set's usual one
            "ALPHA": 1.0,  # images that the anchor of a class weighs
            "LAMBDA": 1.0,  # weight of the text classifier's opinion
            "NEIGHBOURS": 3,  # images that each image listens to
            "OUTER": 10,  # updates of means and variances
            "INNER": 5,  # updates of the assignments between them
        }
    )


@TRAINER_REGISTRY.register()
class StatA(FrozenFeatures, ZeroShotTrainer):
    """TransCLIP's mixture with statistical anchors: transductive, its predictions need all test images at once.

    One Gaussian per class, with a diagonal covariance of its own, is fitted to the features of images without labels.
    It starts at the class's text and is pulled back there, the more the fewer images the class claims: where few of the
    classes are in the images at all, the others stay what the text says. Assignments are updated as in TransCLIP.

    Config keys (TRAINER.STATA): PREC; TEMPLATES; ALPHA; LAMBDA; NEIGHBOURS; OUTER, INNER.

    Deviations:
        - Written from the paper's formulas, not from the public code, which has another licence than this project.
        - The anchor's variances are means over all images. In the public code each of the pieces in which they are
          summed up is divided by their number again.
        - After the last update of means and variances the assignments are updated once more, as in TransCLIP.
        - The text classifier's temperature is the loaded CLIP's (100 in OpenAI's models).
        - The whole split is one batch. The paper also has small batches of few classes, and streams of them.
        - An image is never its own neighbour, and a variance cannot become 0.
        - Computed in float64, on the CPU too; neighbours are searched a piece at a time.
    """

    transductive = True
    needs_float64 = True

    def class_vectors(self) -> Tensor:
        return self.encode_names(self.options.TEMPLATES)

    def scores(self, features: Tensor) -> Tensor:
        """Log-probabilities, [N, K]."""
        opt, texts = self.options, self.model.anchors()
        log_prior = (self.model.tau * features @ texts.t()).double().log_softmax(dim=1)
        z, _, _ = fit(
            features.double(),
            texts.double(),
            log_prior,
            opt.NEIGHBOURS,
            opt.OUTER,
            opt.INNER,
            opt.LAMBDA,
            opt.ALPHA,
        )
        return z.clamp_min(torch.finfo(z.dtype).tiny).log().float()

    def model_inference(self, images: Tensor) -> Tensor:
        raise UserError("StatA classifies a whole split at once, not single images")

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        opt = cfg.TRAINER.STATA
        for key, least in (("NEIGHBOURS", 1), ("OUTER", 0), ("INNER", 1), ("LAMBDA", 0)):
            require(opt[key] >= least, f"TRAINER.STATA.{key} {opt[key]}: it must be at least {least}")
        require(opt.ALPHA > 0, f"TRAINER.STATA.ALPHA {opt.ALPHA}: it must be above 0")
