"""TransCLIP: classify all images of a data set together, without training.

M. Zanella, B. Gérin, I. Ben Ayed, "Boosting Vision-Language Models with Transduction", arXiv 2406.01837 (NeurIPS 2024).
"""

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.core.errors import UserError
from fairclip.method.transclip import fit, log_likelihood, update_assignments
from fairclip.run.checks import check_label_free, check_least
from fairclip.run.frozen import FrozenFeatures
from fairclip.run.zero_shot import StartsFromTexts
from fairclip.views.loading import images_of


def extend_cfg(cfg: CfgNode) -> None:
    """Defaults are the public code's."""
    cfg.TRAINER.TRANSCLIP = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "TEXTS": "names",  # what stands for a class: names | descriptions, their mean as CuPL's
            "TEMPLATES": (),  # templates of the name prompts; (): the data set's usual one
            "DESCRIPTIONS": "",  # with TEXTS descriptions: JSON file; "": the data set's own
            "INDUCTIVE": False,  # True: fit on the unlabelled training images, then score test images one by one
            "LAMBDA": 1.0,  # weight of the text classifier's opinion
            "NEIGHBOURS": 3,  # images that each image listens to
            "OUTER": 10,  # updates of means and variances
            "INNER": 5,  # updates of the assignments between them
            "INIT": 8,  # images per class that the first means are made of
        }
    )


@TRAINER_REGISTRY.register()
class TransCLIP(FrozenFeatures, StartsFromTexts):
    """The zero-shot variant of TransCLIP: transductive, that is, its predictions need all test images at once.

    One Gaussian per class, all with one diagonal covariance, is fitted to the features of images without labels. The
    assignment of an image weighs the text classifier's probabilities, the likelihood under the Gaussians and the
    assignments of its nearest neighbours; assignments, means and variances are updated in turn, each in closed form.

    INDUCTIVE True is our variant for a comparison with methods that adapt on training images: means and variances are
    fitted on these, without labels, and a test image is scored alone by y^lambda * exp(l / 50), without neighbours.

    Config keys (TRAINER.TRANSCLIP): PREC; TEXTS, TEMPLATES, DESCRIPTIONS; INDUCTIVE; LAMBDA; NEIGHBOURS; OUTER, INNER;
    INIT.

    Deviations:
        - The classes are those of the data set. The public code counts the distinct labels of the test images.
        - The text classifier's temperature is the loaded CLIP's (100 in OpenAI's models, where the code has 100).
        - An image is never its own neighbour. The code leaves out the nearest image, which need not be the image itself
          if there is a duplicate.
        - A class that no image belongs to keeps its mean, and a variance cannot become 0; fewer than 8 images will do.
        - DTD's name prompt is CoOp's, "banded texture." with a full stop. The public code's has none.
        - Computed in float64, on the CPU too; neighbours are searched a piece at a time.
    """

    transductive = True
    needs_float64 = True

    def log_prior(self, features: Tensor) -> Tensor:
        """The text classifier's opinion, log y, [N, K]."""
        return (self.model.tau * features @ self.model.anchors().t()).double().log_softmax(dim=1)

    def fit(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Assignments z [N, K], means [K, d] and variances [d] for these images."""
        opt = self.options
        return fit(
            features.double(), self.log_prior(features), opt.NEIGHBOURS, opt.OUTER, opt.INNER, opt.INIT, opt.LAMBDA
        )

    def scores(self, features: Tensor) -> Tensor:
        """Log-probabilities, [N, K]."""
        if self.options.INDUCTIVE:
            z = self.score_alone(features)
        else:
            z, _, _ = self.fit(features)
        return z.clamp_min(torch.finfo(z.dtype).tiny).log().float()

    # -- The inductive variant -----------------------------------------------------------------------------------------

    gaussians: tuple[Tensor, Tensor] | None = None  # made on first use, so that --eval-only has them too

    def score_alone(self, features: Tensor) -> Tensor:
        """Each image by itself, [N, K]."""
        if self.gaussians is None:
            _, means, variances = self.fit(self.encode_all(images_of(self.train_loader_x), "train"))
            self.gaussians = means, variances
        likelihood = log_likelihood(features.double(), *self.gaussians)
        return update_assignments(self.log_prior(features), likelihood, None, lam=self.options.LAMBDA)

    @torch.no_grad()
    def model_inference(self, images: Tensor) -> Tensor:
        if self.transductive:
            raise UserError("TransCLIP classifies a whole split at once; for single images set INDUCTIVE True")
        return self.scores(self.model.encode(images))

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        opt = cfg.TRAINER.TRANSCLIP
        self.transductive = not opt.INDUCTIVE
        if opt.INDUCTIVE:
            check_label_free(cfg)
        check_least(opt, "TRAINER.TRANSCLIP", NEIGHBOURS=1, OUTER=0, INNER=1, INIT=1, LAMBDA=0)
