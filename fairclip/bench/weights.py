"""The backbone that is measured: OpenAI's file if it is on disk, else random weights of its shape."""

import os
from pathlib import Path
from typing import Any

import torch

from fairclip.backbones.openai import BUNDLED, CLIP_CACHE, clip_module
from fairclip.core.errors import UserError

# OpenAI's: width of the features, side of the images, then the image tower's layers, width and patches.
SHAPES: dict[str, tuple[int, int, Any, int, int | None]] = {
    "ViT-B/32": (512, 224, 12, 768, 32),
    "ViT-B/16": (512, 224, 12, 768, 16),
    "ViT-L/14": (768, 224, 24, 1024, 14),
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None),
}


def weights_of(backbone: str, folder: Path) -> tuple[str, str]:
    """What MODEL.BACKBONE.NAME must say for this backbone, and "trained" or "random".

    Raises:
        UserError: it is no backbone that is known here.
    """
    if backbone in BUNDLED or Path(backbone).expanduser().is_file():
        return backbone, "trained"
    if backbone not in SHAPES:
        raise UserError(
            f"--backbone {backbone}: choose one of {', '.join((*SHAPES, *BUNDLED))}, or give a CLIP checkpoint's file"
        )
    url = clip_module()._MODELS[backbone]
    downloaded = Path(os.environ.get("FAIR_CACHE") or CLIP_CACHE).expanduser() / Path(url).name
    if downloaded.is_file():
        return str(downloaded), "trained"

    from clip.model import CLIP

    features, side, layers, width, patch = SHAPES[backbone]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # The text tower does not take part in a step, so a small one will do.
        model = CLIP(
            embed_dim=features,
            image_resolution=side,
            vision_layers=layers,
            vision_width=width,
            vision_patch_size=patch,
            context_length=77,
            vocab_size=49408,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=1,
        )
    path = folder / f"{backbone.replace('/', '-')}.pt"
    torch.save(model.state_dict(), path)
    return str(path), "random"
