"""From a command line to a frozen config, in CoOp's order: defaults, data set file, trainer file, flags, then pairs."""

import argparse
import difflib
import re
from collections.abc import Iterator, Sequence
from types import ModuleType

import yaml
from yacs.config import CfgNode

from fairclip.core.errors import UserError
from fairclip.core.places import find_file
from fairclip.run.foreign import who_reads
from fairclip.run.settings import with_backbone_facts


def build_cfg(args: argparse.Namespace, modules: Sequence[ModuleType]) -> CfgNode:
    """The config of a run.

    Args:
        args: the flags of `fair train`.
        modules: the plugins, whose ``extend_cfg`` declares keys.

    Raises:
        UserError: a file that is not there, or a key or value that does not fit.
    """
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    extend_cfg(cfg, modules)
    for path in (args.dataset_config_file, args.config_file):
        if path:
            merge(cfg, find_file(path), modules)
    apply_flags(cfg, args)
    merge(cfg, args.opts, modules)
    cfg.freeze()
    return with_backbone_facts(cfg) if is_ours(cfg.TRAINER.NAME) else cfg


def is_ours(trainer: str) -> bool:
    """Whether this is the name of a trainer on our base. Trainers of others may know other settings and backbones."""
    from dassl.engine import TRAINER_REGISTRY

    from fairclip.run.base import AdaptationTrainer

    known = trainer in TRAINER_REGISTRY.registered_names()
    return known and issubclass(TRAINER_REGISTRY.get(trainer), AdaptationTrainer)


def extend_cfg(cfg: CfgNode, modules: Sequence[ModuleType]) -> None:
    """Add the defaults that plugins declare, and those that CoOp's trainers expect."""
    from fairclip.data.settings import extend_cfg as extend_for_data

    extend_for_data(cfg)
    cfg.TRAINER.COOP = CfgNode(
        {"N_CTX": 16, "CSC": False, "CTX_INIT": "", "PREC": "fp16", "CLASS_TOKEN_POSITION": "end"}
    )
    cfg.TRAINER.COCOOP = CfgNode({"N_CTX": 16, "CTX_INIT": "", "PREC": "fp16"})
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all | base | new
    cfg.DEVICE = ""  # cpu | cuda | cuda:1 | mps; "": a CUDA GPU if there is one. Our trainers only, as what follows
    # What a file of weights does not say, for our trainers: docs/backbones.md
    cfg.MODEL.BACKBONE.HEADS = ()  # attention heads of the image and the text tower
    cfg.MODEL.BACKBONE.ACTIVATION = ""  # gelu | quick_gelu
    cfg.MODEL.BACKBONE.RESIZE = False  # interpolate position embeddings, so that images may have INPUT.SIZE
    # How much goes through the image tower at once, for our trainers: docs/memory.md. It changes nothing but rounding.
    cfg.TRAIN.CHUNK = 0  # images of a pass without gradients; 0: chosen from a GPU's free memory
    cfg.TRAIN.MICRO_BATCH = 0  # images of a pass with gradients; 0: the batch
    cfg.TRAIN.AUTO_CHUNK = False  # where memory runs out, halve these and do the step again
    cfg.TRAIN.EXTENDS = 0  # epochs of the finished run that this one goes on from; --resume-from sets it
    cfg.MODEL.COMPILE = False  # run the image tower by torch.compile
    cfg.TEST.EVERY_EPOCH = False  # also test after each epoch, for learning curves; our trainers only
    # Where views are cut: auto (device on a GPU, worker on a CPU, the faster on each) | worker | device
    cfg.DATALOADER.VIEWS = "auto"
    cfg.DATALOADER.CACHE = "none"  # where decoded training images are kept: none | ram | disk
    cfg.DATALOADER.CACHE_GB = 16.0  # limit of the store, 10^9 bytes
    for module in modules:
        if hasattr(module, "extend_cfg"):
            module.extend_cfg(cfg)


def apply_flags(cfg: CfgNode, args: argparse.Namespace) -> None:
    if args.root:
        cfg.DATASET.ROOT = args.root
    if args.output_dir:
        cfg.OUTPUT_DIR = args.output_dir
    if args.resume:
        cfg.RESUME = args.resume
    if args.seed >= 0:
        cfg.SEED = args.seed
    if args.source_domains:
        cfg.DATASET.SOURCE_DOMAINS = args.source_domains
    if args.target_domains:
        cfg.DATASET.TARGET_DOMAINS = args.target_domains
    if args.transforms:
        cfg.INPUT.TRANSFORMS = args.transforms
    if args.trainer:
        cfg.TRAINER.NAME = args.trainer
    if args.backbone:
        cfg.MODEL.BACKBONE.NAME = args.backbone
    if args.head:
        cfg.MODEL.HEAD.NAME = args.head
    if args.device:
        cfg.DEVICE = args.device
    if args.no_download:
        cfg.DATASET.DOWNLOAD = False
    if args.check_images:
        cfg.DATASET.CHECK_IMAGES = True


def flat_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from flat_keys(value, f"{prefix}{key}.")


def merge(cfg: CfgNode, source: str | list[str], modules: Sequence[ModuleType]) -> None:
    """Merge a YAML file or KEY VALUE pairs.

    Raises:
        UserError: what does not fit, naming the closest key, or the plugin that reads this one without declaring it.
    """
    where = source if isinstance(source, str) else "the command line"
    try:
        if isinstance(source, str):
            cfg.merge_from_file(source)
        else:
            cfg.merge_from_list(source)
    except FileNotFoundError:
        raise UserError(f"there is no config file {source}") from None
    except (KeyError, ValueError, AssertionError, AttributeError, yaml.YAMLError) as error:
        message = str(error.args[0] if error.args else error)
        unknown = re.match(r"Non-existent (?:config )?key: (\S+)", message)
        if not unknown:
            raise UserError(f"{where}: {error if isinstance(error, yaml.YAMLError) else message}") from None
        if undeclared := who_reads(cfg, unknown[1], modules):
            raise UserError(f"{where}: {undeclared}") from None
        close = difflib.get_close_matches(unknown[1].upper(), list(flat_keys(cfg)), n=1)
        hint = f"did you mean {close[0]}?" if close else "no key resembles it"
        raise UserError(f"{where}: there is no config key {unknown[1]}, {hint}") from None
