"""FAIR: fine-grained adaptation of CLIP via a self-trained alignment score.

E. Ali, S. Silva, C. Arora, M. H. Khan, "Towards Fine-Grained Adaptation of CLIP via a Self-Trained Alignment Score",
arXiv 2507.09615 (WACV 2026). This file reads like the method. The marks say where each part comes from: [A] the
paper's abstract, [F] common in the same line of work (WCA, CuPL, DPA, MUST, microCLIP), [O] our own choice.

The task [A]: unlabelled images of one fine-grained data set, the names of its K classes and descriptions of each. Adapt
CLIP to classify test images. No label is read in training or model selection; the last epoch is the model.

Symbols: f image tower, A anchors (K unit rows a_c), tau = exp(logit_scale) of CLIP, z = f(weak view), z_i = f(crop i).
"""

import math
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from yacs.config import CfgNode

from fairclip.backbones.backbone import norm_parameters
from fairclip.core.distributed import gather, global_mean, parallel
from fairclip.core.errors import require
from fairclip.core.log import log
from fairclip.method.anchors import ANCHOR_KINDS, AnchorClassifier, Student, description_anchors
from fairclip.method.crop_alignment import alignment_scores
from fairclip.method.label_weights import SCHEMES, self_training_weight
from fairclip.method.losses import MANY_CLASSES, fairness, weighted_cross_entropy
from fairclip.method.memory import LabelMemory, Queue
from fairclip.method.prototypes import align_distribution
from fairclip.method.rates import layer_groups
from fairclip.run.base import AdaptationTrainer
from fairclip.run.checks import check_crop_sides, check_label_free, check_last_rate, check_own_schedule
from fairclip.text.priors import read_prior
from fairclip.views.views import FixedCrops, Views

LAYER_DECAY = 0.65  # of the learning rate, from each block to the one below, with TOWER_RATE [F: MUST]


def extend_cfg(cfg: CfgNode) -> None:
    """FAIR's config with its defaults; every ablation is one value."""
    cfg.TRAINER.FAIR = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            # Anchors
            "DESCRIPTIONS": "",  # JSON file; "": the data set's own
            "TEMPLATES": (),  # templates of the name prompts; (): the data set's usual one
            "ANCHORS": "mean",  # mean [F: CuPL] | weighted by relevance to the name [F: WCA] | name
            "ANCHOR_SCALE": math.exp(2),  # s_t [F: WCA], of the weighted ones
            "LEARN_ANCHORS": True,  # train the anchors
            "LEARN_NORM": True,  # train the image tower's norms
            "TOWER_RATE": 0.0,  # learning rate of the tower's other parameters, in OPTIM.LR; 0: they stay as they are
            # Views and alignment score
            "N_CROPS": 4,  # N, crops of an image [O]
            "TOP_K": 4,  # k, crops that label; 0: the whole image labels
            "ALPHA": 0.5,  # side of a crop: U(ALPHA, BETA) times the short side [F: microCLIP]
            "BETA": 0.9,  # see ALPHA
            "SHARPNESS": 1.0,  # of the softmax over relevances, in their standard deviations within an image [O]
            # Self-training
            "ALIGN_QUEUE": 32,  # p is divided by its mean over so many batches before it labels [F: DPA]; 0: it is not
            "WEIGHT": "none",  # none | agreement | margin
            "LABEL_MEMORY": 0.5,  # share of an image's earlier probabilities in its label [O]; 0: this step's alone
            "STUDENT_CROPS": 2,  # of the N crops, how many the student learns from beside the strong view [O]
            "FAIRNESS": 1.0,  # lambda [F: MUST]
            "PRIOR": "",  # JSON file, {class: share or number of images}, for alignment and fairness; "": all alike
            "LR_MIN": 2e-6,  # where the cosine ends [F]
            "ORACLE": False,  # a reference, no method: true labels in the place of pseudo-labels
            # Inference
            "CROP_INFERENCE": False,  # also report the accuracy of LAS with crops, apart (where N_CROPS is above 0)
        }
    )


class Labels(NamedTuple):
    """What B images are labelled."""

    y: Tensor  # pseudo-labels, [B]
    w: Tensor  # their self-training weights, [B]
    agreed: Tensor  # whether the whole image says the same, [B]
    mean: Tensor | None  # the batch's mean p [K], which joins the recent ones once the step is done
    probs: Tensor | None  # p, [B, K], which is remembered once the step is done


@TRAINER_REGISTRY.register()
class FAIR(AdaptationTrainer):
    """Self-training of CLIP's image norms and of description anchors on alignment scores of local crops.

    Config keys: TRAINER.FAIR (see ``extend_cfg``), and OPTIM.NAME, LR, WEIGHT_DECAY, MAX_EPOCH.
    """

    mean_prediction: Tensor | None = None  # running average for the fairness term, with many classes

    # -- Class Description Anchors (CDA) [A], and what is trained ----------------------------------------------------

    def build_model(self) -> None:
        opt = self.options
        names = self.encode_names(opt.TEMPLATES)  # t_c
        if opt.ANCHORS == "name":
            descriptions, mask = names[:, None], torch.ones_like(names[:, :1], dtype=torch.bool)
        else:
            descriptions, mask = self.encode_descriptions(opt.DESCRIPTIONS)  # g(d_cm)
        anchors = description_anchors(names, descriptions, mask, opt.ANCHOR_SCALE, opt.ANCHORS)  # a_c
        self.model = AnchorClassifier(self.backbone.visual, anchors, self.tau, self.prec)
        del self.backbone  # the text tower has done its work

        # Trained: the anchors, which make the classifier adaptive [A], and the affine parameters of the image tower's
        # norms [F]. The norms are not decayed: that would pull them to 0, away from CLIP's values. With TOWER_RATE also
        # the rest of the tower, as in MUST, lower layers more slowly [O].
        visual, norms = self.model.visual, norm_parameters(self.model.visual)
        rest = [(name, parameter) for name, parameter in visual.named_parameters() if name not in norms]
        groups = [{"params": list(norms.values()), "weight_decay": 0.0}] if opt.LEARN_NORM else []
        groups += [{"params": list(self.model.anchors.parameters())}] if opt.LEARN_ANCHORS else []
        groups += layer_groups(rest, visual, opt.TOWER_RATE * self.cfg.OPTIM.LR, LAYER_DECAY) if opt.TOWER_RATE else []
        self.set_up_training(groups, partial(CosineAnnealingLR, T_max=self.max_epoch, eta_min=opt.LR_MIN))

        self.prior = read_prior(opt.PRIOR, self.classnames).to(self.device) if opt.PRIOR else None  # pi
        self.recent = self.memory = None
        if opt.ALIGN_QUEUE:
            self.keep("recent", Queue(opt.ALIGN_QUEUE, self.device))  # mean predictions of the last batches
        if opt.LABEL_MEMORY:
            self.keep("memory", LabelMemory(len(self.dm.dataset.train_x), self.num_classes, self.device))
        unlabelled = sum(item.label < 0 for item in self.dm.dataset.train_x)
        require(not (opt.ORACLE and unlabelled), f"TRAINER.FAIR.ORACLE: {unlabelled} training images have no label")

    # -- Views [F] ---------------------------------------------------------------------------------------------------

    def train_transform(self) -> Views:
        """One decoded image -> weak view, strong view, N local crops."""
        return Views(**self._view_settings())

    @property
    def views_per_image(self) -> int:
        return 2 + self.options.N_CROPS

    @property
    def student_crops(self) -> int:
        return min(self.options.STUDENT_CROPS, self.options.N_CROPS)

    @property
    def labels_by_crops(self) -> bool:
        return self.options.N_CROPS > 0 and self.options.TOP_K > 0

    def _view_settings(self) -> dict:
        opt = self.options
        return {"n_crops": opt.N_CROPS, "alpha": opt.ALPHA, "beta": opt.BETA, **self.input_form}

    # -- Pseudo-labels by the Learned Alignment Score (LAS) [A] --------------------------------------------------------

    @torch.no_grad()
    def scores(self, z: Tensor, crops: Tensor) -> tuple[Tensor, Tensor]:
        """LAS and the scores of the whole image, both cosines [B, K].

        Args: unit features: z, of the whole images, [B, d]; of their crops, [B, N, d].
        """
        opt, anchors = self.options, self.model.anchors()
        if not self.labels_by_crops:
            crops = crops[:, :0]
        return alignment_scores(z, crops, anchors, opt.TOP_K, opt.SHARPNESS), z @ anchors.t()

    @torch.no_grad()
    def pseudo_label(self, z: Tensor, crops: Tensor, batch: dict) -> "Labels":
        """y = argmax_c LAS(x, c) and its self-training weight w.

        With ALIGN_QUEUE, p is aligned before it labels, the whole image's q is not (as in DPA): a label that alignment
        has moved counts less. With LABEL_MEMORY, p is blended with what the image's earlier views said.

        All views see the same towers and anchors, those of now. Args: as for ``scores``.
        """
        opt, tau, batch_mean, p = self.options, self.model.tau, None, None
        local, whole = self.scores(z, crops)
        if self.recent:  # classes that were predicted too often lately are scaled down [F: DPA]
            p = (tau * local).softmax(dim=1)
            batch_mean = global_mean(p.mean(dim=0))
            aligned = align_distribution(p, self.recent.mean(batch_mean), self.prior)
            local = aligned.log() / tau  # cosines, shifted for each class
        if self.memory:
            p = self.memory.blend(batch["index"], (tau * local).softmax(dim=1), opt.LABEL_MEMORY)
            local = p.clamp_min(torch.finfo(p.dtype).tiny).log() / tau
        y, w = local.argmax(dim=1), self_training_weight(opt.WEIGHT, local, whole, tau)
        if opt.ORACLE:
            y, w = batch["label"].to(y.device), torch.ones_like(w)
        return Labels(y, w, whole.argmax(dim=1) == y, batch_mean, p)

    # -- One step: L = mean over the student's views v of mean_i w_i CE(tau <f(x_v), A>, y_i) + lambda L_fair(v) -------

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        views, n = self.pixels(batch["img"]), 1 + self.student_crops
        weak, seen, unseen = views[:, :1], views[:, 1 : 1 + n], views[:, 1 + n :]  # crops are in no order

        others = self.model.encode_views(torch.cat([weak, unseen], dim=1))
        logits, features = self.learn(seen)
        crops = torch.cat([features[:, 1:].detach(), others[:, 1:]], dim=1)  # the student's are not encoded again
        labels = self.pseudo_label(others[:, 0], crops, batch)
        loss_st, loss_fair, mean = self.losses(logits, labels)
        loss = loss_st + self.options.FAIRNESS * loss_fair
        self.descend(loss)
        self.mean_prediction = mean if self.num_classes >= MANY_CLASSES else None
        if self.recent:
            self.recent.push(labels.mean)
        if self.memory:
            self.memory.write(gather(batch["index"].to(self.device)), gather(labels.probs))

        figures = {
            "loss": loss,
            "loss_st": loss_st,
            "loss_fair": loss_fair,
            "agreement": labels.agreed.float().mean(),
        }
        return {name: value.detach() for name, value in figures.items()} | self.pseudo_accuracy(labels.y, batch)

    @cached_property
    def net(self) -> nn.Module:
        return parallel(Student(self.model))

    def learn(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and unit features of views [B, V, 3, S, S] in training: [V, B, K] and [B, V, d]."""
        logits, features = self.net(views.flatten(0, 1))
        return logits.unflatten(0, views.shape[:2]).transpose(0, 1), features.unflatten(0, views.shape[:2])

    def losses(self, logits: Tensor, labels: "Labels") -> tuple[Tensor, Tensor, Tensor]:
        """Weighted cross-entropy, fairness term [F: MUST] and mean prediction [K], of logits [V, B, K]; each of them is
        the mean over the V views."""
        learned = torch.stack([weighted_cross_entropy(view, labels.y, labels.w) for view in logits]).mean()
        views = [fairness(view.softmax(dim=1), self.mean_prediction, prior=self.prior) for view in logits]
        fair, means = zip(*views, strict=True)
        return learned, torch.stack(fair).mean(), torch.stack(means).mean(dim=0)

    def before_epoch(self) -> None:
        super().before_epoch()
        self.mean_prediction = None

    # -- Inference: <f(x), A> on one centre crop, the cost of zero-shot CLIP; with crops on request, reported apart ----

    def test(self, split: str | None = None, **_: Any) -> float:
        accuracy = super().test(split)
        if self.options.CROP_INFERENCE and self.labels_by_crops:
            self.results["crop_accuracy"] = self.test_with_crops(split or self.cfg.TEST.SPLIT)
            log.info(f"Accuracy with {self.options.N_CROPS} crops: {self.results['crop_accuracy']:.2f} %")
        return accuracy

    def test_with_crops(self, split: str) -> float:
        """Accuracy of LAS on the images of a split, in percent; the crops are the same in every run."""
        images = self.dm.dataset.val if split == "val" else self.dm.dataset.test
        loader = self.loader(images, FixedCrops(**self._view_settings()))

        def score(batch: dict) -> Tensor:
            features = self.model.encode_views(self.pixels(batch["img"]))
            return self.scores(features[:, 0], features[:, 1:])[0]

        return self.accuracy(self.map_batches(loader, score, "test with crops"), loader)

    def prediction(self) -> dict[str, Any]:
        opt = self.options
        crops = {"n": opt.N_CROPS, "k": opt.TOP_K, "alpha": opt.ALPHA, "beta": opt.BETA}
        crops["sharpness"] = opt.SHARPNESS
        return super().prediction() | {"crops": crops if self.labels_by_crops else None}

    # -- What cannot work is said before anything is loaded ------------------------------------------------------------

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        opt, node = cfg.TRAINER.FAIR, "TRAINER.FAIR"
        self.uses_labels = opt.ORACLE
        if not opt.ORACLE:
            check_label_free(cfg)
        check_own_schedule(cfg)
        require(opt.N_CROPS >= 0, f"{node}.N_CROPS {opt.N_CROPS}: a number of crops, 0: the whole image alone")
        require(opt.ANCHORS in ANCHOR_KINDS, f"{node}.ANCHORS {opt.ANCHORS!r}: choose one of {', '.join(ANCHOR_KINDS)}")
        require(opt.WEIGHT in SCHEMES, f"{node}.WEIGHT {opt.WEIGHT!r}: choose one of {', '.join(SCHEMES)}")
        require(
            opt.N_CROPS == 0 or 0 <= opt.TOP_K <= opt.N_CROPS,
            f"{node}.TOP_K {opt.TOP_K} of N_CROPS {opt.N_CROPS} crops: TOP_K must lie between 0 and N_CROPS",
        )
        fewest = 0 if opt.TOP_K else opt.N_CROPS  # crops that neither label nor teach would be encoded for nothing
        require(
            opt.N_CROPS == 0 or fewest <= opt.STUDENT_CROPS <= opt.N_CROPS,
            f"{node}.STUDENT_CROPS {opt.STUDENT_CROPS}: with TOP_K {opt.TOP_K} of N_CROPS {opt.N_CROPS} it must lie "
            f"between {fewest} and {opt.N_CROPS}",
        )
        check_crop_sides(opt, node)
        for key in ("ANCHOR_SCALE", "SHARPNESS", "FAIRNESS", "TOWER_RATE"):
            require(0 <= opt[key] < math.inf, f"{node}.{key} {opt[key]}: a number from 0 on")
        file = Path(opt.PRIOR).expanduser()
        require(not opt.PRIOR or file.is_file(), f"{node}.PRIOR: there is no file {file}")
        require(0 <= opt.LABEL_MEMORY < 1, f"{node}.LABEL_MEMORY {opt.LABEL_MEMORY}: a share lies in [0, 1), 0: none")
        require(
            opt.LEARN_ANCHORS or opt.LEARN_NORM or opt.TOWER_RATE,
            f"{node}.LEARN_ANCHORS, LEARN_NORM and TOWER_RATE are all off: nothing to learn",
        )
        require(opt.ALIGN_QUEUE >= 0, f"{node}.ALIGN_QUEUE {opt.ALIGN_QUEUE}: a number of batches, 0: no alignment")
        check_last_rate(cfg, node, opt.LR_MIN)
