"""Files of weights beyond torch's own: safetensors and Hugging Face's layout, against those libraries."""

import json

import pytest
import torch
from safetensors.torch import save_file
from test_network import inputs, random_clip

from fairclip.backbones.openai import load_clip
from fairclip.core.errors import UserError


@pytest.fixture(scope="module")
def model():
    """A CLIP of the clip package."""
    return random_clip("vit")


def test_safetensors(model, tmp_path):
    file = tmp_path / "clip.safetensors"
    save_file({f"module.{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}, file)
    images, tokens = inputs(model)
    loaded = load_clip(str(file))
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode_image(images), model.encode_image(images))
        torch.testing.assert_close(loaded.encode_text(tokens), model.encode_text(tokens))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="is not a whole .safetensors file"):
        load_clip(str(file))


@pytest.fixture(scope="module", params=["quick_gelu", "gelu"])
def theirs(request):
    """A CLIPModel of Transformers with heads of 32 channels, and random weights."""
    from transformers import CLIPConfig, CLIPModel

    text = {"vocab_size": 500, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 20, "eos_token_id": 499, "hidden_act": request.param}
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 64, "patch_size": 16, "hidden_act": request.param}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)).eval()
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def test_a_folder_of_hugging_face(theirs, tmp_path):
    theirs.save_pretrained(tmp_path)
    ours = load_clip(str(tmp_path))
    images, tokens = inputs(ours)
    with torch.no_grad():
        vision = theirs.vision_model(images).pooler_output
        text = theirs.text_model(tokens).pooler_output
        torch.testing.assert_close(ours.encode_image(images), theirs.visual_projection(vision), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.encode_text(tokens), theirs.text_projection(text), rtol=1e-4, atol=1e-4)
    assert ours.logit_scale == theirs.logit_scale


def test_their_file_alone_or_damaged(theirs, tmp_path):
    """Without config.json, heads and activation are OpenAI's."""
    state = theirs.state_dict()
    torch.save(state, tmp_path / "alone.bin")
    assert load_clip(str(tmp_path / "alone.bin")).visual.transformer.resblocks[0].attn.num_heads == 2
    torch.save({n: t for n, t in state.items() if "layers.0.self_attn.q_proj" not in n}, tmp_path / "parts.bin")
    with pytest.raises(UserError, match="lacks parts of the attention: transformer.resblocks.0.attn.in_proj"):
        load_clip(str(tmp_path / "parts.bin"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="a folder without weights: expected model.safetensors"):
        load_clip(str(tmp_path / "empty"))
