"""Transformers' CLIPModel: its names for the parameters of CLIP, and OpenAI's; from one to the other."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fairclip.backbones.network import Architecture
from fairclip.core.errors import UserError, few

# Theirs -> OpenAI's, by tower; "" behind a name stands for .weight and .bias.
IMAGE = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm": "ln_pre",  # so spelled there
    "post_layernorm": "ln_post",
}
TEXT = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}
LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
THEIRS = {ours: theirs for theirs, ours in LAYER.items()}
TOWERS = {"vision_model": ("visual.", IMAGE), "text_model": ("", TEXT)}
PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}


def is_hugging_face(state: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(("vision_model.", "text_model.")) for name in state)


def from_hugging_face(
    state: Mapping[str, Tensor], config: Mapping[str, Any], source: str
) -> tuple[dict[str, Tensor], tuple[int, ...], str]:
    """The tensors under OpenAI's names; the heads of both towers and the activation, where ``config`` says them.

    Args: ``config``, the content of config.json, or nothing; ``source``, the file, for messages.

    Raises:
        UserError: a parameter that a CLIPModel does not have.
    """
    found: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}  # query, key and value, which are one matrix at OpenAI's
    unknown = []
    for name, tensor in state.items():
        tower, _, rest = name.partition(".")
        if name.endswith("position_ids"):  # 0, 1, 2, ...
            continue
        if name in PROJECTIONS:
            found[PROJECTIONS[name]] = tensor.t().contiguous()
        elif name == "logit_scale":
            found[name] = tensor
        elif tower not in TOWERS:
            unknown.append(name)
        elif part := re.fullmatch(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", rest):
            number, letter, kind = part.groups()
            place = f"{TOWERS[tower][0]}transformer.resblocks.{number}.attn.in_proj_{kind}"
            packed.setdefault(place, {})[letter] = tensor
        elif renamed := _renamed(rest, TOWERS[tower][1]):
            found[TOWERS[tower][0] + renamed] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise UserError(f"{source} looks like a CLIPModel of Transformers, which has no {few(sorted(unknown))}")
    if parted := sorted(place for place, parts in packed.items() if len(parts) < 3):
        raise UserError(f"{source} lacks parts of the attention: {few(parted)}")
    found |= {place: torch.cat([parts[letter] for letter in "qkv"]) for place, parts in packed.items()}
    return found, *_facts(config)


def _renamed(name: str, outside: Mapping[str, str]) -> str:
    """OpenAI's name of a tower's parameter; "" if there is none."""
    if name in outside:
        return outside[name]
    part = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if part and part[2] in LAYER:
        return f"transformer.resblocks.{part[1]}.{LAYER[part[2]]}.{part[3]}"
    module, _, kind = name.rpartition(".")
    return f"{outside[module]}.{kind}" if module in outside and kind in ("weight", "bias") else ""


def _facts(config: Mapping[str, Any]) -> tuple[tuple[int, ...], str]:
    """What is not in the shapes. The defaults are those of Transformers' CLIPConfig."""
    towers = [config.get(f"{name}_config") for name in ("vision", "text")]
    vision, text = (tower if isinstance(tower, Mapping) else {} for tower in towers)
    if not config:
        return (), ""
    activation = str(vision.get("hidden_act", "quick_gelu"))
    return (int(vision.get("num_attention_heads", 12)), int(text.get("num_attention_heads", 8))), activation


def to_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a CLIP with a Vision Transformer, which has OpenAI's names, under those of a CLIPModel."""
    found: dict[str, Tensor] = {"logit_scale": state["logit_scale"]}
    for theirs, ours in PROJECTIONS.items():
        found[theirs] = state[ours].t()
    for tower, (prefix, outside) in TOWERS.items():
        for theirs, ours in outside.items():
            for kind in ("", ".weight", ".bias"):
                if prefix + ours + kind in state:
                    found[f"{tower}.{theirs}{kind}"] = state[prefix + ours + kind]
        layers = re.compile(re.escape(prefix) + r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)")
        for name, tensor in state.items():
            if part := layers.fullmatch(name):
                number, module, kind = part.groups()
                place = f"{tower}.encoder.layers.{number}"
                if module == "attn.in_proj":
                    for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                        found[f"{place}.self_attn.{letter}_proj.{kind}"] = third
                else:
                    found[f"{place}.{THEIRS[module]}.{kind}"] = tensor
    return found


def config_of(a: Architecture) -> dict[str, Any]:
    """The config.json of such a CLIPModel. The end token is the last of the vocabulary, as of OpenAI's tokenizer."""
    assert a.vision is not None

    def tower(width: int, layers: int, heads: int) -> dict[str, Any]:
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
        return sizes | {"num_attention_heads": heads, "hidden_act": a.activation, "projection_dim": a.features}

    vision = tower(a.vision.width, a.vision.layers, a.vision.heads) | {"image_size": a.side, "patch_size": a.patch}
    text = tower(a.text.width, a.text.layers, a.text.heads) | {"vocab_size": a.vocabulary}
    text |= {"max_position_embeddings": a.context, "bos_token_id": a.vocabulary - 2, "eos_token_id": a.vocabulary - 1}
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": a.features,
        "vision_config": vision | {"model_type": "clip_vision_model"},
        "text_config": text | {"model_type": "clip_text_model"},
    }
