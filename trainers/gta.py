"""GTA-CLIP's rounds of transduction and adaptation, with the descriptions that there are.

O. Saha, L. Lawrence, G. Van Horn, S. Maji, "Generate, Transduct, Adapt: Iterative Transduction with VLMs", arXiv
2501.06031 (ICCV 2025).

Symbols: f image tower, t text tower, m_c mean feature of the descriptions of class c, z TransCLIP's assignments.
"""

from functools import cached_property
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from dassl.optim import build_lr_scheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms as T
from yacs.config import CfgNode

from fairclip.core.distributed import gather, parallel, world
from fairclip.core.errors import require
from fairclip.method.gta import (
    Adapted,
    Pairs,
    choose,
    class_means,
    contrastive_loss,
    draw_texts,
    linear_head,
    of_all,
    surest,
)
from fairclip.method.transclip import fit
from fairclip.run.base import AdaptationTrainer
from fairclip.run.checks import check_label_free
from fairclip.run.texts import read_descriptions
from fairclip.text.templates import prompt, template_of
from fairclip.views.loading import mixed_seed, set_seed
from fairclip.views.views import to_bytes

JITTER = 0.4  # of brightness, contrast and saturation
EPSILON = 1e-6  # AdamW's


def extend_cfg(cfg: CfgNode) -> None:
    """GTA-CLIP's config. The defaults are the public code's (of precision, see ``GTA``)."""
    cfg.TRAINER.GTA = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "DESCRIPTIONS": "",  # JSON file; "": the data set's own
            "NAMED": True,  # whether a description follows its class's name prompt
            "PER_CLASS": 8,  # images that a round trains on
            "PROJECTION_RATE": 5.0,  # learning rate of both towers' last projections, in OPTIM.LR; 0: they stay
        }
    )


@TRAINER_REGISTRY.register()
class GTA(AdaptationTrainer):
    """GTA-CLIP without its language model: an epoch is a round.

    1. Transduct: TransCLIP fits a Gaussian to each class on all training images. The text classifier's opinion is the
       mean cosine with the descriptions of a class.
    2. Adapt: the images with the highest z, eight a class, go once through both towers, each with a description of its
       class that is drawn anew. Descriptions and images of one class are positives of one another. All of CLIP is
       trained; the optimizer starts anew in each round.

    A test image is scored by itself, by the text classifier and the Gaussians of the training images after the last
    round: y * exp(l / 50), as TransCLIP's inductive variant does. It is linear in f(x).

    Config keys: TRAINER.GTA (see ``extend_cfg``), and OPTIM.NAME, LR, WEIGHT_DECAY, ADAM_BETA1, ADAM_BETA2, MAX_EPOCH,
    LR_SCHEDULER. The public code's, for all data sets: AdamW, 2e-7, decay 1e-4, betas 0.9 and 0.98, batches of 32, 30
    rounds.

    Deviations from the paper and its public code:
    - The training images are adapted to, and test images are scored one by one. There, all is done on the test images.
    - No language model adds descriptions of classes that are confused: they are those of the file, all along. A class
      without any has its name prompt. There, each description goes on from "a photo of a" and the class's name; here it
      is a sentence, which follows the name prompt (NAMED).
    - The last round is reported. There, it is the best of all rounds on the test images.
    - All parameters of both towers are trained, but not the temperature. The public code trains it and leaves out
      all with "proj" in their names but the last projections: attention's matrices and the second ones of the MLPs.
    - Float32 or mixed precision. The public code trains half-precision weights without a copy in float32. Squares of
      gradients below some 1e-3 are zero there, and such weights move much further than its rate, 2e-7, says. So this
      rate, which the configs for OpenAI's models have, may be too small here; there was nothing to choose another by.
    - The descriptions are drawn for all images of a round at its start.
    - The last batch of a round is dropped where it is smaller, as Dassl does.
    - Of TransCLIP: those that trainers/transclip.py names.
    """

    needs_float64 = True
    lengths_count = True
    reads = ("OPTIM.LR_SCHEDULER", "OPTIM.STEPSIZE", "OPTIM.GAMMA", "OPTIM.WARMUP_*")

    # -- Both towers, and what is trained ------------------------------------------------------------------------------

    def build_model(self) -> None:
        self.tokens, self.text_classes = self.read_texts()
        nothing = torch.zeros(self.num_classes, self.backbone.width, device=self.device)
        self.model = Adapted(self.backbone, nothing, self.prec)  # each transduction makes its head
        del self.backbone
        others, projections = self.model.parts()
        rate = self.cfg.OPTIM.LR * self.options.PROJECTION_RATE
        learned = [{"params": others}] + ([{"params": projections, "lr": rate}] if rate else [])
        more = {"eps": EPSILON} if self.cfg.OPTIM.NAME == "adamw" else {}
        self.set_up_training(
            [group | more for group in learned], lambda optim: build_lr_scheduler(optim, self.cfg.OPTIM)
        )
        # The images that the next round trains on. Transduction would find them again, but not to the bit elsewhere.
        self.keep("top", torch.zeros(0, self.num_classes, dtype=torch.long))

    def read_texts(self) -> tuple[Tensor, Tensor]:
        """Tokens of all M descriptions, [M, T], and the class of each, [M]."""
        lists, self.descriptions = read_descriptions(
            self.cfg, self.dm.dataset, self.classnames, self.options.DESCRIPTIONS
        )
        template = template_of(self.cfg.DATASET.NAME)
        prompts = [prompt(template, name) for name in self.classnames]
        lists = [
            [f"{named} {text}" if self.options.NAMED else text for text in found] or [named]
            for found, named in zip(lists, prompts, strict=True)
        ]
        classes = [number for number, found in enumerate(lists) for _ in found]
        tokens = self.backbone.tokenizer([text for found in lists for text in found])
        return tokens.to(self.device), torch.tensor(classes, device=self.device)

    @cached_property
    def net(self) -> nn.Module:
        return parallel(Pairs(self.model))

    def train_transform(self) -> T.Compose:
        """RGB image -> bytes [3, S, S]: any crop of 8 % of the area or more, flipped half the time, other colours."""
        jitter = T.ColorJitter(JITTER, JITTER, JITTER)
        return T.Compose([T.RandomResizedCrop(self.cfg.INPUT.SIZE[0]), T.RandomHorizontalFlip(), jitter, to_bytes])

    # -- Transduct -----------------------------------------------------------------------------------------------------

    @cached_property
    def in_order(self) -> DataLoader:
        return self.loader(self.dm.dataset.train_x, self.usual_test_transform())

    @torch.no_grad()
    def transduct(self) -> None:
        """The images of the next round, and the head of now."""
        model = self.model
        features = self.map_batches(self.in_order, lambda b: model.encode(self.pixels(b["img"])), "features").double()
        texts = class_means(model.encode_many_texts(self.tokens).double(), self.text_classes, self.num_classes)
        found = fit(features, (model.tau * features @ texts.t()).log_softmax(dim=1))
        self.top = surest(found.z, self.options.PER_CLASS).cpu()
        model.set_head(*linear_head(texts, found.mu, found.sigma, model.tau))

    def before_epoch(self) -> None:
        super().before_epoch()
        if self.epoch == 0:
            self.transduct()
        self.start_round()

    def after_epoch(self) -> None:
        self.transduct()
        super().after_epoch()

    # -- Adapt ---------------------------------------------------------------------------------------------------------

    def start_round(self) -> None:
        """The loader of the chosen images, their texts, and an optimizer that remembers nothing."""
        self.chosen = choose(self.top)
        seed = mixed_seed(self.seed, self.epoch)
        self.drawn = draw_texts(self.chosen.classes, self.text_classes.cpu(), torch.Generator().manual_seed(seed))
        train = self.dm.dataset.train_x
        images = [train[place] for place in self.chosen.images.tolist()]
        self.train_loader_x = self.loader(images, self.train_transform(), train=True)
        set_seed(self.train_loader_x, seed)
        (name,) = self.get_model_names()
        self._optims[name].state.clear()

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        index = batch["index"].cpu()
        texts = self.drawn[index].to(self.device)
        y = self.text_classes[texts]
        images, features = self.net(self.pixels(batch["img"]), self.tokens[texts])

        # A row for each image of all processes' batch, a column for each text.
        classes = gather(self.chosen.classes[index].to(self.device).to(torch.uint8)).bool()
        positives = classes[:, gather(y)]
        loss = contrastive_loss(of_all(images), of_all(features), positives, self.model.tau)
        self.descend(loss * world())  # each process has the gradient of its own rows, and their mean is taken
        return {"loss": loss.detach()} | self.pseudo_accuracy(y, batch)

    # -- What a checkpoint has besides ---------------------------------------------------------------------------------

    def checkpoint(self, epoch: int) -> dict[str, Any]:
        state = super().checkpoint(epoch)
        state["state_dict"]["bias"] = self.model.bias.detach()
        return state

    def prediction(self) -> dict[str, Any]:
        return super().prediction() | {"bias": self.model.bias.tolist()}

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_label_free(cfg)
        opt, node = cfg.TRAINER.GTA, "TRAINER.GTA"
        require(opt.PER_CLASS >= 1, f"{node}.PER_CLASS {opt.PER_CLASS}: a round needs at least 1 image a class")
        require(opt.PROJECTION_RATE >= 0, f"{node}.PROJECTION_RATE {opt.PROJECTION_RATE}: it must not be negative")
