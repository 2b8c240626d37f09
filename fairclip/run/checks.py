"""What our trainers ask of a config and of the processes, said before anything is loaded."""

import inspect
from collections.abc import Sequence

import torch
from dassl.data.transforms import transforms
from dassl.evaluation import EVALUATOR_REGISTRY
from yacs.config import CfgNode

from fairclip.backbones.makers import is_openai
from fairclip.core.distributed import local_world, started, world
from fairclip.core.errors import UserError, require
from fairclip.core.invocation import launched
from fairclip.run.schema import check_values
from fairclip.views.image_cache import check_cache

SAMPLERS = {"RandomSampler": True, "SequentialSampler": False}  # whether they shuffle


def cache_settings(cfg: CfgNode) -> tuple[str, float]:
    """DATALOADER.CACHE and CACHE_GB, with the defaults of a config that does not have them."""
    return cfg.DATALOADER.get("CACHE", "none"), cfg.DATALOADER.get("CACHE_GB", 16.0)


def check_settings(cfg: CfgNode) -> None:
    """The keys that all our trainers read.

    Raises:
        UserError: one has a value that cannot work, or would choose by labels.
    """
    name = cfg.TRAINER.NAME
    require(
        name.upper() in cfg.TRAINER,
        f"the config has no TRAINER.{name.upper()}: call extend_cfg(cfg) of the module that defines {name} "
        "before the YAML files are merged (in a CoOp checkout: in extend_cfg of train.py)",
    )
    require(
        cfg.TEST.FINAL_MODEL in ("last_step", "last_val"),  # Dassl takes UPL's last_val for the last step, too
        f"TEST.FINAL_MODEL is {cfg.TEST.FINAL_MODEL!r}, but {name} reports the last epoch: choosing an epoch "
        "would need labels. Set it to last_step",
    )
    check_values(cfg)
    check_transforms(cfg.INPUT.TRANSFORMS)
    check_evaluator(cfg.TEST.EVALUATOR)
    require(
        cfg.DATALOADER.TRAIN_X.SAMPLER in SAMPLERS,
        f"DATALOADER.TRAIN_X.SAMPLER {cfg.DATALOADER.TRAIN_X.SAMPLER}: {name} takes RandomSampler (or "
        "SequentialSampler); others choose images by their label or domain",
    )
    require(
        cfg.DATALOADER.K_TRANSFORMS == 1,
        f"DATALOADER.K_TRANSFORMS: {name} makes its own views of an image, leave it at 1",
    )
    check_cache(*cache_settings(cfg))


def check_evaluator(name: str) -> None:
    """That the test can use it is not to be found out after all epochs: UPL's wants files to write to, too."""
    known = EVALUATOR_REGISTRY.registered_names()
    require(name in known, f"TEST.EVALUATOR {name!r}: choose one of {', '.join(sorted(known))}")
    try:
        inspect.signature(EVALUATOR_REGISTRY.get(name).process).bind("self", "scores", "labels")
    except TypeError:
        raise UserError(
            f"TEST.EVALUATOR {name} takes more than the scores and labels of images, which is all that our trainers "
            "give: give TEST.EVALUATOR Classification on the command line"
        ) from None


def check_transforms(names: Sequence[str]) -> None:
    """Dassl reports an unknown one by an exception of its own, when data is there already."""
    known = getattr(transforms, "AVAI_CHOICES", None) or names
    unknown = [name for name in names if name not in known]
    require(not unknown, f"INPUT.TRANSFORMS {', '.join(unknown)}: choose from {', '.join(known)}")


def check_label_free(cfg: CfgNode) -> None:
    """For trainers that read no training label: refuse the settings of Dassl and CoOp that would."""
    dataset, trainer = cfg.DATASET, cfg.TRAINER.NAME
    for key, chooses, to_give in (
        ("NUM_SHOTS", dataset.NUM_SHOTS > 0, "-1"),
        ("SUBSAMPLE_CLASSES", dataset.get("SUBSAMPLE_CLASSES", "all") != "all", "all"),
    ):
        # On the command line: some checkouts set these in their own train.py.
        require(
            not chooses,
            f"DATASET.{key} {dataset.get(key)} picks training images by label, and {trainer} trains without labels: "
            f"give DATASET.{key} {to_give} on the command line",
        )


def check_openai(cfg: CfgNode, what: str) -> None:
    """For trainers that reach into the inner modules of a CLIP; ``what`` they do there."""
    name = cfg.MODEL.BACKBONE.NAME
    require(
        is_openai(name),
        f"MODEL.BACKBONE.NAME {name}: {cfg.TRAINER.NAME} {what}, and needs a CLIP in OpenAI's layout",
    )


def check_own_schedule(cfg: CfgNode) -> None:
    """For trainers whose learning rate follows a cosine of their own."""
    require(cfg.OPTIM.LR > 0, f"OPTIM.LR {cfg.OPTIM.LR}: a learning rate is above 0")
    require(
        cfg.OPTIM.WARMUP_EPOCH <= 0,
        f"OPTIM.WARMUP_EPOCH: {cfg.TRAINER.NAME}'s schedule is a cosine without warm-up",
    )


def check_processes(cfg: CfgNode, trains: bool) -> None:
    """Can the processes that torchrun started share the work?

    Args: trains, whether the trainer takes steps on batches of DATALOADER.TRAIN_X.
    """
    if launched() and not started():
        raise UserError("this train.py does not know of torchrun: start it by python")
    if world() > 1 and cfg.TRAIN.get("AUTO_CHUNK", False):
        raise UserError("TRAIN.AUTO_CHUNK is for one process: several would not do a step again together")
    gpus = torch.cuda.device_count() if cfg.USE_CUDA else 0
    if 0 < gpus < local_world():
        raise UserError(
            f"{local_world()} processes on this machine, and {gpus} GPUs: start at most one a GPU (torchrun "
            f"--nproc_per_node={gpus}), or set USE_CUDA False"
        )
    size = cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    if trains and size % world():
        raise UserError(
            f"DATALOADER.TRAIN_X.BATCH_SIZE {size} cannot be shared evenly by {world()} processes: set it to a "
            f"multiple of {world()}, such as {size - size % world() or world()}, or start fewer processes"
        )


def check_texts(cfg: CfgNode) -> None:
    """Raises UserError where DESCRIPTIONS of the trainer's node would not be read, since TEXTS says names."""
    node = f"TRAINER.{cfg.TRAINER.NAME.upper()}"
    opt = cfg.TRAINER[cfg.TRAINER.NAME.upper()]
    require(
        opt.TEXTS == "descriptions" or not opt.DESCRIPTIONS,
        f"{node}.DESCRIPTIONS is read with {node}.TEXTS descriptions alone: give that too",
    )


def check_least(opt: CfgNode, node: str, **least: float) -> None:
    """Raises UserError where one of a trainer's settings lies below the least value that it may have."""
    for key, value in least.items():
        require(opt[key] >= value, f"{node}.{key} {opt[key]}: it must be at least {value}")


def check_crop_sides(opt: CfgNode, node: str) -> None:
    """Raises UserError where sides of crops do not lie in U(ALPHA, BETA) of the short side."""
    require(0 < opt.ALPHA <= opt.BETA <= 1, f"{node}.ALPHA {opt.ALPHA}, BETA {opt.BETA}: need 0 < ALPHA <= BETA <= 1")


def check_last_rate(cfg: CfgNode, node: str, lr_min: float) -> None:
    """Raises UserError where the learning rate would rise to the end of its cosine."""
    require(cfg.OPTIM.LR >= lr_min, f"OPTIM.LR {cfg.OPTIM.LR} lies below {node}.LR_MIN {lr_min}")
