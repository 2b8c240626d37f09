"""Prompt learning: a frozen CLIP whose class prompts begin with learned vectors instead of words.

K. Zhou, J. Yang, C. C. Loy, Z. Liu, "Learning to Prompt for Vision-Language Models" (CoOp), arXiv 2109.01134.
"""

from collections.abc import Callable
from functools import partial

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from yacs.config import CfgNode

from fairclip.core.errors import require
from fairclip.method.context import ContextClassifier, initial_context
from fairclip.method.rates import warmup_cosine
from fairclip.run.checks import check_openai
from fairclip.run.frozen import FrozenFeatures
from fairclip.views.loading import mixed_seed


def extend_cfg(cfg: CfgNode) -> None:
    """PromptLearning's config, with CoOp's defaults but for PREC."""
    cfg.TRAINER.PROMPTLEARNING = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "N_CTX": 16,  # context vectors in front of the class name [CoOp]
            "CSC": False,  # a context of each class's own [CoOp: for fine-grained classes with many shots]
        }
    )


class PromptTrainer(FrozenFeatures):
    """What trainers of context vectors share: model, schedule, step and inference. A subclass says on which labels.

    Config keys: TRAINER.<NAME>.PREC, N_CTX, CSC; OPTIM.NAME, LR, WEIGHT_DECAY, MOMENTUM, MAX_EPOCH, WARMUP_EPOCH,
    WARMUP_CONS_LR; INPUT.TRANSFORMS, the augmentation of training images.
    """

    reads: tuple[str, ...] = ("OPTIM.LR_SCHEDULER", "OPTIM.WARMUP_TYPE", "OPTIM.WARMUP_CONS_LR", "INPUT.*")

    @property
    def members(self) -> int:
        """Prompts that are trained beside each other."""
        return 1

    @property
    def lengths_count(self) -> bool:
        return self.members > 1

    def build_model(self) -> None:
        opt = self.options
        clip = self.backbone.openai
        shape = (opt.N_CTX, clip.token_embedding.weight.shape[1])
        contexts = torch.zeros(self.members, *((self.num_classes, *shape) if opt.CSC else shape))
        self.model = ContextClassifier(clip, self.classnames, contexts.to(self.device), self.prec)
        del self.backbone  # its towers are in the model
        # Trained are the contexts, nothing else.
        self.set_up_training([{"params": [self.model.contexts]}], partial(LambdaLR, lr_lambda=self.rates()))

    def rates(self) -> Callable[[int], float]:
        """Share of the learning rate in each epoch, from 0."""
        cfg = self.cfg.OPTIM
        return warmup_cosine(cfg.MAX_EPOCH, cfg.WARMUP_EPOCH, cfg.WARMUP_CONS_LR / cfg.LR)

    def before_train(self) -> None:
        """The members start at random; a resumed run brings them along."""
        super().before_train()
        if self.start_epoch == 0:
            self.draw_contexts()

    @torch.no_grad()
    def draw_contexts(self) -> None:
        """Each member's start, from a seed of its own."""
        for i, context in enumerate(self.model.contexts):
            context.copy_(initial_context(mixed_seed(self.seed, i), *context.shape))

    def learn(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of every member on the same images. Returns the mean of their losses.

        The sum is what descends: each member then moves as if it were alone.
        """
        losses = torch.stack([F.cross_entropy(logits, labels) for logits in self.net(images)])
        self.descend(losses.sum())
        return losses.detach().mean()

    @torch.no_grad()
    def model_inference(self, images: Tensor) -> Tensor:
        return self.scores(self.model.encode(images))

    def scores(self, features: Tensor) -> Tensor:
        """The members' mean logits, [N, K]."""
        return self.model.tau * features @ self.model.class_vectors().t()

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_openai(cfg, "puts learned vectors in front of words")
        opt, optim, node = cfg.TRAINER[cfg.TRAINER.NAME.upper()], cfg.OPTIM, f"TRAINER.{cfg.TRAINER.NAME.upper()}"
        require(opt.N_CTX >= 1, f"{node}.N_CTX {opt.N_CTX}: a prompt needs at least one context vector")
        require(optim.LR > 0, f"OPTIM.LR {optim.LR}: a learning rate is above 0")
        require(
            optim.LR_SCHEDULER == "cosine", f"OPTIM.LR_SCHEDULER {optim.LR_SCHEDULER!r}: prompt learning uses cosine"
        )
        require(
            optim.WARMUP_EPOCH <= 0 or optim.WARMUP_TYPE == "constant",
            f"OPTIM.WARMUP_TYPE {optim.WARMUP_TYPE!r}: a warm-up here is at a constant rate, set it to constant",
        )


@TRAINER_REGISTRY.register()
class PromptLearning(PromptTrainer):
    """A reference that sees labels: context vectors learned from a few labelled images of each class, CoOp's way.

    One context of N vectors replaces the words in front of the class names. It is learned by the cross-entropy of
    CLIP's own logits, through the frozen text tower, on DATASET.NUM_SHOTS images of each class (all, if that is not
    set).

    Source: CoOp (see the top of this file), in its form with 16 vectors, random start and the class name at the end.
    CoOp's own trainer registers as `CoOp` and may lie beside this one.

    Config keys: TRAINER.PROMPTLEARNING (see ``extend_cfg``), DATASET.NUM_SHOTS, and those of ``PromptTrainer``.

    Deviations:
        - Float32 or mixed precision instead of half precision throughout, which a CPU cannot do.
        - No start from words (CoOp's CTX_INIT), no class name in the middle or in front.
        - OPTIM.MAX_EPOCH does not follow the number of shots. The configs have CoOp's 200 for 8 and 16 shots (50 for
          the bundled backbones); for fewer, set it by hand as CoOp does.
        - The draw of the shots is the data set's (a function of the seed), not CoOp's pickled files.
        - The last epoch is reported, which is CoOp's rule too.
    """

    uses_labels = True

    def build_model(self) -> None:
        unlabelled = sum(item.label < 0 for item in self.dm.dataset.train_x)
        require(
            not unlabelled, f"PromptLearning learns from labels, and {unlabelled} training images have none: use UPL"
        )
        super().build_model()

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        images, labels = self.parse_batch_test(batch)
        return {"loss": self.learn(images, labels)}
