"""INPUT keys that follow the backbone; the hash and the file of a config."""

from functools import reduce
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from fairclip.backbones.backbone import Options
from fairclip.backbones.makers import pixels_of
from fairclip.core.distributed import is_main
from fairclip.core.errors import require
from fairclip.core.files import atomic
from fairclip.run.results import LATER_KEYS, config_hash

UNSET_SIZE = (224, 224)  # Dassl's default for INPUT.SIZE


def own_settings(cfg: CfgNode) -> CfgNode:
    """The config without the nodes of trainers other than its own."""
    own = cfg.clone()
    own.defrost()
    for node in [key for key in own.TRAINER if key not in ("NAME", cfg.TRAINER.NAME.upper())]:
        del own.TRAINER[node]
    return own


def run_hash(cfg: CfgNode) -> str:
    """Hash of what decides the result: other trainers' nodes do not, and neither do the seed nor the folders. Keys that
    runs of before did not have count from the value on that does something."""
    own = own_settings(cfg)
    for key, nothing in LATER_KEYS.items():
        *nodes, name = key.split(".")
        node = reduce(lambda outer, inner: outer.get(inner, {}), nodes, own)
        if node.get(name) == nothing:
            del node[name]
    return config_hash(own)


def with_backbone_facts(cfg: CfgNode) -> CfgNode:
    """A copy of the config, in which INPUT has the pixel statistics and the interpolation of the backbone.

    They replace Dassl's defaults, which are those of ImageNet classifiers. The same with INPUT.TRANSFORMS: where none
    is given it becomes ("normalize",), and a list that is given stays. INPUT.SIZE is left to the trainer, which learns
    it from the loaded backbone. A copy of a filled config is equal to it.

    Config keys read: MODEL.BACKBONE.NAME, INPUT.PIXEL_MEAN, PIXEL_STD, INTERPOLATION, TRANSFORMS.

    Raises:
        UserError: a value is neither Dassl's default nor the backbone's.
    """
    from dassl.config import get_cfg_default  # here, as launch chooses a Dassl after it has imported this module

    name, unset = cfg.MODEL.BACKBONE.NAME, get_cfg_default().INPUT
    pixels = pixels_of(name)
    facts = {
        "PIXEL_MEAN": list(pixels.mean),
        "PIXEL_STD": list(pixels.std),
        "INTERPOLATION": pixels.interpolation,
    }
    filled, frozen = cfg.clone(), cfg.is_frozen()
    filled.defrost()
    for key, fact in facts.items():
        given = _comparable(cfg.INPUT[key])
        require(
            given in (_comparable(unset[key]), _comparable(fact)),
            f"INPUT.{key} is {cfg.INPUT[key]}, but {name or 'the backbone'} takes {fact}; leave it out: it follows the "
            "backbone",
        )
        filled.INPUT[key] = fact
    if not cfg.INPUT.TRANSFORMS:
        filled.INPUT.TRANSFORMS = ("normalize",)
    if frozen:
        filled.freeze()
    return filled


def _comparable(value: Any) -> Any:
    """YAML makes lists, defaults may be tuples."""
    return tuple(value) if isinstance(value, list) else value


def backbone_options(cfg: CfgNode) -> Options:
    """What a config says of its backbone: MODEL.BACKBONE.HEADS, ACTIVATION, and with RESIZE the side of INPUT.SIZE.

    Raises:
        UserError: a value of another kind.
    """
    node, size = cfg.MODEL.BACKBONE, tuple(cfg.INPUT.SIZE)
    heads = node.get("HEADS", ())
    require(
        isinstance(heads, list | tuple) and len(heads) in (0, 2) and all(type(n) is int and n > 0 for n in heads),
        f"MODEL.BACKBONE.HEADS {heads}: give two numbers, of the image and the text tower, such as '(12, 8)'",
    )
    resize = node.get("RESIZE", False)
    require(not resize or (len(size) == 2 and size[0] == size[1] > 0), f"INPUT.SIZE {size}: with RESIZE it is a square")
    return Options(size[0] if resize else 0, tuple(heads), node.get("ACTIVATION", ""))


def with_input_size(cfg: CfgNode, size: int) -> CfgNode:
    """The config with the backbone's INPUT.SIZE.

    Raises:
        UserError: the config asks for another one.
    """
    given = tuple(cfg.INPUT.SIZE)
    require(
        given in (UNSET_SIZE, (size, size)),
        f"INPUT.SIZE is {given}, but {cfg.MODEL.BACKBONE.NAME} takes {size} x {size} pixels: "
        "leave INPUT.SIZE out, it follows the backbone, or set MODEL.BACKBONE.RESIZE True to adapt the backbone",
    )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.SIZE = (size, size)
    cfg.freeze()
    return cfg


def write_config(cfg: CfgNode, folder: str, whole: bool = False) -> None:
    """config.yaml, by which others read a run's files: not every train.py writes it.

    Args: whole, with the nodes of all trainers, which trainers of others may read.
    """
    if is_main():
        with atomic(Path(folder) / "config.yaml") as path:
            path.write_text((cfg if whole else own_settings(cfg)).dump(), encoding="utf-8")
