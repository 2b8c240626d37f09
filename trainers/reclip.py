"""ReCLIP: label propagation between texts and images, and two learners that teach each other.

X. Hu, K. Zhang, L. Xia, A. Chen, J. Luo, Y. Sun, K. Wang, N. Qiao, X. Zeng, M. Sun, C.-H. Kuo, R. Nevatia, "ReCLIP:
Refine Contrastive Language Image Pre-Training with Source Free Domain Adaptation", arXiv 2308.03793 (WACV 2024).

Symbols: f_0 the image tower as it was, f_V the one in training, t_c the class texts by the text tower in training, w_c
the centroids of V.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_lr_scheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from fairclip.backbones.backbone import norm_parameters
from fairclip.core.distributed import parallel
from fairclip.core.errors import require
from fairclip.method.confidence import masked_cross_entropy
from fairclip.method.prototypes import image_prototypes
from fairclip.method.reclip import BothLogits, TwoLearners, pseudo_labels, usual_directions
from fairclip.method.two_towers import name_tokens
from fairclip.run.base import AdaptationTrainer
from fairclip.run.checks import check_label_free, check_least
from fairclip.text.templates import prompts_of


def extend_cfg(cfg: CfgNode) -> None:
    """ReCLIP's config. The defaults are the public code's."""
    cfg.TRAINER.RECLIP = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "TEMPLATES": (),  # of the class names; (): CLIP's ensemble for the data set. T trains with the first alone
            "DIRECTIONS": 0,  # singular directions that the projection ends before; 0: 768, above 500 classes 250
            "NEIGHBOURS": 20,  # of a text or image in the graph
            "ALPHA": 0.99,  # share of a node's label that comes from its neighbours
            "VISUAL_WEIGHT": 1 / 64,  # of V's loss; 1: as T's. The public code has 1 / batch size
        }
    )


@TRAINER_REGISTRY.register()
class ReCLIP(AdaptationTrainer):
    """Two learners, which start from the same CLIP, are trained on those pseudo-labels that both agree on.

    1. Each learner labels all images before each epoch. Class texts and images are projected so that what all texts
       have in common is gone, and labels spread from the texts on a graph of nearest neighbours.
    2. T is f_0 with the class texts; the norms of its text tower are trained. V is f_V with a centroid a class, the
       mean of the images that V labels so and of the text; the norms of its image tower are trained.
    3. The prediction is the mean of both learners' logits, tau <f_0(x), t_c> and tau <f_V(x), w_c>.

    Config keys: TRAINER.RECLIP (see ``extend_cfg``), and OPTIM.NAME, LR, WEIGHT_DECAY, MOMENTUM, MAX_EPOCH,
    LR_SCHEDULER. The public code's, for all data sets: SGD, 1e-3, decay 1e-4, momentum 0.9, batches of 64, and min(100,
    N / 5000 + 2) epochs for N images, rounded down: 3 for Stanford Cars. It tests before each, so that the last one is
    never tested.

    Deviations from the public code:
    - It trains on the test images and reports the best epoch there. Here the training images are seen, without labels,
      and the last epoch is reported.
    - The configs for OpenAI's models have three epochs, whatever N is.
    - It divides V's loss by the batch size once more than T's. Here VISUAL_WEIGHT says so: 1/64, for its batches of 64,
      is what it does, and 1 makes both losses the same mean.
    - One optimizer for both learners; a batch without an agreed image has a gradient of 0, where it takes no step.
    - The graph is sparse: memory grows with N, not with its square.
    - A class that V gives to no image and no text keeps its text; there it becomes no number.
    - The last batch of an epoch is dropped where it is smaller, as Dassl does.
    - tau is the loaded CLIP's own; there it is 100, which OpenAI's models have.
    """

    needs_float64 = True
    reads = ("OPTIM.LR_SCHEDULER", "OPTIM.STEPSIZE", "OPTIM.GAMMA", "OPTIM.WARMUP_*")

    # -- Two learners, and what is trained -----------------------------------------------------------------------------

    def build_model(self) -> None:
        opt = self.options
        templates = opt.TEMPLATES or prompts_of(self.cfg.DATASET.NAME)
        self.first_texts = self.encode_names(templates)  # of CLIP as it was: what V's labels start from, [K, d]
        self.tokens = name_tokens(self.backbone.tokenizer, self.classnames, templates).to(self.device)
        self.model = TwoLearners(self.backbone, self.first_texts, self.prec)
        texts = self.model.of_texts_alone(norm_parameters(self.backbone.text, "text"))
        del self.backbone

        trained = [*norm_parameters(self.model.visual).values(), *texts.values()]
        self.set_up_training([{"params": trained}], lambda optim: build_lr_scheduler(optim, self.cfg.OPTIM))

    @cached_property
    def net(self) -> nn.Module:
        return parallel(BothLogits(self.model))

    def train_transform(self) -> Callable:
        """Training images are not augmented: the view is that of testing."""
        return self.usual_test_transform()

    # -- Labels, before each epoch -------------------------------------------------------------------------------------

    @cached_property
    def in_order(self) -> DataLoader:
        return self.loader(self.dm.dataset.train_x, self.train_transform())

    @cached_property
    def frozen(self) -> Tensor:
        """f_0 of the training images, [N, d]."""
        return self.map_batches(self.in_order, lambda b: self.model.encode_frozen(self.pixels(b["img"])), "features")

    def texts(self) -> Tensor:
        """t_c by all templates, [K, d]."""
        features = self.model.encode_many_texts(self.tokens.flatten(0, 1))
        return F.normalize(features.unflatten(0, self.tokens.shape[:2]).mean(dim=1), dim=-1)

    def label(self, features: Tensor, texts: Tensor) -> Tensor:
        """Of texts and images, [K + N]."""
        opt = self.options
        directions = opt.DIRECTIONS or usual_directions(self.num_classes)
        return pseudo_labels(features.double(), texts.double(), directions, opt.NEIGHBOURS, opt.ALPHA)

    @torch.no_grad()
    def label_all(self) -> None:
        """The labels of both learners, and V's centroids."""
        texts, features = self.first_texts, self.frozen
        self.labels_t = self.label(features, self.texts())[len(texts) :]
        if self.epoch:  # before the first epoch V is CLIP as it was
            features = self.map_batches(
                self.in_order, lambda b: self.model.encode(self.pixels(b["img"])), "features of V"
            )
        labels = self.label(features, texts)
        self.labels_v = labels[len(texts) :]
        # On the CPU: a GPU would add up the images of a class in another order in each run.
        nodes = torch.cat([texts, features]).cpu()
        self.model.anchors.weight.copy_(image_prototypes(nodes, labels.cpu(), texts.cpu()))

    def before_epoch(self) -> None:
        super().before_epoch()
        self.label_all()

    # -- One step: L = CE_T + VISUAL_WEIGHT CE_V, means over the images with one label ---------------------------------

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        images, index = self.pixels(batch["img"]), batch["index"].to(self.device)
        y, of_v = self.labels_t[index], self.labels_v[index]
        agreed = y == of_v

        logits_t, logits_v = self.net(images, self.frozen[index], self.tokens[:, 0])
        loss_t = masked_cross_entropy(logits_t, y, agreed)
        loss_v = masked_cross_entropy(logits_v, y, agreed)
        loss = loss_t + self.options.VISUAL_WEIGHT * loss_v
        self.descend(loss)

        figures = {"loss": loss, "loss_t": loss_t, "loss_v": loss_v, "agreed": agreed.float().mean()}
        # The accuracy is that of V's labels, whether T agrees or not.
        return {name: value.detach() for name, value in figures.items()} | self.pseudo_accuracy(of_v, batch)

    # -- Prediction: the mean of both ----------------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, loader: DataLoader, title: str) -> Tensor:
        texts = self.model.encode_many_texts(self.tokens[:, 0])
        return self.map_batches(loader, lambda b: self.model.vote(self.parse_batch_test(b)[0], texts), title)

    @torch.no_grad()
    def model_inference(self, images: Tensor) -> Tensor:
        return self.model.vote(images, self.model.encode_many_texts(self.tokens[:, 0]))

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_label_free(cfg)
        opt, node = cfg.TRAINER.RECLIP, "TRAINER.RECLIP"
        require(
            opt.DIRECTIONS == 0 or opt.DIRECTIONS >= 2,
            f"{node}.DIRECTIONS {opt.DIRECTIONS}: at least 2, of which the first is dropped, or 0 for the usual number",
        )
        check_least(opt, node, NEIGHBOURS=1, VISUAL_WEIGHT=0)
        require(0 <= opt.ALPHA < 1, f"{node}.ALPHA {opt.ALPHA}: a share from 0, below 1")
