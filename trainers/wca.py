"""WCA: crops of the image against descriptions of the class, without training.

J. Li, H. Li, S. M. Erfani, L. Feng, J. Bailey, F. Liu, "Visual-Text Cross Alignment: Refining the Similarity Score in
Vision-Language Models", arXiv 2406.02915 (ICML 2024).
"""

import math

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.core.errors import require
from fairclip.method.anchors import relevance_mean
from fairclip.method.wca import cross_alignment
from fairclip.run.checks import check_crop_sides
from fairclip.run.frozen import FrozenFeatures
from fairclip.run.zero_shot import ZeroShotTrainer
from fairclip.views.views import RandomCrops


def extend_cfg(cfg: CfgNode) -> None:
    """Defaults are what takes effect in the public code, the template apart: it has "a photo of a {}." everywhere."""
    cfg.TRAINER.WCA = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "DESCRIPTIONS": "",  # JSON file; "": the data set's own
            "TEMPLATES": (),  # templates of the name prompts; (): the data set's usual one
            "N_CROPS": 60,  # per image; public code
            # Side of a crop: U(ALPHA, BETA) times the short side. Public code draws 0.1; its configs' 0.5 has no effect
            "ALPHA": 0.1,
            "BETA": 0.9,  # see ALPHA
            "IMAGE_SCALE": math.exp(4),  # sharpness of the crops' weights; public code
            "TEXT_SCALE": math.exp(2),  # sharpness of the descriptions' weights; public code
            "NORMALIZE_CLASS": True,  # True: public code's score, class sums made unit; False: the paper's plain sum
        }
    )


@TRAINER_REGISTRY.register()
class WCA(FrozenFeatures, ZeroShotTrainer):
    """Weighted visual-text cross alignment. Training-free, inductive.

    Crops x_i are weighted by their likeness to the whole image x, descriptions y_j by theirs to the name prompt:
    w = softmax_i(s_i <f(x), f(x_i)>), v = softmax_j(s_t <g(prompt), g(y_j)>). The score of a class is the sum of all
    w_i v_j <f(x_i), g(y_j)>. Crops are drawn from the run's seed and the image's position in its split: another seed
    draws others, and the same seed the same ones, wherever the data lies.

    Config keys (TRAINER.WCA): PREC; DESCRIPTIONS, path of a JSON file; TEMPLATES; N_CROPS, ALPHA, BETA: crops;
    IMAGE_SCALE, TEXT_SCALE: s_i, s_t; NORMALIZE_CLASS.

    Deviations:
        - The N_CROPS crops are drawn once. The public code draws 100 per image and then, 20 times, 60 of these with
          replacement, and reports mean and deviation of the 20; here they are those of runs with different seeds.
        - ALPHA takes effect. In the public code the config's 0.5 names a cache file, and crops are U(0.1, 0.9).
        - The descriptions are by default this project's, five to seven a class; there they are CuPL's.
        - A class without descriptions is its name prompt. Such a vector is longer than a mean of descriptions: if some
          classes lack them, keep NORMALIZE_CLASS.
    """

    def class_vectors(self) -> Tensor:
        opt = self.options
        names = self.encode_names(opt.TEMPLATES)
        descriptions, mask = self.encode_descriptions(opt.DESCRIPTIONS)
        self.classes = relevance_mean(names, descriptions, opt.TEXT_SCALE, mask)  # sum_j v_j g(y_j)
        return self.classes

    def test_transform(self) -> RandomCrops:
        opt = self.options
        return RandomCrops(n_crops=opt.N_CROPS, alpha=opt.ALPHA, beta=opt.BETA, **self.input_form)

    @property
    def views_per_image(self) -> int:
        return 1 + self.options.N_CROPS

    @property
    def crop_seed(self) -> int:
        return self.seed

    # What is cached is the weighted sum of an image's crops: it does not depend on the classes.
    @property
    def encode_settings(self) -> str:
        return f"relevance_mean {self.options.IMAGE_SCALE}"

    def encode_views(self, views: Tensor) -> Tensor:
        """sum_i w_i f(x_i), [B, d], of views [B, 1 + N, 3, S, S]: the whole image, then its crops."""
        features = self.model.encode(self.pixels(views.flatten(0, 1))).unflatten(0, views.shape[:2])
        return relevance_mean(features[:, 0], features[:, 1:], self.options.IMAGE_SCALE)

    def scores(self, features: Tensor) -> Tensor:
        return self.model.tau * cross_alignment(features, self.classes, self.options.NORMALIZE_CLASS)

    @torch.no_grad()
    def model_inference(self, views: Tensor) -> Tensor:
        return self.scores(self.encode_views(views))

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        opt = cfg.TRAINER.WCA
        require(opt.N_CROPS >= 1, f"TRAINER.WCA.N_CROPS {opt.N_CROPS}: WCA needs at least one crop")
        check_crop_sides(opt, "TRAINER.WCA")
