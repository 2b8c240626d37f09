"""microCLIP: pseudo-labels from crops and from a token pooled from the foreground's patches.

S. Silva, E. Ali, C. Arora, M. H. Khan, "microCLIP: Unsupervised CLIP Adaptation via Coarse-Fine Token Fusion for
Fine-Grained Image Classification", arXiv 2510.02270 (ACL Findings 2026). This file reads like the method, as its
public code has it.

Symbols: f(x) the image tower's feature, l(x) the one pooled from its patches, W the learned and W_0 the fixed
classifier (K unit rows each), tau = exp(logit_scale) of CLIP, x_i the crops of x.
"""

import math
import re
from functools import partial

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from yacs.config import CfgNode

from fairclip.backbones.backbone import norm_parameters
from fairclip.core.errors import require
from fairclip.method.anchors import AnchorClassifier, description_anchors, relevance_mean
from fairclip.method.losses import fairness
from fairclip.method.microclip import USE, FusedClassifier, likeness_anchors
from fairclip.method.rates import cosine
from fairclip.method.visual_prompts import vit_needed
from fairclip.run.base import AdaptationTrainer
from fairclip.run.checks import check_crop_sides, check_label_free, check_last_rate, check_openai, check_own_schedule
from fairclip.text.templates import prompts_of
from fairclip.views.views import Views


def extend_cfg(cfg: CfgNode) -> None:
    """microCLIP's config. The defaults are the public code's for all data sets, but for CUT_COSINES."""
    cfg.TRAINER.MICROCLIP = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            "DESCRIPTIONS": "",  # JSON file; "": the data set's own
            "TEMPLATES": (),  # of the names that descriptions are compared with; (): CLIP's ensemble for the data set
            "FIXED": "likeness",  # weights of descriptions in W_0: likeness to the name, as in the public code | mean
            "N_CROPS": 8,  # crops that label
            "ALPHA": 0.5,  # side of a crop: U(ALPHA, BETA) times the short side
            "BETA": 0.9,  # see ALPHA
            "GAMMA": 0.5,  # share of crops and fixed classifier in a label; the rest is the model's own
            "FAIRNESS": 1.0,  # weight of the fairness term
            "CUT": 0.2,  # likeness above which two patches are joined, in the graph that is cut
            "CUT_COSINES": True,  # by cosines; False: by products of tokens of any length, as in the public code
            "CROPS_ONLY": False,  # the baseline: crops and W label, no patches (public code: --wca_baseline)
            "LR_MIN": 2e-6,  # where the cosine ends
        }
    )


@TRAINER_REGISTRY.register()
class microCLIP(AdaptationTrainer):  # noqa: N801 - its name
    """Self-training of two features of an image together: f of the class token, and l, which attention pools from the
    patches by a query that a normalised cut finds, the mean of the foreground (see ``fairclip.method.microclip``).

    A label is argmax of GAMMA <c, W_0> + (1 - GAMMA) <e, W>: c is the mean of the crops' features, weighted by
    softmax_i <f(x), f(x_i)>, and e the unit mean of f(x) and l(x), all of the weak view and of the network as it is.
    W_0 are descriptions weighted by their likeness to the name (FIXED mean: all alike, so that W_0 is where W starts).
    W starts from their plain mean. Trained are W, the image tower's norms and the three maps of the attention.
    Inference is the mean of <f(x), W> and <l(x), W>.

    With CROPS_ONLY the label is argmax <c, W>, and the model is f and W alone, on any backbone.

    Config keys: TRAINER.MICROCLIP (see ``extend_cfg``), and OPTIM.NAME, LR, WEIGHT_DECAY, MAX_EPOCH. The public code's,
    for all data sets: AdamW, 1e-4, 0.1, 15 epochs in batches of 64. The last epoch is the result, there as here.

    Deviations from the public code:
    - Patches are compared by cosines, as in other work with this cut. There the products of tokens of any length are
      (CUT_COSINES False).
    - The foreground is what lies above the threshold once the vector's sign is fixed. There the sign is whatever the
      solver returns, and where it is the other one, the foreground is all but the other group.
    - Where all patches are alike nothing is cut, and the query is zero, as it is there for an empty foreground. There
      the solver's arbitrary vector decides.
    - FIXED mean is ours, for names that the backbone does not know.
    - A description with a negative likeness to the name does not count. CLIP's texts have none.
    - The descriptions are by default this project's, five to seven a class; there they are CuPL's.
    - Views are this project's, the same for all methods (weak: also flipped; strong: 50 to 100 % of the area and
      torchvision's RandAugment. There: 30 to 100 % and timm's). Test images are cut from the centre; there at random.
    - tau is the loaded CLIP's own; there it is 100, which OpenAI's models have.
    - An epoch's first step has no running average yet, and its fairness term counts once; there twice.
    - The last batch of an epoch is dropped where it is smaller, as Dassl does.
    """

    needs_float64 = True  # of the cut
    schedule_by_step = True
    mean_prediction: Tensor | None = None  # running average for the fairness term

    # -- Two classifiers from text, and what is trained ----------------------------------------------------------------

    def build_model(self) -> None:
        opt, visual = self.options, self.backbone.visual
        names = self.encode_names(opt.TEMPLATES or prompts_of(self.cfg.DATASET.NAME))
        descriptions, mask = self.encode_descriptions(opt.DESCRIPTIONS)
        start = description_anchors(names, descriptions, mask, 0.0, "mean")
        if opt.CROPS_ONLY:
            self.model = AnchorClassifier(visual, start, self.tau, self.prec)
        else:
            fixed = likeness_anchors(names, descriptions, mask) if opt.FIXED == "likeness" else start
            self.keep("fixed", fixed)  # W_0. It could be made again, but not to the bit on another machine: it is kept
            self.model = FusedClassifier(visual, start, self.tau, self.prec, opt.CUT, opt.CUT_COSINES)
        del self.backbone  # the text tower has done its work

        # All of it decays, norms and biases too, as in the public code.
        others = [p for name, p in self.model.named_parameters() if not name.startswith("visual.")]
        steps = self.max_epoch * len(self.train_loader_x)
        schedule = partial(LambdaLR, lr_lambda=cosine(steps, opt.LR_MIN / self.cfg.OPTIM.LR))
        self.set_up_training([{"params": [*norm_parameters(visual).values(), *others]}], schedule)

    def train_transform(self) -> Views:
        """One decoded image -> weak view, strong view, crops."""
        opt = self.options
        return Views(n_crops=opt.N_CROPS, alpha=opt.ALPHA, beta=opt.BETA, **self.input_form)

    @property
    def views_per_image(self) -> int:
        return 2 + self.options.N_CROPS

    # -- Pseudo-labels -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def pseudo_label(self, weak: Tensor, crops: Tensor) -> Tensor:
        """y [B] of weak views [B, 3, S, S] and crops [B, N, 3, S, S]."""
        share, model = self.options.GAMMA, self.model
        parts, learned = model.encode_views(crops), model.anchors()
        if not isinstance(model, FusedClassifier):  # CROPS_ONLY
            return (relevance_mean(model.encode(weak), parts, 1.0) @ learned.t()).argmax(dim=1)
        whole, local = model.encode_both(weak)
        composite = F.normalize(relevance_mean(whole, parts, 1.0), dim=-1)
        fused = F.normalize(whole + local, dim=-1)
        return (share * composite @ self.fixed.t() + (1 - share) * fused @ learned.t()).argmax(dim=1)

    # -- One step: L = mean_i CE(logits(x_s), y_i) + FAIRNESS L_fair ---------------------------------------------------

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        views = self.pixels(batch["img"])

        y = self.pseudo_label(views[:, 0], views[:, 2:])
        logits = self.net(views[:, 1])
        loss_st = F.cross_entropy(logits, y)
        loss_fair, mean = fairness(logits.softmax(dim=1), self.mean_prediction)
        loss = loss_st + self.options.FAIRNESS * loss_fair
        self.descend(loss)
        self.mean_prediction = mean

        figures = {"loss": loss, "loss_st": loss_st, "loss_fair": loss_fair}
        return {name: value.detach() for name, value in figures.items()} | self.pseudo_accuracy(y, batch)

    def before_epoch(self) -> None:
        super().before_epoch()
        self.mean_prediction = None  # as in the public code, and no checkpoint needs it

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        check_label_free(cfg)
        check_own_schedule(cfg)
        opt, node, backbone = cfg.TRAINER.MICROCLIP, "TRAINER.MICROCLIP", cfg.MODEL.BACKBONE.NAME
        if not opt.CROPS_ONLY:
            check_openai(cfg, "pools patch tokens of the last block")
            is_resnet = re.fullmatch(r"RN\d+(x\d+)?|tiny_rn", backbone)
            require(not is_resnet, vit_needed(f"{backbone} is a ResNet", USE))
        require(opt.FIXED in ("likeness", "mean"), f"{node}.FIXED {opt.FIXED!r}: choose likeness or mean")
        require(opt.N_CROPS >= 1, f"{node}.N_CROPS {opt.N_CROPS}: crops label, at least 1 is needed")
        check_crop_sides(opt, node)
        require(0 <= opt.GAMMA <= 1, f"{node}.GAMMA {opt.GAMMA}: a share lies between 0 and 1")
        require(0 <= opt.FAIRNESS < math.inf, f"{node}.FAIRNESS {opt.FAIRNESS}: a number from 0 on")
        in_range = -1 < opt.CUT < 1 or not opt.CUT_COSINES
        require(in_range, f"{node}.CUT {opt.CUT}: a cosine lies between -1 and 1")
        check_last_rate(cfg, node, opt.LR_MIN)
