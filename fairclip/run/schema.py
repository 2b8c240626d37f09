"""The config keys that our trainers read, and which values each may have: of Dassl and CoOp, and our own.

What a trainer's own node may have beyond its type, the trainer's ``check_cfg`` says.
"""

import ast
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from yacs.config import CfgNode

from fairclip.core.errors import require

LARGEST = 2**31 - 1  # of a whole number: what torch takes everywhere
RATE = 100.0  # no optimizer learns at a higher rate


@dataclass(frozen=True)
class Rule:
    """What the value of a key may be."""

    kind: type  # bool, int, float, str or tuple
    says: str  # what to give, for messages
    fits: Callable[[Any], bool] = lambda value: True


def whole(least: int = -LARGEST, most: int = LARGEST, says: str = "") -> Rule:
    limits = f"from {least} to {most}" if most < LARGEST else f"from {least} on"
    return Rule(int, says or f"a whole number{'' if least == -LARGEST else f' {limits}'}", lambda n: least <= n <= most)


def number(least: float = -math.inf, most: float = math.inf, above: float = -math.inf) -> Rule:
    """Finite, from ``least`` to ``most`` and above ``above``."""
    words = [f"above {above:g}"] if above > -math.inf else []
    words += [f"from {least:g} on"] if least > -math.inf else []
    words += [f"{most:g} at most"] if most < math.inf else []
    says = f"a number {', '.join(words)}" if words else "a finite number"
    return Rule(float, says, lambda x: math.isfinite(x) and least <= x <= most and x > above)


def choice(*names: str) -> Rule:
    return Rule(str, f"choose one of {', '.join(name or repr(name) for name in names)}", lambda name: name in names)


def several(kind: type | tuple[type, ...], says: str, count: int | None = None, least: int = 0) -> Rule:
    def fits(values: tuple) -> bool:
        right = all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
        return right and count in (None, len(values)) and len(values) >= least

    return Rule(tuple, says, fits)


FLAG = Rule(bool, "True or False")
TEXT = Rule(str, "a text")
WORDS = several(str, "texts in brackets, such as \"('one', 'two')\"")
CHANNELS = several((int, float), "three numbers in brackets, such as '(0.5, 0.5, 0.5)'", 3)
SHARE = number(0, 1)
BELOW_ONE = Rule(float, "a number from 0 on and below 1", lambda x: 0 <= x < 1)

KEYS: dict[str, Rule] = {
    "OUTPUT_DIR": Rule(str, "give the folder of the run, --output-dir FOLDER", bool),
    "RESUME": TEXT,
    "SEED": whole(-1, 2**32 - 1, "a whole number from 0 to 4294967295, or -1: drawn anew each time"),
    "USE_CUDA": FLAG,
    "DEVICE": TEXT,
    "INPUT.SIZE": several(int, "height and width in brackets, such as '(224, 224)'", 2),
    "INPUT.TRANSFORMS": WORDS,
    "INPUT.NO_TRANSFORM": FLAG,
    "INPUT.PIXEL_MEAN": CHANNELS,
    "INPUT.PIXEL_STD": CHANNELS,
    "INPUT.CROP_PADDING": whole(0),
    "INPUT.RRCROP_SCALE": Rule(
        tuple,
        "two shares in brackets, the smaller first, such as '(0.08, 1.0)'",
        lambda pair: len(pair) == 2 and all(type(x) in (int, float) for x in pair) and 0 < pair[0] <= pair[1] <= 1,
    ),
    "INPUT.CUTOUT_N": whole(1),
    "INPUT.CUTOUT_LEN": whole(1),
    "INPUT.GN_STD": number(0),
    "INPUT.RANDAUGMENT_N": whole(1),
    "INPUT.RANDAUGMENT_M": whole(0, 30),
    "INPUT.COLORJITTER_B": number(0),
    "INPUT.COLORJITTER_C": number(0),
    "INPUT.COLORJITTER_S": number(0),
    "INPUT.COLORJITTER_H": number(0, 0.5),
    "INPUT.RGS_P": SHARE,
    "INPUT.GB_P": SHARE,
    "INPUT.GB_K": whole(1),
    "DATASET.ROOT": TEXT,
    "DATASET.NAME": TEXT,
    "DATASET.NUM_SHOTS": whole(-1, says="a number of images of each class, or -1: all"),
    "DATASET.SUBSAMPLE_CLASSES": choice("all", "base", "new"),
    "DATASET.SPLIT": choice("", "zhou", "official"),
    "DATASET.STRICT": FLAG,
    "DATASET.SKIP_CORRUPT": FLAG,
    "DATASET.DOWNLOAD": FLAG,
    "DATASET.CHECK_IMAGES": FLAG,
    "DATALOADER.NUM_WORKERS": whole(0),
    "DATALOADER.K_TRANSFORMS": whole(1),
    "DATALOADER.TRAIN_X.BATCH_SIZE": whole(1),
    "DATALOADER.TRAIN_X.SAMPLER": TEXT,
    "DATALOADER.TEST.BATCH_SIZE": whole(1),
    "DATALOADER.VIEWS": choice("auto", "worker", "device"),
    "DATALOADER.CACHE": choice("none", "ram", "disk"),
    "DATALOADER.CACHE_GB": number(above=0),
    "MODEL.BACKBONE.NAME": TEXT,
    "MODEL.BACKBONE.HEADS": several(int, "two whole numbers in brackets, such as '(12, 8)'"),
    "MODEL.BACKBONE.ACTIVATION": choice("", "gelu", "quick_gelu"),
    "MODEL.BACKBONE.RESIZE": FLAG,
    "MODEL.COMPILE": FLAG,
    "OPTIM.NAME": choice("adam", "amsgrad", "adamw", "radam", "sgd", "rmsprop"),
    "OPTIM.LR": number(most=RATE, above=0),
    "OPTIM.WEIGHT_DECAY": number(0),
    "OPTIM.MOMENTUM": number(0),
    "OPTIM.SGD_DAMPNING": number(0),
    "OPTIM.SGD_NESTEROV": FLAG,
    "OPTIM.RMSPROP_ALPHA": BELOW_ONE,
    "OPTIM.ADAM_BETA1": BELOW_ONE,
    "OPTIM.ADAM_BETA2": BELOW_ONE,
    "OPTIM.LR_SCHEDULER": choice("single_step", "multi_step", "cosine"),
    "OPTIM.STEPSIZE": several(int, "whole numbers in brackets, such as '(20,)'", least=1),
    "OPTIM.GAMMA": number(above=0),
    "OPTIM.MAX_EPOCH": whole(1),
    "OPTIM.WARMUP_EPOCH": whole(-1),
    "OPTIM.WARMUP_TYPE": choice("linear", "constant"),
    "OPTIM.WARMUP_CONS_LR": number(0, RATE),
    "OPTIM.WARMUP_MIN_LR": number(0, RATE),
    "OPTIM.WARMUP_RECOUNT": FLAG,
    "TRAIN.CHECKPOINT_FREQ": whole(-1),  # 0 and less, as some checkouts have it: none but the newest
    "TRAIN.PRINT_FREQ": whole(1, says="it counts batches, from 1 on"),
    "TRAIN.CHUNK": whole(0, says="a number of images is not negative, 0 sets no limit"),
    "TRAIN.MICRO_BATCH": whole(0, says="a number of images is not negative, 0 sets no limit"),
    "TRAIN.AUTO_CHUNK": FLAG,
    "TEST.EVALUATOR": TEXT,
    "TEST.NO_TEST": FLAG,
    "TEST.SPLIT": Rule(str, "choose test or val", lambda name: name in ("test", "val")),
    "TEST.EVERY_EPOCH": FLAG,
    "TEST.PROTOCOLS": FLAG,
    "TRAINER.*.PREC": Rule(str, "PREC is one of auto, fp32, amp, bf16", ("auto", "fp32", "amp", "bf16").__contains__),
    "TRAINER.*.TEMPLATES": WORDS,
    "TRAINER.*.TEXTS": choice("names", "descriptions"),
    "TRAINER.*.LABELLERS": WORDS,
    "TRAINER.*.FAIRNESS": number(0),
    "TRAINER.*.LR_MIN": number(0, RATE),
    "TRAINER.*.TEXT_LR": number(0, RATE),
    "TRAINER.*.EMA_STEPS": whole(1),
    "TRAINER.*.LABEL_MEMORY": number(),
    "TRAINER.*.ALIGN": number(0),
}
BY_DEFAULT: dict[type, Rule] = {
    bool: FLAG,
    int: whole(),
    float: number(),
    str: TEXT,
    tuple: Rule(tuple, "values in brackets, such as '(1, 2)'"),
    list: Rule(tuple, "values in brackets, such as '(1, 2)'"),
}


def rule_of(key: str, default: object) -> Rule | None:
    """That of a key, which for those that are not in ``KEYS`` follows from the default value's type."""
    if key.startswith("TRAINER.") and key.count(".") == 2:
        key = f"TRAINER.*.{key.rpartition('.')[2]}"
    return KEYS.get(key) or BY_DEFAULT.get(type(default))


def fitting(key: str, value: Any, default: object) -> Any:
    """A value as a file or the command line has it -> as the config keeps it: a text may stand for what it spells, a
    whole number for a float, a number for a text.

    Raises:
        UserError: the key cannot have this value.
    """
    rule = rule_of(key, default)
    if rule is None:
        return value
    if isinstance(value, str):
        spelt = literal(value)
        value = spelt if isinstance(spelt, str) or rule.kind is not str else value
    if rule.kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if rule.kind is str and type(value) in (int, float):
        value = str(value)
    if rule.kind is tuple and isinstance(value, list | tuple):
        value = type(default)(value) if isinstance(default, list | tuple) else tuple(value)
    check_value(key, value, rule)
    # Dassl has some defaults as whole numbers, and what says the same keeps the same hash.
    return default if type(default) is int and value == default else value


def literal(text: str) -> Any:
    """What a text spells in Python: a number, True, brackets, a quoted text; else the text itself, as yacs has it."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text


def check_value(key: str, value: Any, rule: Rule) -> None:
    kind = {tuple: (list, tuple), float: (int, float)}.get(rule.kind, rule.kind)
    right = isinstance(value, kind) and (rule.kind is bool or not isinstance(value, bool))
    shown = repr(value) if len(repr(value)) <= 100 else f"{repr(value)[:100]}..."
    require(type(value) is not int or abs(value) < 2**53, f"{key} {shown}: the number is too large")
    require(right and rule.fits(value), f"{key} {shown}: {rule.says}")
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, str):
            require("\0" not in text, f"{key} {shown}: a text without NUL characters")
            unknown = text.startswith("~") and os.path.expanduser(text) == text
            require(not unknown, f"{key} {shown}: there is no user {text.split('/')[0][1:]!r}")


def check_values(cfg: CfgNode) -> None:
    """Raises UserError for a value of ``KEYS`` that cannot work, and for one of the trainer's own node."""
    own = f"TRAINER.{cfg.TRAINER.NAME.upper()}"
    for name, rule in KEYS.items():
        *nodes, key = name.replace("TRAINER.*", own).split(".")
        node = reduce(lambda outer, inner: outer.get(inner, {}) if isinstance(outer, Mapping) else {}, nodes, cfg)
        if isinstance(node, Mapping) and key in node:
            check_value(".".join([*nodes, key]), node[key], rule)
