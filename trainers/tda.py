"""TDA: a stream of test images is classified with caches of those that came before, without training.

A. Karmanov, D. Guan, S. Lu, A. El Saddik, E. Xing, "Efficient Test-Time Adaptation of Vision-Language Models", arXiv
2403.18293 (CVPR 2024).
"""

from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.core.errors import UserError, require
from fairclip.method.tda import Negative, Positive, stream_scores
from fairclip.run.checks import check_least
from fairclip.run.frozen import FrozenFeatures
from fairclip.run.zero_shot import StartsFromTexts
from fairclip.text.templates import ENSEMBLE

# Data sets whose names the public code puts into seven prompts, and not into one.
BY_ENSEMBLE = ("Caltech101", "ImageNet", "ImageNetA", "ImageNetV2", "StanfordCars", "SUN397")


def extend_cfg(cfg: CfgNode) -> None:
    """Defaults are the public code's for ImageNet, here for all data sets."""
    cfg.TRAINER.TDA = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "TEXTS": "names",  # what stands for a class: names | descriptions, their mean as CuPL's
            "TEMPLATES": (),  # templates of the name prompts; (): as in the public code, one or seven
            "DESCRIPTIONS": "",  # with TEXTS descriptions: JSON file; "": the data set's own
            "SLOTS": 3,  # positive cache: images of each predicted class
            "ALPHA": 2.0,  # positive cache: its weight
            "BETA": 5.0,  # positive cache: its sharpness
            "NEGATIVE_SLOTS": 2,  # negative cache, the same
            "NEGATIVE_ALPHA": 0.117,  # negative cache: its weight; 0: none
            "NEGATIVE_BETA": 1.0,  # negative cache: its sharpness
            "ENTROPY": (0.2, 0.5),  # images between these go into the negative cache, too
            "MASK": (0.03, 1.0),  # the classes of theirs with probabilities between these are spoken against
        }
    )


@TRAINER_REGISTRY.register()
class TDA(FrozenFeatures, StartsFromTexts):
    """Training-free dynamic adapter: a stream, that is, a prediction needs the test images before it.

    Images come one by one in an order that the seed draws. Each goes into the positive cache of its predicted class, if
    it is among the surest there, and into the negative cache if its entropy is neither low nor high. Likeness to images
    of the positive cache speaks for their class, likeness to those of the negative cache against the classes that
    they may be of. Earlier predictions are not revised.

    Config keys (TRAINER.TDA): PREC; TEXTS, TEMPLATES, DESCRIPTIONS; SLOTS, ALPHA, BETA; NEGATIVE_SLOTS, NEGATIVE_ALPHA,
    NEGATIVE_BETA; ENTROPY; MASK.

    Deviations:
        - One setting for all data sets. The public code has fifteen files, one a data set: ALPHA and BETA differ.
        - The text classifier's temperature is the loaded CLIP's (100 in OpenAI's models, where the code has 100).
        - Entropies are divided as in the public code, nats by log2 of the number of classes: ENTROPY is on that scale.
        - Computed in float64, the code in half precision.
    """

    stream = True
    needs_float64 = True

    def class_vectors(self) -> Tensor:
        """[K, d], unit rows."""
        usual = ENSEMBLE if self.cfg.DATASET.NAME in BY_ENSEMBLE else ()
        return self.encode_texts(self.options.TEMPLATES or usual)

    def scores(self, features: Tensor) -> Tensor:
        """Logits, [N, K]."""
        opt = self.options
        return stream_scores(
            features.double(),
            (self.model.tau * features @ self.model.anchors().t()).double(),
            Positive(opt.SLOTS, opt.ALPHA, opt.BETA),
            Negative(opt.NEGATIVE_SLOTS, opt.NEGATIVE_ALPHA, opt.NEGATIVE_BETA, opt.ENTROPY, opt.MASK),
        ).float()

    def model_inference(self, images: Tensor) -> Tensor:
        raise UserError("TDA classifies the images of a split one after another, not single ones")

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        opt = cfg.TRAINER.TDA
        check_least(opt, "TRAINER.TDA", SLOTS=1, NEGATIVE_SLOTS=1)
        check_least(opt, "TRAINER.TDA", ALPHA=0, NEGATIVE_ALPHA=0, BETA=0, NEGATIVE_BETA=0)
        for key in ("ENTROPY", "MASK"):
            require(
                len(opt[key]) == 2 and all(isinstance(value, (int, float)) for value in opt[key]),
                f"TRAINER.TDA.{key} {opt[key]}: give two numbers, such as (0.2, 0.5)",
            )
