"""Our CLIP against the clip package's: the same outputs and gradients for the same weights."""

import pytest
import torch
from clip.model import CLIP as Theirs
from clip.model import build_model

from fairclip.backbones.architecture import architecture_of, build_clip
from fairclip.backbones.backbone import norm_parameters
from fairclip.backbones.network import CLIP
from fairclip.backbones.openai import BUNDLED, WEIGHTS, load_clip
from fairclip.backbones.precision import autocast
from fairclip.core.errors import UserError

# embed_dim, resolution, layers, width, patch of OpenAI's image towers; their text towers: width, heads (12 layers)
OPENAI = {
    "RN50": ((1024, 224, (3, 4, 6, 3), 64, None), (512, 8)),
    "RN101": ((512, 224, (3, 4, 23, 3), 64, None), (512, 8)),
    "RN50x4": ((640, 288, (4, 6, 10, 6), 80, None), (640, 10)),
    "RN50x16": ((768, 384, (6, 8, 18, 8), 96, None), (768, 12)),
    "RN50x64": ((1024, 448, (3, 15, 36, 10), 128, None), (1024, 16)),
    "ViT-B/32": ((512, 224, 12, 768, 32), (512, 8)),
    "ViT-B/16": ((512, 224, 12, 768, 16), (512, 8)),
    "ViT-L/14": ((768, 224, 24, 1024, 14), (768, 12)),
    "ViT-L/14@336px": ((768, 336, 24, 1024, 14), (768, 12)),
}


def random_clip(tower: str) -> Theirs:
    """Of the clip package, small, with weights that are not near zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = (32, 64, 2, 128, 16) if tower == "vit" else (32, 64, (1, 2, 1, 1), 16, None)
        model = Theirs(*vision, 20, 500, 64, 1, 2)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return model.float().eval()


@pytest.fixture(scope="module", params=["vit", "resnet", "tiny", "tiny_rn"])
def both(request):
    """Theirs and ours, with the same weights."""
    if request.param in BUNDLED:
        state = torch.load(WEIGHTS / f"{request.param}.pt", weights_only=True)
        state = {name: tensor.float() for name, tensor in state.items()}
        theirs = build_model(dict(state)).float().eval()
        theirs.load_state_dict(state)
    else:
        theirs = random_clip(request.param)
    return theirs, build_clip(theirs.state_dict(), "it")


def inputs(model) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    side = model.visual.input_resolution
    tokens = torch.randint(1, model.vocab_size - 1, (5, model.context_length), generator=generator)
    tokens[:, 7:] = 0
    tokens[torch.arange(5), torch.tensor([2, 3, 4, 5, 6])] = model.vocab_size - 1  # the end token
    return torch.randn(3, 3, side, side, generator=generator), tokens


def test_outputs_are_those_of_the_clip_package(both):
    theirs, ours = both
    images, tokens = inputs(ours)
    with torch.no_grad():
        torch.testing.assert_close(ours.encode_image(images), theirs.encode_image(images), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.encode_text(tokens), theirs.encode_text(tokens), rtol=1e-5, atol=1e-5)
        for mine, other in zip(ours(images, tokens), theirs(images, tokens), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prec", ["fp32", "bf16"])
def test_gradients_are_those_of_the_clip_package(both, prec):
    found = []
    for model in both:
        norms = norm_parameters(model.visual)
        with autocast("cpu", prec):
            features = model.visual(inputs(both[1])[0])
        found.append(torch.autograd.grad(features.float().square().sum(), list(norms.values())))
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5 if prec == "fp32" else 1e-2)


def test_parameters_have_the_names_of_the_clip_package(both):
    theirs, ours = both
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in both]
    assert shapes[0] == shapes[1]
    assert list(norm_parameters(theirs.visual)) == list(norm_parameters(ours.visual))


@pytest.mark.parametrize("name", OPENAI)
def test_all_of_openais_architectures_are_read_off_their_shapes(name):
    vision, (width, heads) = OPENAI[name]
    with torch.device("meta"), torch.random.fork_rng():
        theirs = Theirs(*vision, 77, 49408, width, heads, 12)
        state = theirs.state_dict()
        ours = CLIP(architecture_of(state, name))
    assert {n: t.shape for n, t in ours.state_dict().items()} == {n: t.shape for n, t in state.items()}
    assert ours.visual.input_resolution == vision[1] and ours.context_length == 77
    assert ours.transformer.resblocks[0].attn.num_heads == heads
    mine, other = (
        model.visual.transformer.resblocks[0].attn if "ViT" in name else model.visual.attnpool
        for model in (ours, theirs)
    )
    assert mine.num_heads == other.num_heads


def test_heads_and_activation_can_be_told():
    state = random_clip("vit").state_dict()
    usual, other, gelu = (build_clip(state, "it", *told) for told in ((), ((4, 2),), ((), "gelu")))
    images, _ = inputs(usual)
    assert other.visual.transformer.resblocks[0].attn.num_heads == 4
    assert other.transformer.resblocks[0].attn.num_heads == 2
    for changed in (other, gelu):
        assert not torch.allclose(changed.encode_image(images), usual.encode_image(images), atol=1e-3)


def narrow(state: dict) -> dict:
    """The same with a text tower 48 wide."""
    model = Theirs(32, 64, 2, 128, 16, 20, 500, 48, 4, 2)
    return model.state_dict()


@pytest.mark.parametrize(
    ("change", "told", "message"),
    [
        (lambda s: s | {"more": torch.ones(2)}, {}, "no place for: more"),
        (lambda s: {n: t for n, t in s.items() if n != "logit_scale"}, {}, "it lacks logit_scale"),
        (lambda s: {n: t for n, t in s.items() if n != "visual.ln_post.bias"}, {}, "it lacks visual.ln_post.bias"),
        (lambda s: {n: t for n, t in s.items() if "visual" not in n}, {}, "no image tower that is known"),
        (lambda s: s | {"visual.ln_post.bias": torch.ones(2)}, {}, "visual.ln_post.bias is 2, and 128 is needed"),
        (
            lambda s: s | {"visual.positional_embedding": torch.ones(4, 128)},
            {},
            "3 positions of an image are no square",
        ),
        (narrow, {}, "the text tower is 48 wide, and that is no multiple of 64: say how many"),
        (narrow, {"heads": (2, 5)}, "5 heads do not divide that"),
        (narrow, {"heads": (2,)}, "two numbers"),
        (lambda s: s, {"activation": "relu"}, "choose one of quick_gelu, gelu"),
    ],
)
def test_what_is_no_clip_is_refused(change, told, message):
    with pytest.raises(UserError, match=message):
        build_clip(change(random_clip("vit").state_dict()), "it", **told)
    assert build_clip(narrow({}), "it", (2, 4)).transformer.resblocks[0].attn.num_heads == 4


def test_bundled_backbones_are_built_by_it():
    assert isinstance(load_clip("tiny"), CLIP) and isinstance(load_clip("tiny_rn"), CLIP)
