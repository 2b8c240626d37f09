"""From a command line to a frozen config, in CoOp's order: defaults, data set file, trainer file, flags, then pairs."""

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from types import ModuleType
from typing import Any

from yacs.config import CfgNode

from fairclip.core.errors import UserError, require
from fairclip.core.places import find_file
from fairclip.run.foreign import who_reads
from fairclip.run.schema import check_values, fitting
from fairclip.run.settings import with_backbone_facts
from fairclip.run.unread import check_given
from fairclip.run.yaml_file import read_yaml

COMMAND_LINE = "the command line"


def build_cfg(args: argparse.Namespace, modules: Sequence[ModuleType]) -> CfgNode:
    """The config of a run.

    For a trainer on our base all values are checked here, and a key that is given must be one that it reads. Trainers
    of others have what their Dassl takes.

    Args:
        args: the flags of `fair train`.
        modules: the plugins, whose ``extend_cfg`` declares keys.

    Raises:
        UserError: a file that is not there, or a key or value that does not fit.
    """
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    extend_cfg(cfg, modules)
    files = [(path, read_yaml(path)) for path in map(find_file, filter(None, file_names(args)))]
    pairs, flags = key_value_pairs(args.opts), flag_values(args)
    if not is_ours(trainer_name([settings for _, settings in files], flags, pairs)):
        for path, settings in files:
            merge(cfg, settings, path, modules)
        apply_flags(cfg, args)
        merge(cfg, list(args.opts), COMMAND_LINE, modules)
        cfg.freeze()
        return cfg
    before, given = cfg.clone(), list[str]()
    for path, settings in files:
        given += take(cfg, settings, path, modules)
    for key, value in [*flags.items(), *pairs]:
        given += take(cfg, nested(key, value), COMMAND_LINE, modules)
    check_values(cfg)
    check_given(cfg, before, given, modules)
    cfg.freeze()
    return with_backbone_facts(cfg)


def file_names(args: argparse.Namespace) -> tuple[str, str]:
    return args.dataset_config_file, args.config_file


def key_value_pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """The settings at the end of the command line. Raises UserError for what does not come in pairs."""
    odd = next((word for word in words[::2] if "" in word.split(".")), None)
    require(odd is None, f"{COMMAND_LINE}: {odd!r} is no config key: keys are words with dots between them")
    flag = next((word for word in words if word.startswith("--")), "")
    require(not flag, f"{COMMAND_LINE}: {flag} stands behind the first KEY VALUE pair: put flags before the pairs")
    require(
        len(words) % 2 == 0, f"{COMMAND_LINE}: settings are pairs KEY VALUE, and {words[-1] if words else ''} is alone"
    )
    return list(zip(words[::2], words[1::2], strict=True))


def trainer_name(files: Sequence[dict[str, Any]], flags: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> str:
    """The trainer that a run will have, before anything is merged; "" if none is given."""
    nodes = [settings.get("TRAINER") for settings in files]
    names = [node.get("NAME") for node in nodes if isinstance(node, dict)]
    names += [flags.get("TRAINER.NAME"), *(value for key, value in pairs if key == "TRAINER.NAME")]
    return str([None, *(name for name in names if name is not None)][-1] or "")


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
    cfg.TEST.PROTOCOLS = False  # transductive and stream methods: also test on batches with few classes, and streams
    # Where views are cut: auto (device on a GPU, worker on a CPU, the faster on each) | worker | device
    cfg.DATALOADER.VIEWS = "auto"
    cfg.DATALOADER.CACHE = "none"  # where decoded training images are kept: none | ram | disk
    cfg.DATALOADER.CACHE_GB = 16.0  # limit of the store, 10^9 bytes
    for module in modules:
        if hasattr(module, "extend_cfg"):
            module.extend_cfg(cfg)


def flag_values(args: argparse.Namespace) -> dict[str, Any]:
    """The config keys that the flags set."""
    values = {
        "DATASET.ROOT": args.root or None,
        "OUTPUT_DIR": args.output_dir,
        "RESUME": args.resume or None,
        "SEED": None if args.seed == -1 else args.seed,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms,
        "TRAINER.NAME": args.trainer or None,
        "MODEL.BACKBONE.NAME": args.backbone or None,
        "MODEL.HEAD.NAME": args.head or None,
        "DEVICE": args.device or None,
        "DATASET.DOWNLOAD": False if args.no_download else None,
        "DATASET.CHECK_IMAGES": True if args.check_images else None,
    }
    return {key: value for key, value in values.items() if value is not None}


def apply_flags(cfg: CfgNode, args: argparse.Namespace) -> None:
    for key, value in flag_values(args).items():
        *nodes, name = key.split(".")
        reduce(CfgNode.__getitem__, nodes, cfg)[name] = value


def flat_keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from flat_keys(value, f"{prefix}{key}.")


def nested(key: str, value: Any) -> dict[str, Any]:
    """ "OPTIM.LR", 1 -> {"OPTIM": {"LR": 1}}."""
    return reduce(lambda inner, name: {name: inner}, reversed(key.split(".")), value)


def take(
    cfg: CfgNode, settings: Mapping[str, Any], where: str, modules: Sequence[ModuleType], path: tuple[str, ...] = ()
) -> list[str]:
    """Put settings into a config, each value as its key's rule has it. Returns the keys, dotted.

    Args: path, of the node that the settings are for; the whole config's is ().

    Raises:
        UserError: as ``merge``, or a value that the key cannot have.
    """
    node, keys = reduce(CfgNode.__getitem__, path, cfg), list[str]()
    for name, value in settings.items():
        inner = (*path, name)
        key = ".".join(inner)
        require("." not in name, f"{where}: {key} is written as {name.rpartition('.')[2]}, below its group")
        if name not in node and not node.is_new_allowed():
            raise UserError(f"{where}: {unknown_key(cfg, key, modules)}")
        if isinstance(node.get(name), CfgNode):
            if value is None:  # a group of which all lines are comments
                continue
            require(isinstance(value, Mapping), f"{where}: {key} is a group of keys, such as {key}.{[*node[name]][0]}")
            keys += take(cfg, value, where, modules, inner)
            continue
        if isinstance(value, Mapping) and name in node:
            raise UserError(f"{where}: {unknown_key(cfg, '.'.join([key, *map(str, [*value][:1])]), modules)}")
        try:
            node[name] = fitting(key, value, node.get(name))
        except UserError as error:
            raise error if where == COMMAND_LINE else UserError(f"{where}: {error}") from None
        keys.append(key)
    return keys


def merge(cfg: CfgNode, source: Mapping[str, Any] | list[str], where: str, modules: Sequence[ModuleType]) -> None:
    """Merge settings of a file or KEY VALUE pairs as Dassl does.

    Raises:
        UserError: what does not fit, naming the closest key, or the plugin that reads this one without declaring it.
    """
    try:
        if isinstance(source, list):
            cfg.merge_from_list(source)
        else:
            cfg.merge_from_other_cfg(CfgNode(source))
    except (KeyError, ValueError, AssertionError, AttributeError, TypeError, RecursionError, MemoryError) as error:
        message = str(error.args[0] if error.args else error)
        unknown = re.match(r"Non-existent (?:config )?key: (\S+)", message)
        raise UserError(f"{where}: {unknown_key(cfg, unknown[1], modules) if unknown else message}") from None


def unknown_key(cfg: CfgNode, key: str, modules: Sequence[ModuleType]) -> str:
    """That there is no such key, with the closest one, or the plugin that reads this one without declaring it."""
    above = key.rpartition(".")[0]
    if above and above in (known := [*flat_keys(cfg)]) and not any(each.startswith(f"{above}.") for each in known):
        return f"there is no config key {key}, as {above} has a value itself"
    if undeclared := who_reads(cfg, key, modules):
        return undeclared
    known = list(flat_keys(cfg))
    close = difflib.get_close_matches(key.upper(), known, n=1)
    return f"there is no config key {key}, " + (f"did you mean {close[0]}?" if close else "no key resembles it")
