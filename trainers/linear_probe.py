"""A linear probe: logistic regression, with all labels of the training images, on frozen CLIP features.

The protocol is CLIP's: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020, section 3.2 and appendix A.
"""

import time
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from fairclip.core.errors import require
from fairclip.core.log import details, log
from fairclip.method.linear_probe import ProbeClassifier, regularisation_path
from fairclip.run.checks import check_least
from fairclip.run.frozen import FrozenFeatures
from fairclip.run.settings import write_config
from fairclip.views.loading import Images, images_of

WITHOUT_VALIDATION = 1e-3  # the L2 penalty where there are no validation images to choose one by


def extend_cfg(cfg: CfgNode) -> None:
    """Config of the linear probe."""
    cfg.TRAINER.LINEARPROBE = CfgNode(
        {
            "PREC": "auto",  # auto | fp32 | amp | bf16
            # L2 penalties, on standardised features. Of several, the validation images choose; one is fixed.
            "L2": (1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6),
            "ITERATIONS": 1000,  # of L-BFGS, at most, for each penalty; the paper's
        }
    )


@TRAINER_REGISTRY.register()
class LinearProbe(FrozenFeatures):
    """A reference with labels, not a competitor: what the frozen features would allow if every label were known.

    Features of the training images under the test transform, multinomial logistic regression with an L2 penalty by
    L-BFGS. The penalty is the one with the best accuracy on the validation images (of equals the strongest), never on
    test images; without validation images it is 1e-3. The result does not depend on the seed, unless DATASET.NUM_SHOTS
    draws images by it.

    Config keys (TRAINER.LINEARPROBE): PREC; L2, a tuple of penalties; ITERATIONS. OPTIM is not read.

    Deviations from CLIP's protocol:
        - Features are the unit ones in the space shared with texts, which all methods here start from; the paper takes
          those before the projection.
        - Seven penalties, a factor of 10 apart, on standardised features; the paper searches 96.
        - The probe is not fitted again on training and validation images together: other methods do not see the latter.
    """

    uses_labels = True
    needs_float64 = True
    lengths_count = True

    def build_model(self) -> None:
        self.model = ProbeClassifier(
            self.backbone.visual, self.backbone.width, self.num_classes, self.prec, self.tau
        ).to(self.device)
        self.register_model("linear_probe", self.model)
        del self.backbone  # the text tower has nothing to do

    def labelled(self, images: Images, title: str) -> tuple[Tensor, Tensor]:
        """Features in float64 and labels of a split."""
        labels = torch.tensor(images.labels, device=self.device)
        unlabelled = (labels < 0).sum().item()
        require(
            not unlabelled,
            f"LinearProbe trains with labels, and {unlabelled} of {len(images)} {title} images have none",
        )
        return self.encode_all(images, title).double(), labels

    def fit(self) -> None:
        """Fit the head, and say in the history how."""
        opt, start = self.options, time.time()
        self.seconds_saved = 0.0
        penalties = list(opt.L2)
        if len(penalties) > 1 and not self.dm.dataset.val:
            log.warning(
                f"{self.cfg.DATASET.NAME} has no validation images to choose TRAINER.LINEARPROBE.L2 by: "
                f"{WITHOUT_VALIDATION} is taken"
            )
            penalties = [WITHOUT_VALIDATION]
        features, labels = self.labelled(images_of(self.train_loader_x), "train")
        probes = regularisation_path(features, labels, self.num_classes, penalties, opt.ITERATIONS)
        accuracies = dict.fromkeys(probes, 0.0)
        if len(probes) > 1:
            features, labels = self.labelled(images_of(self.loader_of("val")), "val")
            for penalty, probe in probes.items():
                accuracies[penalty] = 100 * (probe(features).argmax(dim=1) == labels).double().mean().item()
                details.info(
                    f"L2 {penalty:g}: accuracy on validation images {accuracies[penalty]:.2f}, "
                    f"training loss {probe.loss:.4f}"
                )
        best = max(probes, key=accuracies.__getitem__)  # of equals the first, which is the strongest
        with torch.no_grad():
            self.model.head.weight.copy_(probes[best].weight)
            self.model.head.bias.copy_(probes[best].bias)
        record = {"epoch": 1, "loss": probes[best].loss, "l2": best}
        if len(probes) > 1:
            record["val_accuracy"] = accuracies[best]
        self.history = [record | {"seconds": time.time() - start + self.seconds_saved}]
        log.info(f"Linear probe with L2 {best:g}")

    def train(self) -> None:
        write_config(self.cfg, self.output_dir)
        self.epoch, self.max_epoch = 0, 1
        self.fit()
        self.save_model(self.epoch, self.output_dir)
        self.after_train()

    def scores(self, features: Tensor) -> Tensor:
        return self.model.head(features)

    def prediction(self) -> dict[str, Any]:
        return super().prediction() | {"bias": self.model.head.bias.tolist()}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        opt = cfg.TRAINER.LINEARPROBE
        require(
            opt.L2 and all(isinstance(value, (int, float)) and value > 0 for value in opt.L2),
            f"TRAINER.LINEARPROBE.L2 {opt.L2}: give one or more numbers above 0, such as (0.001,)",
        )
        check_least(opt, "TRAINER.LINEARPROBE", ITERATIONS=1)
