"""Backbones by name: of OpenAI's layout, of open_clip, and encoders of one's own that a file in trainers/ registers.

    @register_backbone("two_towers", Pixels(mean, std, "bicubic"))
    def two_towers() -> Backbone: ...

docs/backbones.md has a whole example.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from fairclip.backbones import open_clip_models, openai
from fairclip.backbones.backbone import NO_OPTIONS, Backbone, Options
from fairclip.backbones.pixels import Pixels
from fairclip.core.errors import require
from fairclip.core.plugins import import_plugins
from fairclip.core.toolbox import use_dassl

# -- Encoders of one's own ---------------------------------------------------------------------------------------------

Maker = Callable[[], Backbone]
MAKERS: dict[str, tuple[Pixels, Maker]] = {}


def register_backbone(name: str, pixels: Pixels) -> Callable[[Maker], Maker]:
    """Decorator: the function makes the backbone of this name, on the CPU.

    Args:
        pixels: what it expects of images. It stands here, since a config is filled before anything is loaded.

    Raises:
        UserError: the name is taken.
    """

    def register(maker: Maker) -> Maker:
        known = MAKERS.get(name)
        require(known is None or _same_place(known[1], maker), f"there are two backbones of the name '{name}'")
        MAKERS[name] = pixels, maker
        return maker

    return register


def _same_place(one: Maker, other: Maker) -> bool:
    """Whether a file was imported again."""
    return one.__code__.co_filename == other.__code__.co_filename


# -- By name -----------------------------------------------------------------------------------------------------------


def load_backbone(name: str, device: str | torch.device = "cpu", options: Options = NO_OPTIONS) -> Backbone:
    """The backbone that MODEL.BACKBONE.NAME names.

    Args:
        name: of OpenAI's (`ViT-B/32`), of one that comes with the project (`tiny`), a file or folder of weights,
            `open_clip:NAME/TAG`, `open_clip:NAME/FILE`, `hf-hub:ORGANISATION/NAME`, `local-dir:FOLDER`, or the name of
            a maker in trainers/.
        options: what is told about it.

    Raises:
        UnknownBackbone: there is none of this name.
        UserError: it cannot be loaded; options that it does not take.
    """
    _, make = _find(name)
    backbone = make(options)
    for tower in (backbone.visual, backbone.text):
        tower.to(device).eval()
    return replace(backbone, name=name, options=options)


def pixels_of(name: str) -> Pixels:
    """What the backbone of this name expects; no weights are loaded.

    Raises:
        UnknownBackbone, UserError: as for ``load_backbone``.
    """
    return _find(name)[0]()


def is_openai(name: str) -> bool:
    """Whether a name stands for OpenAI's layout, whose inner modules some methods need; nothing is loaded."""
    return not open_clip_models.is_name(name) and name not in MAKERS


def _find(name: str) -> tuple[Callable[[], Pixels], Callable[[Options], Backbone]]:
    """How to get the pixels and the backbone of this name."""
    if open_clip_models.is_name(name):
        return partial(open_clip_models.pixels_of, name), partial(open_clip_models.make, name)
    if name not in MAKERS and not openai.is_known(name):
        use_dassl(announce=False)  # the files of trainers/ import it
        import_plugins("trainers")
    if name in MAKERS:
        pixels, maker = MAKERS[name]
        return lambda: pixels, partial(_make_own, maker, pixels)
    return lambda: openai.PIXELS, partial(openai.make, name)


def _make_own(maker: Maker, pixels: Pixels, options: Options) -> Backbone:
    require(
        options == NO_OPTIONS, "MODEL.BACKBONE.HEADS, ACTIVATION and RESIZE are for CLIPs of OpenAI's and open_clip"
    )
    return replace(maker(), pixels=pixels)
