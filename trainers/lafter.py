"""LaFTer: label-free tuning of a zero-shot classifier with language and unlabelled images.

M. J. Mirza, L. Karlinsky, W. Lin, M. Kozinski, H. Possegger, R. Feris, H. Bischof, "LaFTer: Label-Free Tuning of
Zero-shot Classifier using Language and Unlabeled Image Collections", arXiv 2305.18287 (NeurIPS 2023).

Symbols: f image tower without prompts, f_P with them, h linear classifier being trained, h_0 what texts made of it.
"""

import re

import torch
from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_lr_scheduler
from torch import Tensor
from yacs.config import CfgNode

from fairclip.backbones.backbone import norm_parameters
from fairclip.core.errors import require
from fairclip.core.log import log
from fairclip.method.text_classifier import gather_texts, smoothed_cross_entropy, train_text_classifier
from fairclip.method.visual_prompts import PromptedClassifier, check_vit, initial_prompts, vit_needed
from fairclip.run.base import AdaptationTrainer
from fairclip.run.checks import check_label_free, check_openai
from fairclip.run.optimizers import split_biases
from fairclip.views.lafter_views import WeakStrong

# Steps of the text stage by data set, from the public code. What it has for all large ones is our choice for those that
# it does not know (Stanford Cars, Oxford Pets, ...).
TEXT_STEPS = {"DescribableTextures": 400, "EuroSAT": 400, "Food101": 400, "OxfordFlowers": 600, "UCF101": 400}
OTHER_TEXT_STEPS = 500


def extend_cfg(cfg: CfgNode) -> None:
    """LaFTer's config; the defaults are the public code's, with the learning rate of its scripts."""
    cfg.TRAINER.LAFTER = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            # Text stage
            "DESCRIPTIONS": "",  # JSON file; "": the data set's own
            "TEMPLATES": (),  # each makes one more text of every class; (): the data set's usual one
            "TEXT_STEPS": 0,  # 0: the data set's (see above)
            "TEXT_LR": 5e-4,  # learning rate on texts
            "TEXT_WEIGHT_DECAY": 0.01,  # weight decay on texts
            "TEXT_NOISE": 0.1,  # standard deviation of the noise on each number of a text's feature
            # Image stage
            "N_PROMPTS": 50,  # learned tokens beside the patches
            # Both
            "SMOOTHING": 0.1,  # of the targets
        }
    )


@TRAINER_REGISTRY.register()
class LaFTer(AdaptationTrainer):
    """A classifier trained on texts labels unlabelled images, on which prompts, norms and the classifier are trained.

    1. Text stage: a linear layer h is trained to classify the features of descriptions and name prompts, under noise.
    2. Its frozen copy h_0 labels the weak view of each image, in every step: y = argmax h_0(f(x_w)). The image tower
       does without prompts there, but has the norms as they are by now. No threshold, no temperature.
    3. The student h(f_P(x_s)) learns y from the strong view, by smoothed cross-entropy. Its features are not made unit.
       Trained are the prompts P, the image tower's LayerNorms and h. The student is the model that is tested.

    Config keys: TRAINER.LAFTER (see ``extend_cfg``), and OPTIM.NAME, LR, WEIGHT_DECAY, MAX_EPOCH, LR_SCHEDULER.

    Deviations from the public code:
    - The last epoch is reported, not the best on the test images.
    - Sizes are read from the backbone; there they are those of a ViT-B/16. For ViT-B/32 that narrows the range in which
      prompts start: sqrt(6 / (3 P P + width)) has P = 32, where the public code keeps 16.
    - All data sets: it lacks templates for some (Stanford Cars, FGVC Aircraft, Food-101, Oxford Pets), and the number
      of text steps for two of these (Stanford Cars, Oxford Pets). A name goes into the data set's single template, not
      a list of them (TEMPLATES takes one), and a class without descriptions has this text alone.
    - The descriptions are by default this project's, five to seven a class; there they are LaFTer's own, 25 a class,
      which the numbers of text steps were chosen for.
    - The blur of the strong view is in proportion to the input: 0.1 to 2 pixels at 224, as there, less at 64.
    - The learning rate is constant, which is what the public code does (its milestones are none). Here this is said by
      OPTIM.LR_SCHEDULER, and another can be chosen.
    """

    reads = ("OPTIM.LR_SCHEDULER", "OPTIM.STEPSIZE", "OPTIM.GAMMA", "OPTIM.WARMUP_*")
    views_per_image = 2

    # -- Text stage, and what is trained after it --------------------------------------------------------------------

    def build_model(self) -> None:
        opt = self.options
        visual = self.backbone.visual
        check_vit(visual)
        # A generator of its own: what it draws depends on the seed, and not on what was drawn in loading CLIP.
        generator = torch.Generator(self.device).manual_seed(self.seed)

        # h_0. It could be made again, but not to the bit on another machine, nor with a random seed: it is kept.
        self.keep("text_classifier", self.learn_from_texts(generator))
        prompts = initial_prompts(visual, opt.N_PROMPTS, generator)
        self.model = PromptedClassifier(visual, prompts, self.text_classifier, self.prec)
        del self.backbone  # the text tower has done its work

        # Trained: LayerNorms, prompts and the classifier. Biases are not decayed; all the rest is, norms too.
        weights, biases = split_biases(norm_parameters(visual))
        decayed = [*weights, self.model.prompts, self.model.head]
        self.set_up_training(
            [{"params": decayed}, {"params": biases, "weight_decay": 0.0}],
            lambda optim: build_lr_scheduler(optim, self.cfg.OPTIM),
        )

    def learn_from_texts(self, generator: torch.Generator) -> Tensor:
        """The classifier that is trained on texts alone: weights [K, d]."""
        opt = self.options
        descriptions, mask = self.encode_descriptions(opt.DESCRIPTIONS)
        names = [self.encode_names((template,)) for template in opt.TEMPLATES] or [self.encode_names()]
        texts, labels = gather_texts(torch.stack(names), descriptions, mask)
        steps = opt.TEXT_STEPS or TEXT_STEPS.get(self.cfg.DATASET.NAME, OTHER_TEXT_STEPS)
        weight = train_text_classifier(
            texts,
            labels,
            self.num_classes,
            steps=steps,
            lr=opt.TEXT_LR,
            noise=opt.TEXT_NOISE,
            smoothing=opt.SMOOTHING,
            weight_decay=opt.TEXT_WEIGHT_DECAY,
            generator=generator,
        )
        right = (texts @ weight.t()).argmax(dim=1) == labels
        share = 100 * right.float().mean()
        log.info(f"Text classifier: {steps} steps on {len(texts)} texts, {share:.1f}% of them right")
        return weight

    # -- Views ---------------------------------------------------------------------------------------------------------

    def train_transform(self) -> WeakStrong:
        """One decoded image -> weak view, strong view."""
        return WeakStrong(self.cfg.INPUT.SIZE[0])

    # -- Image stage: one step -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def pseudo_label(self, weak: Tensor) -> Tensor:
        """y = argmax_c h_0(f(x_w)), [B]: no prompts, the norms of now, the classifier of texts."""
        return (self.model.encode(weak) @ self.text_classifier.t()).argmax(dim=1)

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        weak, strong = self.pixels(batch["img"]).unbind(1)

        y = self.pseudo_label(weak)
        loss = smoothed_cross_entropy(self.net(strong), y, self.options.SMOOTHING)
        self.descend(loss)
        return {"loss": loss.detach()} | self.pseudo_accuracy(y, batch)

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_label_free(cfg)
        check_openai(cfg, "puts learned tokens beside the patches")
        opt, node, backbone = cfg.TRAINER.LAFTER, "TRAINER.LAFTER", cfg.MODEL.BACKBONE.NAME
        # A ResNet is refused before it is downloaded for nothing.
        require(not re.fullmatch(r"RN\d+(x\d+)?", backbone), vit_needed(f"{backbone} is a ResNet"))
        require(
            opt.TEXT_STEPS >= 0,
            f"{node}.TEXT_STEPS {opt.TEXT_STEPS}: give a number of steps, or 0 for the data set's own",
        )
        require(opt.TEXT_LR > 0, f"{node}.TEXT_LR {opt.TEXT_LR}: a learning rate lies above 0")
        require(opt.TEXT_WEIGHT_DECAY >= 0, f"{node}.TEXT_WEIGHT_DECAY {opt.TEXT_WEIGHT_DECAY}: must not be negative")
        require(opt.TEXT_NOISE >= 0, f"{node}.TEXT_NOISE {opt.TEXT_NOISE}: a standard deviation is not negative")
        require(opt.N_PROMPTS >= 0, f"{node}.N_PROMPTS {opt.N_PROMPTS}: must not be negative; 0 does without")
        require(0 <= opt.SMOOTHING < 1, f"{node}.SMOOTHING {opt.SMOOTHING}: must lie in [0, 1), 0 turns it off")
