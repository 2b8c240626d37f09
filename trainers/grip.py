"""GRIP and FPL: prompts learned over rounds, on the images that are most probable for each class.

C. Menghini, A. Delworth, S. H. Bach, "Enhancing CLIP with CLIP: Exploring Pseudolabeling for Limited-Label Prompt
Tuning", arXiv 2306.01669 (NeurIPS 2023).
"""

import math
from collections.abc import Callable

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from yacs.config import CfgNode

from fairclip.core.distributed import from_main
from fairclip.core.errors import require
from fairclip.core.log import details
from fairclip.method.candidates import candidate_loss, leaderboards, per_class
from fairclip.method.rates import warmup_cosine
from fairclip.run.checks import check_label_free
from fairclip.run.frozen import FeatureRows
from fairclip.views.loading import build_loader, images_of

from .prompt_learning import PromptTrainer


def extend_cfg(cfg: CfgNode) -> None:
    """GRIP's config; defaults from its public code but for PREC and TEMPLATES (see ``GRIP``)."""
    cfg.TRAINER.GRIP = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            # Pseudo-labels
            "TEMPLATES": (),  # of the name prompts that label the first round; (): the data set's usual one
            "STEP": 0.1,  # share of the training images that joins in each round
            "TOP_K": 0,  # images of each class in all rounds [FPL: 16]; 0: as many as STEP says
            # Prompts
            "ROUND_EPOCHS": 150,  # epochs of a round; OPTIM.MAX_EPOCH has those of all rounds
            "RESTART": False,  # each round from the first start; False: from the vectors of the round before
            "N_CTX": 16,  # context vectors in front of the class name
            "CSC": False,  # a context of each class's own
        }
    )


class PromptRounds(PromptTrainer):
    """What trainers share that choose pseudo-labels, learn a prompt on them, and choose again. A subclass says which
    classes an image may be, ``candidates``.

    A round lasts ROUND_EPOCHS. Before it all training images are classified, by name prompts in the first round and
    later by the prompt so far. The most probable images of each class are chosen (``leaderboards``), more of them in
    each round, and a context is learned on their candidate classes. Optimizer and schedule start anew in each round.

    Images are seen under the test transform, without augmentation, as in both public codes. So an image goes through
    the frozen tower once in a run, and steps are on features.

    Config keys: TRAINER.<NAME>.PREC, TEMPLATES, STEP, TOP_K, ROUND_EPOCHS, RESTART, N_CTX, CSC; OPTIM.NAME, LR,
    WEIGHT_DECAY, MOMENTUM, MAX_EPOCH, WARMUP_EPOCH and WARMUP_CONS_LR of a round.
    """

    reads: tuple[str, ...] = ("OPTIM.LR_SCHEDULER", "OPTIM.WARMUP_TYPE", "OPTIM.WARMUP_CONS_LR")

    chosen: Tensor | None  # [S], positions in train_x
    boards: Tensor | None  # [S], the class that each was chosen for
    sets: Tensor | None  # the classes that each may be, bool [S, K]

    def build_model(self) -> None:
        self.names = self.encode_names(tuple(self.options.TEMPLATES))
        super().build_model()
        self.train_images = images_of(self.train_loader_x)
        for name in ("chosen", "boards", "sets"):
            self.keep(name, None)

    def rates(self) -> Callable[[int], float]:
        """Those of a round, in each round again."""
        cfg, epochs = self.cfg.OPTIM, self.options.ROUND_EPOCHS
        of_round = warmup_cosine(epochs, cfg.WARMUP_EPOCH, cfg.WARMUP_CONS_LR / cfg.LR)
        return lambda epoch: of_round(epoch % epochs)

    @property
    def max_norm(self) -> float:
        """Of the gradient."""
        return math.inf

    # -- Before each round: which images, and what they may be ---------------------------------------------------------

    def candidates(self, probs: Tensor) -> Tensor | None:
        """The classes that an image may be, bool [N, K], from probabilities [N, K] in float64, on the CPU. None: each
        may be any, but in training it is the one that it was chosen for."""
        raise NotImplementedError

    @torch.no_grad()
    def choose(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """``chosen``, ``boards`` and ``sets`` of a round, from 0."""
        features = self.features()
        logits = self.scores(features) if number else self.model.tau * features @ self.names.t()
        probs = logits.cpu().double().softmax(dim=1)
        opt, (count, classes) = self.options, probs.shape
        allowed = self.candidates(probs)
        chosen, boards = leaderboards(probs, opt.TOP_K or per_class(count, classes, opt.STEP, number), allowed)
        sets = F.one_hot(boards, classes).bool() if allowed is None else allowed[chosen]
        return chosen, boards, sets

    def features(self) -> Tensor:
        return self.encode_all(self.train_images, "train")

    def begin_round(self) -> None:
        number = self.epoch // self.options.ROUND_EPOCHS
        # Rounding may differ from machine to machine.
        self.chosen, self.boards, self.sets = from_main(self.choose(number))
        details.info(
            f"Round {number + 1}: {len(self.chosen)} of {len(self.train_images)} training images, for "
            f"{len(self.boards.unique())} classes, {self.sets.sum(dim=1).double().mean():.2f} candidates each"
        )
        self.train_loader_x = self.rows()
        (name,) = self.get_model_names()
        self._optims[name].state.clear()
        if number and self.options.RESTART:
            self.draw_contexts()

    def rows(self) -> DataLoader:
        """Batches of the chosen images' features."""
        assert self.chosen is not None
        rows = FeatureRows(self.train_images, self.features(), self.chosen)
        return build_loader(rows, self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE, 0, self.device, shuffle=True, train=True)

    def before_train(self) -> None:
        super().before_train()
        if self.chosen is not None:  # a resumed run brings them along
            self.train_loader_x = self.rows()

    def before_epoch(self) -> None:
        if self.epoch % self.options.ROUND_EPOCHS == 0:
            self.begin_round()
        super().before_epoch()

    # -- One step ------------------------------------------------------------------------------------------------------

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        assert self.sets is not None and self.boards is not None
        index, features = batch["index"], batch["img"].to(self.device, non_blocking=True)
        sets = self.sets[index]
        (logits,) = self.net(features)
        loss = candidate_loss(logits, sets.to(self.device, non_blocking=True))
        self.descend(loss, self.max_norm)
        figures = {"loss": loss.detach(), "candidates": sets.sum(dim=1).float().mean()}
        return figures | self.pseudo_accuracy(self.boards[index], batch)

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_label_free(cfg)
        node = f"TRAINER.{cfg.TRAINER.NAME.upper()}"
        opt = cfg.TRAINER[cfg.TRAINER.NAME.upper()]
        require(0 < opt.STEP <= 1, f"{node}.STEP {opt.STEP}: a share above 0, 1 at most")
        require(opt.TOP_K >= 0, f"{node}.TOP_K {opt.TOP_K}: a number of images, or 0: as many as STEP says")
        require(opt.ROUND_EPOCHS >= 1, f"{node}.ROUND_EPOCHS {opt.ROUND_EPOCHS}: a round has at least one epoch")


@TRAINER_REGISTRY.register()
class GRIP(PromptRounds):
    """Prompt learning over rounds, with one pseudo-label for an image: the class on whose leaderboard it stands.

    Each class has a leaderboard of equally many images, which are trained on with that class as their label. So all
    classes have images, whatever CLIP's preferences. The boards grow by STEP of the training images in each round,
    until they have them all. FPL is one round with TOP_K 16.

    Config keys: TRAINER.GRIP (see ``extend_cfg``), and those of ``PromptRounds``. The public code's settings, for all
    data sets: SGD at 0.1, 5 epochs of warm-up, weight decay 0.1, batches of 16, 150 epochs in each of 10 rounds.

    Deviations from the public code:
        - Of its three kinds of prompts the textual one. A full stop follows the name; there, nothing does.
        - Names are put into the data set's usual template for the first round. There, all data sets have "a photo of
          a {}", and the braces stay in the text.
        - Warm-up is Dassl's: WARMUP_CONS_LR, and then a cosine over all epochs of a round. There the rate rises from 0,
          by the same step in each epoch of warm-up, and the cosine takes the epochs that are left.
        - Boards do not depend on the order of the images, and an image stands on one. There, images are taken in their
          order; one that has no room on its first board may join several others, and one that loses its place joins
          none.
        - All chosen images are trained on. There, of a class with ten or more a fifth is held back, and no use is made
          of it.
        - The last, smaller batch of an epoch is dropped, as Dassl does.
        - Float32 or mixed precision instead of half precision.
    """

    def candidates(self, probs: Tensor) -> None:
        return None
