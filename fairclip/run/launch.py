"""Train or evaluate a trainer on a data set: CoOp's command line, on upstream Dassl or the bundled core; under torchrun
in several processes.

Settings are merged in CoOp's order: defaults, data set file, trainer file, flags, then `KEY VALUE` pairs.
"""

import argparse
import difflib
import re
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import torch
import yaml
from yacs.config import CfgNode

from fairclip.backbones.openai import share_with_clip
from fairclip.core.distributed import from_main, is_main, launched, processes, world
from fairclip.core.download import checksum_of
from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.core.places import find_file
from fairclip.core.plugins import import_plugins
from fairclip.core.toolbox import use_dassl
from fairclip.run.results import read_results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", default="", help="folder that holds the data sets")
    parser.add_argument("--output-dir", default="", help="folder of this run")
    parser.add_argument("--resume", default="", help="folder of a run to go on from (default: --output-dir)")
    parser.add_argument("--seed", type=int, default=-1, help="0 and above fix all random generators")
    parser.add_argument("--source-domains", nargs="+", help="source domains (domain adaptation and generalisation)")
    parser.add_argument("--target-domains", nargs="+", help="target domains (domain adaptation and generalisation)")
    parser.add_argument("--transforms", nargs="+", help="data augmentations")
    parser.add_argument("--config-file", default="", help="YAML file of the trainer")
    parser.add_argument("--dataset-config-file", default="", help="YAML file of the data set")
    parser.add_argument("--trainer", default="", help="name of the trainer")
    parser.add_argument("--backbone", default="", help="name of the backbone")
    parser.add_argument("--head", default="", help="name of the head")
    parser.add_argument("--eval-only", action="store_true", help="evaluate a trained model, train nothing")
    parser.add_argument("--model-dir", default="", help="with --eval-only: the run whose model to load")
    parser.add_argument("--load-epoch", type=int, help="with --eval-only: the epoch to load (default: the newest)")
    parser.add_argument("--no-train", action="store_true", help="build everything, train nothing")
    parser.add_argument("--no-download", action="store_true", help="do not fetch a split file that is missing")
    parser.add_argument("--check-images", action="store_true", help="decode all images, though they were found whole")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="settings as KEY VALUE pairs")


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    """For those who build a trainer without running it."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(argv)


def check_registered(kind: str, name: str, known: Sequence[str], failed: dict[str, Exception]) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    broken = "; ".join(f"{module} failed to import ({error})" for module, error in failed.items())
    raise UserError(
        (f"there is no {kind} {name!r}" if name else f"no {kind} is given")
        + (f", did you mean {close[0]!r}?" if close else "")
        + f" Known: {', '.join(sorted(known))}."
        + (f" Note: {broken}." if broken else "")
    )


# -- Config ------------------------------------------------------------------------------------------------------------


def extend_cfg(cfg: CfgNode, modules: Sequence[ModuleType]) -> None:
    """Add the defaults that plugins declare, and those that CoOp's trainers expect."""
    from fairclip.data.common import extend_cfg as extend_for_data

    extend_for_data(cfg)
    cfg.TRAINER.COOP = CfgNode(
        {"N_CTX": 16, "CSC": False, "CTX_INIT": "", "PREC": "fp16", "CLASS_TOKEN_POSITION": "end"}
    )
    cfg.TRAINER.COCOOP = CfgNode({"N_CTX": 16, "CTX_INIT": "", "PREC": "fp16"})
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"  # all | base | new
    # How much goes through the image tower at once, for our trainers: docs/memory.md. It changes nothing but rounding.
    cfg.TRAIN.CHUNK = 0  # images of a pass without gradients; 0: chosen from a GPU's free memory
    cfg.TRAIN.MICRO_BATCH = 0  # images of a pass with gradients; 0: the batch
    cfg.TRAIN.AUTO_CHUNK = False  # where memory runs out, halve these and do the step again
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
    if args.no_download:
        cfg.DATASET.DOWNLOAD = False
    if args.check_images:
        cfg.DATASET.CHECK_IMAGES = True


def flat_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from flat_keys(value, f"{prefix}{key}.")


def merge(cfg: CfgNode, source: str | list[str]) -> None:
    """Merge a YAML file or KEY VALUE pairs. Raises UserError for what does not fit, naming the closest key."""
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
        close = difflib.get_close_matches(unknown[1].upper(), list(flat_keys(cfg)), n=1)
        hint = f"did you mean {close[0]}?" if close else "no key resembles it"
        raise UserError(f"{where}: there is no config key {unknown[1]}, {hint}") from None


def build_cfg(args: argparse.Namespace, modules: Sequence[ModuleType]) -> CfgNode:
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    extend_cfg(cfg, modules)
    for path in (args.dataset_config_file, args.config_file):
        if path:
            merge(cfg, find_file(path))
    apply_flags(cfg, args)
    merge(cfg, args.opts)
    cfg.freeze()
    return cfg


# -- The run -----------------------------------------------------------------------------------------------------------


def check_many_processes(trainer: type) -> None:
    """Trainers of others know of one process: many would each train on everything, and write the same files."""
    from fairclip.run.base import AdaptationTrainer

    if world() > 1 and not issubclass(trainer, AdaptationTrainer):
        raise UserError(f"{trainer.__name__} runs in one process: start train.py by python, not by torchrun")


def already_finished(cfg: CfgNode) -> bool:
    """Whether OUTPUT_DIR holds this very run's results. Raises UserError if it holds another's."""
    from fairclip.run.base import run_hash

    results = read_results(cfg.OUTPUT_DIR)
    if results is None:
        return False
    this = {"config_hash": run_hash(cfg)} | ({"seed": cfg.SEED} if cfg.SEED >= 0 else {})
    other = [f"{key} {results.get(key)} (now {value})" for key, value in this.items() if results.get(key) != value]
    used = results.get("descriptions")
    if used and Path(used["file"]).is_file():  # a run that was moved may have left the file behind
        now = checksum_of(used["file"])
        if now != used["sha256"]:
            other.append(f"other descriptions (SHA-256 of {used['file']} {used['sha256'][:12]}, now {now[:12]})")
    if other:
        raise UserError(
            f"{cfg.OUTPUT_DIR} holds a finished run with {' and '.join(other)}: choose another --output-dir (the "
            "scripts: TAG or OUTPUT), or remove that folder"
        )
    print(f"{cfg.OUTPUT_DIR}: finished already, accuracy {results['accuracy']:.2f} (remove the folder to run it again)")
    return True


def run(args: argparse.Namespace) -> None:
    use_dassl()
    share_with_clip()
    modules, failed = import_plugins("trainers", "datasets")

    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY, build_trainer
    from dassl.utils import collect_env_info, set_random_seed, setup_logger

    cfg = build_cfg(args, modules)
    check_registered("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY.registered_names(), failed)
    check_registered("data set", cfg.DATASET.NAME, DATASET_REGISTRY.registered_names(), failed)
    check_many_processes(TRAINER_REGISTRY.get(cfg.TRAINER.NAME))
    training = not (args.eval_only or args.no_train)
    if training and already_finished(cfg):
        return
    if cfg.SEED >= 0:
        print(f"Setting fixed seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    elif world() > 1:  # all draw the same images
        set_random_seed(from_main(secrets.randbits(31)))
    if is_main():
        setup_logger(cfg.OUTPUT_DIR)
    # The fastest convolution may differ from run to run: a fixed seed asks for the same one.
    torch.backends.cudnn.benchmark = cfg.SEED < 0
    torch.backends.cudnn.deterministic = cfg.SEED >= 0
    print("***************", "** Arguments **", "***************", sep="\n")
    for name, value in sorted(vars(args).items()):
        print(f"{name}: {value}")
    print("************", "** Config **", "************", cfg, sep="\n")
    print("Collecting env info ...", f"** System info **\n{collect_env_info()}\n", sep="\n")

    trainer = build_trainer(cfg)
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test()
    elif training:
        if is_main():
            with atomic(Path(cfg.OUTPUT_DIR) / "config.yaml") as path:
                path.write_text(trainer.cfg.dump(), encoding="utf-8")
        trainer.train()


def main(args: argparse.Namespace) -> int:
    """Returns the exit status: 0, or 130 if stopped."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what is held in memory is given back
    try:
        with processes():
            run(args)
    except KeyboardInterrupt:
        if not launched():  # torchrun says so itself, and stops the others too where one has failed
            print("\nStopped. The same command goes on from the last finished epoch, if there is one.", file=sys.stderr)
        return 130
    return 0
