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
from fairclip.run.checks import check_least
from fairclip.run.frozen import FrozenFeatures
from fairclip.run.zero_shot import StartsFromTexts


def extend_cfg(cfg: CfgNode) -> None:
    """Defaults are the paper's, the same for all data sets."""
    cfg.TRAINER.STATA = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "TEXTS": "names",  # what stands for a class: names | descriptions, their mean as CuPL's
            "TEMPLATES": (),  # templates of the name prompts; (): the data set's usual one
            "DESCRIPTIONS": "",  # with TEXTS descriptions: JSON file; "": the data set's own
            "ALPHA": 1.0,  # images that the anchor of a class weighs
            "LAMBDA": 1.0,  # weight of the text classifier's opinion
            "NEIGHBOURS": 3,  # images that each image listens to
            "OUTER": 10,  # updates of means and variances
            "INNER": 5,  # updates of the assignments between them
            "ONLINE": False,  # True: images come in batches, and each is classified by itself
            "BATCH": 128,  # images of such a batch
        }
    )


@TRAINER_REGISTRY.register()
class StatA(FrozenFeatures, StartsFromTexts):
    """TransCLIP's mixture with statistical anchors: transductive, its predictions need all test images at once.

    One Gaussian per class, with a diagonal covariance of its own, is fitted to the features of images without labels.
    It starts at the class's text and is pulled back there, the more the fewer images the class claims: where few of the
    classes are in the images at all, the others stay what the text says. Assignments are updated as in TransCLIP.

    ONLINE True: a stream. Images come in batches, in an order that the seed draws, and each batch is fitted by itself,
    from the texts: what comes before is forgotten, as in the public code.

    Config keys (TRAINER.STATA): PREC; TEXTS, TEMPLATES, DESCRIPTIONS; ALPHA; LAMBDA; NEIGHBOURS; OUTER, INNER; ONLINE,
    BATCH.

    Deviations:
        - Written from the paper's formulas, not from the public code, which has another licence than this project.
        - The anchor's variances are means over all images. The public code sums them up piece by piece, and divides the
          whole sum by the number of images again after each piece.
        - DTD's name prompt is CoOp's, "banded texture." with a full stop. The public code's has none.
        - The text classifier's temperature is the loaded CLIP's (100 in OpenAI's models).
        - The whole split is one batch, unless ONLINE or TEST.PROTOCOLS says otherwise.
        - An image is never its own neighbour, and a variance cannot become 0.
        - Computed in float64, on the CPU too; neighbours are searched a piece at a time.
    """

    transductive = True
    needs_float64 = True

    def scores(self, features: Tensor) -> Tensor:
        """Log-probabilities, [N, K]."""
        opt, anchors = self.options, self.model.anchors()
        log_prior = (self.model.tau * features @ anchors.t()).double().log_softmax(dim=1)
        texts = anchors.double()
        settings = opt.NEIGHBOURS, opt.OUTER, opt.INNER, opt.LAMBDA, opt.ALPHA
        batch = opt.BATCH if opt.ONLINE else len(features)
        batches = zip(features.double().split(batch), log_prior.split(batch), strict=True)
        z = torch.cat([fit(q, texts, y, *settings).z for q, y in batches])
        return z.clamp_min(torch.finfo(z.dtype).tiny).log().float()

    def model_inference(self, images: Tensor) -> Tensor:
        raise UserError("StatA classifies a whole split at once, or batches of it, not single images")

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        opt = cfg.TRAINER.STATA
        self.transductive, self.stream = not opt.ONLINE, opt.ONLINE
        check_least(opt, "TRAINER.STATA", NEIGHBOURS=1, OUTER=0, INNER=1, LAMBDA=0, BATCH=1)
        require(opt.ALPHA > 0, f"TRAINER.STATA.ALPHA {opt.ALPHA}: it must be above 0")
