"""Train or evaluate a trainer on a data set: CoOp's command line, on upstream Dassl or the bundled core; under torchrun
in several processes.

    fair train --root data --output-dir output/first --seed 1 --trainer FAIR \\
        --dataset-config-file configs/datasets/synth_cars.yaml --config-file configs/trainers/FAIR/tiny.yaml

Settings are merged in CoOp's order: defaults, data set file, trainer file, flags, then `KEY VALUE` pairs.
"""

import argparse
import difflib
import secrets
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from yacs.config import CfgNode

from fairclip.backbones.openai import share_with_clip
from fairclip.core.distributed import from_main, is_main, processes, world
from fairclip.core.errors import UserError, require
from fairclip.core.lock import locked
from fairclip.core.log import core_as_details, details, log, recorded
from fairclip.core.plugins import import_plugins
from fairclip.core.toolbox import use_dassl
from fairclip.run.foreign import another_clip, what_it_lacks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", default="", help="folder that holds the data sets")
    parser.add_argument("--output-dir", help="folder of this run")
    parser.add_argument("--resume", default="", help="folder of a run to go on from (default: --output-dir)")
    parser.add_argument(
        "--resume-from",
        default="",
        metavar="RUN",
        help="folder of a finished run: a new run goes on from its last epoch, with a larger OPTIM.MAX_EPOCH",
    )
    parser.add_argument(
        "--seed", type=int, default=-1, help="0 and above fix all random generators (default: drawn, and said)"
    )
    parser.add_argument("--source-domains", nargs="+", help="source domains (domain adaptation and generalisation)")
    parser.add_argument("--target-domains", nargs="+", help="target domains (domain adaptation and generalisation)")
    parser.add_argument("--transforms", nargs="+", help="data augmentations")
    parser.add_argument("--config-file", default="", help="YAML file of the trainer")
    parser.add_argument("--dataset-config-file", default="", help="YAML file of the data set")
    parser.add_argument("--trainer", default="", help="name of the trainer")
    parser.add_argument("--backbone", default="", help="name of the backbone")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 or mps (default: a CUDA GPU if there is one)")
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
    broken = "; ".join(f"{module} failed to import: {another_clip(error) or error}" for module, error in failed.items())
    raise UserError(
        (f"there is no {kind} {name!r}" if name else f"no {kind} is given.")
        + (f", did you mean {close[0]!r}?" if close else "")
        + f" Known: {', '.join(sorted(known))}."
        + (f" Note: {broken}." if broken else "")
    )


# -- The run -----------------------------------------------------------------------------------------------------------


def check_many_processes(trainer: type) -> None:
    """Trainers of others know of one process: many would each train on everything, and write the same files."""
    from fairclip.run.base import AdaptationTrainer

    if world() > 1 and not issubclass(trainer, AdaptationTrainer):
        raise UserError(f"{trainer.__name__} runs in one process: start train.py by python, not by torchrun")


def run(args: argparse.Namespace) -> None:
    origin = use_dassl(announce=False)
    share_with_clip()
    modules, failed = import_plugins("trainers", "datasets")

    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY

    from fairclip.run.config import build_cfg
    from fairclip.run.extend import extended
    from fairclip.run.finished import already_finished

    if args.trainer:  # first: the keys of a file that failed to import would be missing, too
        check_registered("trainer", args.trainer, TRAINER_REGISTRY.registered_names(), failed)
    cfg = build_cfg(args, modules)
    check_registered("trainer", cfg.TRAINER.NAME, TRAINER_REGISTRY.registered_names(), failed)
    check_registered("data set", cfg.DATASET.NAME, DATASET_REGISTRY.registered_names(), failed)
    check_many_processes(TRAINER_REGISTRY.get(cfg.TRAINER.NAME))
    training = not (args.eval_only or args.no_train)
    require(training or not args.resume_from, "--resume-from trains: leave out --eval-only and --no-train")
    cfg = extended(cfg, args.resume_from)
    check_places(cfg)
    if training and already_finished(cfg):
        return
    with locked(cfg.OUTPUT_DIR) if is_main() else nullcontext():
        if training and already_finished(cfg):  # by another run, just now
            return
        recorded_run(args, cfg, training, origin)


def check_places(cfg: CfgNode) -> None:
    """For trainers of others too: what would write elsewhere than meant, or fail far from its cause."""
    require(cfg.OUTPUT_DIR, "OUTPUT_DIR is empty: give the folder of the run, --output-dir FOLDER")
    root = Path(cfg.DATASET.ROOT).expanduser().absolute()
    far = not root.parent.is_dir() or root.parent == Path(root.anchor)
    require(
        root.is_dir() or not cfg.DATASET.ROOT or not far,
        f"there is no folder {cfg.DATASET.ROOT} (--root, DATASET.ROOT): it should be the one that holds all data sets",
    )
    require(cfg.SEED < 2**32, f"SEED {cfg.SEED}: a whole number from 0 to {2**32 - 1}, or -1: drawn anew each time")


def recorded_run(args: argparse.Namespace, cfg: CfgNode, training: bool, origin: str) -> None:
    """The run itself, with all that it says in log.txt."""
    from dassl.utils import collect_env_info

    from fairclip.run.config import is_ours

    prepare(cfg.SEED)
    with recorded(Path(cfg.OUTPUT_DIR) / "log.txt") if is_main() else nullcontext():
        flags = [f"{name}: {value}" for name, value in sorted(vars(args).items()) if name != "main"]
        details.info("\n".join(["** Arguments **", *flags, "", "** System **", f"Dassl: {origin}"]))
        details.info(collect_env_info())
        if cfg.SEED < 0 and not is_ours(cfg.TRAINER.NAME):  # ours draw one, and say it
            log.info("No seed is given (--seed), so nothing random is fixed, as in the train.py of CoOp")
        try:
            build_and_run(args, cfg, training)
        except Exception as error:  # the command says it on the screen
            details.info(f"Error: {error}" if isinstance(error, UserError) else traceback.format_exc())
            if not is_ours(cfg.TRAINER.NAME) and (lack := what_it_lacks(error, cfg)):
                raise UserError(f"trainer {cfg.TRAINER.NAME}: {lack}") from error
            raise


def prepare(seed: int) -> None:
    """Seeds, and the choice of convolutions."""
    from dassl.utils import set_random_seed

    if seed >= 0:
        set_random_seed(seed)
    elif world() > 1:  # all draw the same images
        set_random_seed(from_main(secrets.randbits(31)))
    # The fastest convolution may differ from run to run: a fixed seed asks for the same one.
    torch.backends.cudnn.benchmark = seed < 0
    torch.backends.cudnn.deterministic = seed >= 0


def build_and_run(args: argparse.Namespace, cfg: CfgNode, training: bool) -> None:
    from dassl.engine import build_trainer

    from fairclip.run.config import is_ours
    from fairclip.run.settings import own_settings, write_config

    ours = is_ours(cfg.TRAINER.NAME)
    with core_as_details() if ours else nullcontext():
        trainer = build_trainer(cfg)
    details.info(f"** Config **\n{own_settings(trainer.cfg) if ours else trainer.cfg}")
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
        trainer.test() if not ours or trainer.has_labels(trainer.cfg.TEST.SPLIT) else trainer.only_predict()
    elif training:
        if not ours:  # ours write it themselves
            write_config(trainer.cfg, cfg.OUTPUT_DIR, whole=True)
        trainer.train()


def main(args: argparse.Namespace) -> None:
    with processes():
        run(args)
