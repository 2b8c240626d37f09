"""CLIP's architecture, read off the shapes of a checkpoint's tensors, and the network with those tensors in it."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from fairclip.backbones.network import ACTIVATIONS, CLIP, WIDTH_OF_A_HEAD, Architecture, Stack
from fairclip.core.errors import UserError, few, require
from fairclip.core.log import log

TEXT = ("text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight", "logit_scale")
IMAGES = {
    "a Vision Transformer": ("visual.proj", "visual.conv1.weight", "visual.positional_embedding"),
    "a ResNet": ("visual.attnpool.positional_embedding", "visual.conv1.weight", "visual.layer1.0.conv1.weight"),
}
# In OpenAI's archives these are tensors among the parameters.
FACTS = ("input_resolution", "context_length", "vocab_size")


def build_clip(state: Mapping[str, Tensor], source: str, heads: tuple[int, ...] = (), activation: str = "") -> CLIP:
    """CLIP in float32 with these tensors.

    Args:
        state: a state dict in OpenAI's layout.
        source: the file, for messages.
        heads: of the image tower and of the text tower; (): 64 channels a head, as in all of OpenAI's models.
        activation: a key of ``ACTIVATIONS``; "": OpenAI's.

    Raises:
        UserError: the tensors are not those of a CLIP, or do not tell how many heads it has.
    """
    state = {name: tensor for name, tensor in state.items() if name not in FACTS}
    model = CLIP(architecture_of(state, source, heads, activation))
    expected = model.state_dict()
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    require(not missing, f"{source} is not a whole CLIP checkpoint: it lacks {few(missing)}")
    require(not unknown, f"{source} has tensors that CLIP has no place for: {few(unknown)}")
    for name, tensor in expected.items():
        require(
            state[name].shape == tensor.shape,
            f"{source} does not fit the CLIP architecture: {name} is {_size(state[name])}, "
            f"and {_size(tensor)} is needed",
        )
    model.load_state_dict(state)  # copies, and converts half precision
    return model.eval()


def architecture_of(
    state: Mapping[str, Tensor], source: str, heads: tuple[int, ...] = (), activation: str = ""
) -> Architecture:
    """What the shapes of a state dict say. Arguments and errors as of ``build_clip``."""
    kind = next((name for name, keys in IMAGES.items() if keys[0] in state), None)
    needed = TEXT + (IMAGES[kind] if kind else ())
    if missing := [name for name in needed if name not in state]:
        raise UserError(
            f"{source} is not a CLIP checkpoint in OpenAI's layout: it lacks {few(missing)} "
            f"(it has {few(sorted(state)) or 'no tensors'})"
        )
    require(kind, f"{source} has no image tower that is known: neither {' nor '.join(IMAGES)}")
    require(not heads or len(heads) == 2, f"MODEL.BACKBONE.HEADS {heads}: two numbers, of the image and the text tower")
    activation = activation or "quick_gelu"
    require(
        activation in ACTIVATIONS, f"MODEL.BACKBONE.ACTIVATION '{activation}': choose one of {', '.join(ACTIVATIONS)}"
    )
    try:
        return _architecture(state, source, kind == "a Vision Transformer", heads or (0, 0), activation)
    except (IndexError, ValueError) as error:
        raise UserError(f"{source} does not fit the CLIP architecture: {error}") from error


def is_usual(a: Architecture) -> bool:
    """Whether the shapes of the tensors say all there is to know, as of OpenAI's models."""
    towers = [stack for stack in (a.vision, a.text) if stack]
    return a.activation == "quick_gelu" and all(stack.heads * WIDTH_OF_A_HEAD == stack.width for stack in towers)


def resize_positions(state: Mapping[str, Tensor], side: int, source: str) -> dict[str, Tensor]:
    """The tensors with the image tower's position embeddings interpolated (bicubic) for inputs of ``side`` pixels.

    Raises:
        UserError: the side is no multiple of the patches' (of 32 pixels, for a ResNet).
    """
    vit = "visual.positional_embedding" in state
    name = "visual.positional_embedding" if vit else "visual.attnpool.positional_embedding"
    if name not in state:
        return dict(state)  # no CLIP: whoever builds the network says so
    patch = state["visual.conv1.weight"].shape[-1] if vit else 32
    require(side % patch == 0, f"INPUT.SIZE {side}: {source} takes multiples of {patch} pixels")
    table = state[name].float()
    old, new = _root(len(table) - 1, source), side // patch
    if old == new:
        return dict(state)
    grid = table[1:].t().reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False, antialias=new < old)
    log.info(f"Position embeddings: interpolated from {old} x {old} to {new} x {new}, for {side} pixels a side")
    return {**state, name: torch.cat([table[:1], grid.flatten(2)[0].t()])}


def _architecture(
    state: Mapping[str, Tensor], source: str, vit: bool, heads: tuple[int, ...], activation: str
) -> Architecture:
    conv, (width, features) = state["visual.conv1.weight"], state["text_projection"].shape
    vision: Stack | None = None
    blocks: tuple[int, ...] = ()
    patch = stem = 0
    if vit:
        patch, channels = conv.shape[-1], conv.shape[0]
        side = patch * _root(len(state["visual.positional_embedding"]) - 1, source)
        layers = _count(state, r"visual\.transformer\.resblocks\.(\d+)\.")
        vision = Stack(channels, layers, _heads(channels, heads[0], "image", source))
    else:
        side = 32 * _root(len(state["visual.attnpool.positional_embedding"]) - 1, source)
        stem = state["visual.layer1.0.conv1.weight"].shape[0]
        blocks = tuple(_count(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    text = Stack(width, _count(state, r"transformer\.resblocks\.(\d+)\."), _heads(width, heads[1], "text", source))
    vocabulary, context = len(state["token_embedding.weight"]), len(state["positional_embedding"])
    return Architecture(features, side, vision, patch, blocks, stem, text, context, vocabulary, activation)


def _heads(width: int, told: int, tower: str, source: str) -> int:
    heads = told or width // WIDTH_OF_A_HEAD
    require(
        heads > 0 and width % heads == 0 and (told or width % WIDTH_OF_A_HEAD == 0),
        f"{source}: the {tower} tower is {width} wide, and "
        + (f"{told} heads do not divide that" if told else f"that is no multiple of {WIDTH_OF_A_HEAD}")
        + ": say how many attention heads it has, MODEL.BACKBONE.HEADS '(image tower, text tower)'",
    )
    return heads


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers the parameters' names have in this place."""
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def _root(positions: int, source: str) -> int:
    side = round(positions**0.5)
    require(side > 0 and side**2 == positions, f"{source}: {positions} positions of an image are no square")
    return side


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raises UserError where a tensor holds values that are not finite."""
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    require(not wrong, f"{source} is damaged, or its training went wrong: values in {few(wrong)} are not finite")
