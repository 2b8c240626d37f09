"""DPA: dual prototypes alignment.

E. Ali, S. Silva, M. H. Khan, "DPA: Dual Prototypes Alignment for Unsupervised Adaptation of Vision-Language Models",
arXiv 2408.08855 (WACV 2025). This file reads like the method.

Symbols: f image tower, Z text prototypes (K unit rows, learned), P image prototypes (K unit rows, from a memory of the
training images), tau = exp(logit_scale) of CLIP, z = f(weak view).
"""

from functools import partial

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from yacs.config import CfgNode

from fairclip.backbones.backbone import norm_parameters
from fairclip.core.distributed import gather, global_mean
from fairclip.core.errors import require
from fairclip.method.anchors import AnchorClassifier
from fairclip.method.losses import fairness, weighted_cross_entropy
from fairclip.method.memory import MemoryBank, Queue
from fairclip.method.prototypes import (
    agreement_weights,
    align_distribution,
    alignment_loss,
    image_prototypes,
    mix_predictions,
)
from fairclip.method.rates import cosine
from fairclip.run.base import AdaptationTrainer
from fairclip.run.checks import check_label_free, check_own_schedule, check_texts
from fairclip.run.optimizers import split_biases
from fairclip.text.templates import prompts_of
from fairclip.views.loading import mixed_seed, set_seed
from fairclip.views.views import Views


def extend_cfg(cfg: CfgNode) -> None:
    """DPA's config. The defaults are the public code's for Stanford Cars and most other data sets."""
    cfg.TRAINER.DPA = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "TEMPLATES": (),  # of the class names; (): CLIP's ensemble for the data set, as in the public code
            "TEXTS": "names",  # where the classifier starts: names | descriptions, their mean as CuPL's
            "DESCRIPTIONS": "",  # with TEXTS descriptions: JSON file; "": the data set's own
            "IMAGE_SHARE": 0.5,  # a. Public code: 0.2 for DTD and Food101, 0.01 for Oxford Pets
            "QUEUE": 32,  # batches whose mean prediction distribution alignment divides by
            "FAIRNESS": 1.0,  # Public code: 0.2 for SUN397
            "ALIGN": 1.0,  # weight of the alignment of Z to P. Public code: 0.01 for EuroSAT
            "ALIGN_SCALE": 100.0,  # w_t. Public code: 1 for Oxford Flowers and EuroSAT
            # Where the cosine ends, public code. Above OPTIM.LR the rate rises, as there for SUN397 and Food101.
            "LR_MIN": 2e-6,
        }
    )


@TRAINER_REGISTRY.register()
class DPA(AdaptationTrainer):
    """Self-training on pseudo-labels that two classifiers make together: learned text prototypes Z, and prototypes P
    averaged from a memory of the training images' newest features and pseudo-labels. A pseudo-label counts by how
    highly both rank it, a fairness term keeps all classes in play, and Z is drawn to P. Trained are Z and the affine
    parameters of the image tower's norms; inference is <f(x), Z>.

    Config keys: TRAINER.DPA (see ``extend_cfg``), and OPTIM.NAME, LR, WEIGHT_DECAY, MAX_EPOCH. The public code's
    learning rates (ViT-B/32): Stanford Cars 5e-6, FGVC Aircraft 3e-6, Oxford Pets 7e-5, Oxford Flowers and Caltech101
    1e-4, DTD 5e-5, EuroSAT 3e-5, UCF101 1e-5, SUN397 and Food101 1e-6; 15 epochs, 10 for EuroSAT and FGVC Aircraft.

    Deviations from the public code:
    - The last epoch is reported. There, the best of all epochs on the test images is.
    - Views are this project's, the same for all methods (weak: also flipped; strong: 50 to 100 % of the area and
      torchvision's RandAugment. There: 30 to 100 % and timm's).
    - The last batch of an epoch is dropped where it is smaller, as Dassl does. Its images keep their place in memory.
    - tau is the loaded CLIP's own; there it is 100, which OpenAI's models have.
    - The greatest probabilities that weights are relative to are taken as they are; there they are 1e-7 greater.
    - TEXTS descriptions, ours: Z starts as CuPL's classifier. On classes whose names a backbone has never seen, names
      label at chance, and self-training stays there. The first memory and P follow from Z.
    - The memory of the start is made in each run; there a file keeps it by model and data set.
    - ResNets run too, with BatchNorm's statistics kept; the public code knows ViTs alone.
    """

    views_per_image = 2
    schedule_by_step = True

    # -- Two sets of prototypes, and what is trained -------------------------------------------------------------------

    def build_model(self) -> None:
        opt = self.options
        text = self.encode_texts(opt.TEMPLATES or prompts_of(self.cfg.DATASET.NAME))
        self.model = AnchorClassifier(self.backbone.visual, text, self.tau, self.prec)  # its anchors are Z
        del self.backbone  # the text tower has done its work

        # Trained: Z and the norms. Of them only the biases are spared weight decay, as in the public code.
        weights, biases = split_biases(norm_parameters(self.model.visual))
        decayed = [*weights, *self.model.anchors.parameters()]
        steps = self.max_epoch * len(self.train_loader_x)
        schedule = partial(LambdaLR, lr_lambda=cosine(steps, opt.LR_MIN / self.cfg.OPTIM.LR))
        self.set_up_training([{"params": decayed}, {"params": biases, "weight_decay": 0.0}], schedule)

        images = self.dm.dataset.train_x
        self.keep("memory", MemoryBank(len(images), text.shape[1], self.device))
        self.keep("recent", Queue(opt.QUEUE, self.device))  # mean predictions of the last batches
        self.keep("prototypes", self.image_prototypes())  # of an empty memory: P = Z

    def train_transform(self) -> Views:
        """One decoded image -> weak view, strong view."""
        return Views(**self.input_form)

    @torch.no_grad()
    def fill_memory(self) -> None:
        """A first feature and label of every training image, from its weak view and zero-shot CLIP."""
        loader = self.loader(self.dm.dataset.train_x, self.train_transform())
        set_seed(loader, mixed_seed(self.seed, self.epoch))
        z = self.map_batches(loader, lambda batch: self.model.encode(self.pixels(batch["img"])[:, 0]), "memory")
        self.memory.write(torch.arange(len(z)), z, (z @ self.model.anchors().t()).argmax(dim=1))

    @torch.no_grad()
    def image_prototypes(self) -> Tensor:
        """P from the memory; a class that no image has takes its text prototype.

        On the CPU: a GPU would add up the images of a class in another order in each run.
        """
        memory, text = self.memory, self.model.anchors()
        return image_prototypes(memory.features.cpu(), memory.labels.cpu(), text.cpu()).to(self.device)

    def before_epoch(self) -> None:
        super().before_epoch()
        if self.epoch == 0:
            self.fill_memory()
            self.prototypes = self.image_prototypes()

    def after_epoch(self) -> None:
        self.prototypes = self.image_prototypes()  # once an epoch, before the checkpoint
        super().after_epoch()

    # -- Pseudo-labels by both, and their weights ----------------------------------------------------------------------

    @torch.no_grad()
    def pseudo_label(self, weak: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Feature z [B, d], y = argmax(a p_img + (1 - a) aligned p_txt) [B] and its weight w [B] of each image; and the
        batch's mean prediction [K], which joins the recent ones once the step is done."""
        tau, z = self.model.tau, self.model.encode(weak)
        by_text = (tau * z @ self.model.anchors().t()).softmax(dim=1)
        by_image = (tau * z @ self.prototypes.t()).softmax(dim=1)
        mean = global_mean(by_text.mean(dim=0))
        aligned = align_distribution(by_text, self.recent.mean(mean))
        y = mix_predictions(aligned, by_image, self.options.IMAGE_SHARE).argmax(dim=1)
        return z, y, agreement_weights(by_text, by_image, y), mean  # of p_txt as it was before alignment

    # -- One step: L = mean_i w_i CE(tau <f(x_s), Z>, y_i) + FAIRNESS L_fair + ALIGN CE(w_t <P, Z>, classes) -----------

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        opt = self.options
        weak, strong = self.pixels(batch["img"]).unbind(dim=1)

        z, y, w, mean = self.pseudo_label(weak)
        logits = self.net(strong)
        loss_st = weighted_cross_entropy(logits, y, w)
        loss_fair, _ = fairness(logits.softmax(dim=1))  # of the batch, however many classes there are
        loss_align = alignment_loss(self.prototypes, self.model.anchors(), opt.ALIGN_SCALE)
        loss = loss_st + opt.FAIRNESS * loss_fair + opt.ALIGN * loss_align
        self.descend(loss)
        self.recent.push(mean)
        self.memory.write(gather(batch["index"]), gather(z), gather(y))

        figures = {
            "loss": loss,
            "loss_st": loss_st,
            "loss_fair": loss_fair,
            "loss_align": loss_align,
            "weight": w.mean(),
        }
        return {name: value.detach() for name, value in figures.items()} | self.pseudo_accuracy(y, batch)

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_label_free(cfg)
        check_own_schedule(cfg)
        check_texts(cfg)
        opt, node = cfg.TRAINER.DPA, "TRAINER.DPA"
        require(0 <= opt.IMAGE_SHARE <= 1, f"{node}.IMAGE_SHARE {opt.IMAGE_SHARE}: a share lies between 0 and 1")
        require(opt.QUEUE >= 1, f"{node}.QUEUE {opt.QUEUE}: alignment needs the mean of at least 1 batch")
        require(opt.ALIGN_SCALE > 0, f"{node}.ALIGN_SCALE {opt.ALIGN_SCALE}: an inverse temperature is above 0")
