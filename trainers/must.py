"""MUST without masked image modelling: self-training by an averaged teacher, with a fairness term.

J. Li, S. Savarese, S. C. H. Hoi, "Masked Unsupervised Self-training for Label-Free Image Classification", arXiv
2206.02967 (ICLR 2023). This file reads like the method, less its third part: see the class.

Symbols: f image tower, W classifier (K rows), tau = exp(logit_scale) of CLIP, teacher = moving average of f and W.
"""

from functools import partial
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from fairclip.core.errors import require
from fairclip.core.log import log
from fairclip.method.anchors import AnchorClassifier
from fairclip.method.confidence import confident_labels, masked_cross_entropy
from fairclip.method.ema import EMA, ramped_decay
from fairclip.method.losses import MANY_CLASSES, fairness
from fairclip.method.rates import cosine, layer_groups
from fairclip.run.base import AdaptationTrainer
from fairclip.run.checks import check_label_free, check_last_rate, check_openai, check_own_schedule, check_texts
from fairclip.text.templates import prompts_of
from fairclip.views.views import Views

LR_BATCH = 256  # images that OPTIM.LR and LR_MIN are for


def extend_cfg(cfg: CfgNode) -> None:
    """MUST's config. The defaults are the public code's; where it sets them by data set, those of UCF101, ViT-B/16."""
    cfg.TRAINER.MUST = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "TEMPLATES": (),  # of the class names; (): CLIP's ensemble for the data set, as in the public code
            "TEXTS": "names",  # where the classifier starts: names | descriptions, their mean as CuPL's
            "DESCRIPTIONS": "",  # with TEXTS descriptions: JSON file; "": the data set's own
            "THRESHOLD": 0.5,  # confidence. Public code: 0.7 for Pets, Caltech101 and Food101, 0.4 for DTD and SUN397
            "FAIRNESS": 1.0,  # the paper: 0.2 for SUN397
            "EMA_START": 0.99,  # decay at the first step. Public code: 0.999 for Food101
            "EMA_END": 0.9998,  # decay at the last step
            "EMA_STEPS": 500,  # over which it rises. Public code: 100 for DTD, Pets, Caltech101; 2000 for Food101
            "LAYER_DECAY": 0.65,  # of the learning rate, from each block to the one below
            "LR_MIN": 1e-6,  # where the cosine ends, for 256 images like OPTIM.LR
        }
    )


class LinearClassifier(AnchorClassifier):
    """Logits tau <f(x), w_c> with unit f(x), and W as training leaves it: its rows' lengths count."""

    def forward(self, images: Tensor) -> Tensor:
        return self.tau * self.encode(images) @ self.anchors.weight.t()


@TRAINER_REGISTRY.register()
class MUST(AdaptationTrainer):
    """MUST *without masked image modelling*. An exponential moving average of the model labels weak views; the model
    learns those labels that the teacher is sure of on strong views, and a fairness term keeps all classes in play. All
    of the image tower is trained, its lower layers more slowly, and so is the classifier, which text starts.

    Config keys: TRAINER.MUST (see ``extend_cfg``), and OPTIM.NAME, WEIGHT_DECAY, MAX_EPOCH and LR, which is for 256
    images and scaled to the batch size. The public code's learning rates (ViT-B/16; twice that for ViT-L/14): 1e-5 for
    UCF101, Pets and Caltech101, 2e-5 for DTD and Food101, 1e-4 for SUN397; 20 to 60 epochs.

    The result is the model's; the teacher's accuracy is reported beside it, as ``ema_accuracy``.

    Deviations from the paper and its public code:
    - Left out: the reconstruction of masked patches and the alignment of local and global features. That leaves what
      the public code does with its switch ``mask`` off.
    - TEXTS descriptions, ours: W starts as CuPL's classifier. On classes whose names a backbone has never seen, names
      label at chance, and self-training stays there.
    - The last epoch is reported. There, the best of all epochs on the test images is; for Pets and Caltech101 as a mean
      over classes (macro-averaged recall), here as plain accuracy.
    - A batch without a confident image has no self-training loss, and fairness still counts; there the run ends.
    - Views are this project's, the same for all methods (weak: also flipped; strong: 50 to 100 % of the area and
      torchvision's RandAugment. There: 30 to 100 % and timm's).
    - tau is the loaded CLIP's own; there it is 100, which OpenAI's models have.
    - With 512 classes or more, where fairness takes a running average, an epoch's first step has none yet, and its term
      counts once; there twice.
    - Fairness sees the batch of DATALOADER.TRAIN_X, however many GPUs share it; there it sees those of 16 GPUs.
    - ResNets run too, although the paper is about ViTs: a stage counts as a layer, and BatchNorm keeps its statistics.
    """

    mean_prediction: Tensor | None = None  # running average for the fairness term, with many classes

    views_per_image = 2
    schedule_by_step = True
    lengths_count = True

    # -- Classifier from text, and what is trained ---------------------------------------------------------------------

    def build_model(self) -> None:
        opt = self.options
        text = self.encode_texts(opt.TEMPLATES or prompts_of(self.cfg.DATASET.NAME))
        self.model = LinearClassifier(self.backbone.visual, text, self.tau, self.prec)
        del self.backbone  # the text tower has done its work
        self.model.requires_grad_(True)

        rate = self.cfg.OPTIM.LR * self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE / LR_BATCH
        steps = self.max_epoch * len(self.train_loader_x)
        schedule = partial(LambdaLR, lr_lambda=cosine(steps, opt.LR_MIN / self.cfg.OPTIM.LR))
        self.set_up_training(self.parameter_groups(rate), schedule)
        self.keep("teacher", EMA(self.model))

    def parameter_groups(self, rate: float) -> list[dict]:
        """The head (with W) at the full rate and first, each layer below at LAYER_DECAY of the rate of the one above.

        Vectors (biases, norms, the class token) are spared weight decay.
        """
        named = [(name.removeprefix("visual."), parameter) for name, parameter in self.model.named_parameters()]
        return layer_groups(named, self.model.visual, rate, self.options.LAYER_DECAY)

    def train_transform(self) -> Views:
        """One decoded image -> weak view, strong view."""
        return Views(**self.input_form)

    # -- One step: L = mean over confident i of CE(tau <f(x_s), W>, y_i) + FAIRNESS L_fair -----------------------------

    @torch.no_grad()
    def pseudo_label(self, weak: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's y, and whether it is sure of it; each [B]."""
        return confident_labels(self.teacher.model(weak).softmax(dim=1), self.options.THRESHOLD)

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        weak, strong = self.pixels(batch["img"]).unbind(dim=1)

        y, sure = self.pseudo_label(weak)
        logits = self.net(strong)
        loss_st = masked_cross_entropy(logits, y, sure)
        loss_fair, mean = fairness(logits.softmax(dim=1), self.mean_prediction)
        loss = loss_st + self.options.FAIRNESS * loss_fair
        self.step(loss)
        self.mean_prediction = mean if self.num_classes >= MANY_CLASSES else None

        figures = {"loss": loss, "loss_st": loss_st, "loss_fair": loss_fair, "confident": sure.float().mean()}
        # The accuracy is that of all pseudo-labels, sure or not.
        return {name: value.detach() for name, value in figures.items()} | self.pseudo_accuracy(y, batch)

    def before_epoch(self) -> None:
        super().before_epoch()
        self.mean_prediction = None

    def step(self, loss: Tensor) -> None:
        """Descend, and let the teacher follow."""
        opt, number = self.options, self.epoch * self.num_batches + self.batch_idx
        self.descend(loss)
        self.teacher.update(self.model, ramped_decay(number, opt.EMA_START, opt.EMA_END, opt.EMA_STEPS))

    # -- The teacher's accuracy, beside the model's --------------------------------------------------------------------

    def test(self, split: str | None = None, **_: Any) -> float:
        accuracy = super().test(split)
        if self.history:  # not under --eval-only, which loads the model alone
            self.results["ema_accuracy"] = self.test_teacher(self.loader_of(split or self.cfg.TEST.SPLIT))
            log.info(f"Accuracy of the teacher: {self.results['ema_accuracy']:.2f} %")
        return accuracy

    def test_teacher(self, loader: DataLoader) -> float:
        """In percent."""
        logits = self.map_batches(loader, lambda batch: self.teacher.model(self.parse_batch_test(batch)[0]), "teacher")
        return self.accuracy(logits, loader)

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_label_free(cfg)
        check_openai(cfg, "learns deep layers faster than early ones")
        check_own_schedule(cfg)
        check_texts(cfg)
        opt, node = cfg.TRAINER.MUST, "TRAINER.MUST"
        require(0 <= opt.THRESHOLD < 1, f"{node}.THRESHOLD {opt.THRESHOLD}: a confidence lies in [0, 1)")
        require(
            0 <= opt.EMA_START <= opt.EMA_END <= 1,
            f"{node}.EMA_START {opt.EMA_START}, EMA_END {opt.EMA_END}: need 0 <= EMA_START <= EMA_END <= 1",
        )
        require(0 < opt.LAYER_DECAY <= 1, f"{node}.LAYER_DECAY {opt.LAYER_DECAY}: it lies in (0, 1], 1 is none")
        check_last_rate(cfg, node, opt.LR_MIN)
