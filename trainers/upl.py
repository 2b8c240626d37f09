"""UPL: prompts learned from the most confident pseudo-labels of zero-shot CLIP.

T. Huang, J. Chu, F. Wei, "Unsupervised Prompt Learning for Vision-Language Models", arXiv 2204.03649.
"""

import torch
from dassl.data.datasets import Datum
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.backbones.makers import is_openai, load_backbone
from fairclip.core.distributed import main_first
from fairclip.core.errors import few, require
from fairclip.core.log import log
from fairclip.method.anchors import AnchorClassifier
from fairclip.method.selection import select_top_k
from fairclip.run.checks import check_label_free
from fairclip.text.embeddings import name_prompts
from fairclip.text.templates import template_of

from .prompt_learning import PromptTrainer


def extend_cfg(cfg: CfgNode) -> None:
    """UPL's config; defaults from its public code but for PREC."""
    cfg.TRAINER.UPL = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            # Pseudo-labels
            "LABELLERS": (),  # CLIP models whose mean probabilities label; (): the run's own backbone. UPL* takes eight
            "TEMPLATES": (),  # templates of their name prompts; (): the data set's usual one
            "TOP_K": 16,  # images kept of each predicted class
            # Prompts
            "N_CTX": 16,  # context vectors in front of the class name
            "CSC": False,  # a context of each class's own
            "ENSEMBLE": 1,  # prompts learned in one run, whose logits are averaged at test; the paper averages 16 runs
        }
    )


@TRAINER_REGISTRY.register()
class UPL(PromptTrainer):
    """Prompt learning without labels.

    Zero-shot CLIP labels the training images once, before training. Of each *predicted* class the TOP_K most confident
    images are kept with that label, whatever their confidence: a threshold would leave some classes with hardly any. On
    these, context vectors are learned as in CoOp. A class that is never predicted has no training image.

    The paper's ensemble is the mean of the test logits of 16 runs that differ in the seed. ENSEMBLE n learns n contexts
    in one run, each from a start of its own, and classifies by the mean of their logits.

    Config keys: TRAINER.UPL (see ``extend_cfg``), and those of ``PromptTrainer``.

    Deviations:
        - The members of an ensemble see the same batches, so they differ by their start alone and cost one image pass;
          the paper's also differ in the order and augmentation of the images.
        - The backbone of the run labels by default; the public code takes RN50's probabilities, and for UPL* the mean
          of eight models'.
        - Float32 or mixed precision instead of half precision throughout, which a CPU cannot do.
        - Equally confident images are taken in the order of the data set; the public code leaves that to its sort.
        - The last epoch is reported, which is the public code's rule too.
    """

    selected: Tensor | None  # [S], positions in train_x
    pseudo_labels: Tensor | None  # [S]

    @property
    def members(self) -> int:
        return self.options.ENSEMBLE

    # -- Pseudo-labels, once, from frozen CLIP -------------------------------------------------------------------------

    @torch.no_grad()
    def zero_shot_probabilities(self) -> Tensor:
        """softmax(tau <f(x), t_c>) of every training image, the mean over the labelling models, [N, K], on the CPU."""
        opt = self.options
        models = tuple(opt.LABELLERS) or (self.cfg.MODEL.BACKBONE.NAME,)
        templates = tuple(opt.TEMPLATES) or (template_of(self.cfg.DATASET.NAME),)
        log.info(f"Pseudo-labels by {', '.join(models)}, with the templates {' | '.join(templates)}")
        total = torch.zeros(())
        for name in models:
            total = total + self.probabilities_by(name, templates)
        return total / len(models)

    def probabilities_by(self, name: str, templates: tuple[str, ...]) -> Tensor:
        """Those of one labelling model."""
        with main_first():
            backbone = load_backbone(name, self.device)
        names = name_prompts(backbone, self.classnames, templates)
        model = AnchorClassifier(backbone.visual, names, backbone.tau, self.prec)
        model.passes = self.memory_guard.passes
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.INPUT.SIZE = (backbone.size,) * 2
        del backbone  # the text tower has done its work
        loader = self.loader(self.dm.dataset.train_x, build_transform(cfg, is_train=False))

        def probabilities(batch: dict) -> Tensor:
            return model(batch["img"].to(self.device)).softmax(dim=1)

        return self.map_batches(loader, probabilities, f"labels by {name}").cpu()

    def before_train(self) -> None:
        self.keep("selected", None)  # [S], positions in train_x
        self.keep("pseudo_labels", None)  # [S]
        super().before_train()  # a resumed run brings its selection along
        if self.selected is None or self.pseudo_labels is None:
            probs = self.zero_shot_probabilities()
            self.selected, self.pseudo_labels = select_top_k(probs, self.options.TOP_K)
        per_class = self.pseudo_labels.bincount(minlength=self.num_classes)
        never = [name for name, count in zip(self.classnames, per_class, strict=True) if count == 0]
        log.info(
            f"Selected {len(self.selected)} of {len(self.dm.dataset.train_x)} training images, at most "
            f"{self.options.TOP_K} of each predicted class"
            + (f"; {len(never)} classes were never predicted: {few(never)}" if never else "")
        )
        images = [self.dm.dataset.train_x[i] for i in self.selected.tolist()]
        self.labels = torch.tensor([item.label for item in images])
        self.train_loader_x = self.loader(
            [
                Datum(impath=item.impath, label=label, domain=item.domain, classname=self.classnames[label])
                for item, label in zip(images, self.pseudo_labels.tolist(), strict=True)
            ],
            build_transform(self.cfg, is_train=True),
            train=True,
        )

    # -- One step on the selected images -------------------------------------------------------------------------------

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        images, pseudo_labels = self.parse_batch_test(batch)
        truth = {"label": self.labels[batch["index"]]}
        return {"loss": self.learn(images, pseudo_labels)} | self.pseudo_accuracy(pseudo_labels, truth)

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_label_free(cfg)
        opt = cfg.TRAINER.UPL
        others = [name for name in opt.LABELLERS if not is_openai(name)]  # their images would need other statistics
        require(not others, f"TRAINER.UPL.LABELLERS: {few(others)} are no CLIPs in OpenAI's layout")
        require(opt.TOP_K >= 1, f"TRAINER.UPL.TOP_K {opt.TOP_K}: keep at least one image of each class")
        require(opt.ENSEMBLE >= 1, f"TRAINER.UPL.ENSEMBLE {opt.ENSEMBLE}: learn at least one prompt")
