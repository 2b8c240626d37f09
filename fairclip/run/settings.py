"""Settings that follow from others, so that config files need not state them."""

from typing import Any

from yacs.config import CfgNode

from fairclip.backbones.pixels import pixels_of
from fairclip.core.errors import require


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
