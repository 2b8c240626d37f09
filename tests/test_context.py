"""Learned context in front of class names: against CLIP's own text tower, by hand, and its edge cases."""

import copy
import math

import pytest
import torch
from clip import clip
from torch.nn import functional as F

from fairclip.core.errors import UserError
from fairclip.method.context import ContextClassifier, ContextTextTower, initial_context
from fairclip.method.rates import warmup_cosine

NAMES = ["red car", "very_long station wagon with a roof", "bus"]
WORDS = "a photo of a"  # four tokens
N = 4


@pytest.fixture(scope="module")
def width(tiny_clip) -> int:
    return tiny_clip.token_embedding.weight.shape[1]


def words(model, text: str) -> torch.Tensor:
    """The token embeddings of a text, without start and end, [N, w]."""
    with torch.no_grad():
        return model.token_embedding(torch.tensor(clip._tokenizer.encode(text)))


def encode_text(model, texts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return F.normalize(model.encode_text(clip.tokenize(texts)), dim=-1)


def contexts(members: int, width: int, *classes: int) -> torch.Tensor:
    """Larger than a start is, so that members and classes differ plainly."""
    return torch.stack([20 * initial_context(i, *classes, N, width) for i in range(members)])


# -- The text tower ----------------------------------------------------------------------------------------------------


def test_words_as_context_give_what_clip_gives(tiny_clip):
    tower = ContextTextTower(tiny_clip, NAMES, N)
    expected = encode_text(tiny_clip, [f"{WORDS} {name.replace('_', ' ')}." for name in NAMES])
    torch.testing.assert_close(tower(words(tiny_clip, WORDS)), expected, atol=1e-6, rtol=1e-5)


def test_each_class_can_have_words_of_its_own(tiny_clip):
    texts = [WORDS, "one drawing of some", "my new and clean"]
    own = torch.stack([words(tiny_clip, text) for text in texts])
    assert own.shape[:2] == (3, N)
    expected = encode_text(tiny_clip, [f"{t} {name.replace('_', ' ')}." for t, name in zip(texts, NAMES, strict=True)])
    torch.testing.assert_close(ContextTextTower(tiny_clip, NAMES, N)(own), expected, atol=1e-6, rtol=1e-5)


def test_prompts_end_where_the_longest_ends_and_the_clip_stays_whole(tiny_clip):
    tower = ContextTextTower(tiny_clip, NAMES, N)
    length = 2 + N + len(clip._tokenizer.encode("very long station wagon with a roof."))
    assert len(tower.positions) == length == tower.start.shape[1] + N + tower.names.shape[1]
    # Some clip packages hand the mask to the attention as it is, so that it must have the prompts' length.
    assert all(block.attn_mask.shape == (length, length) for block in tower.transformer.resblocks)
    assert all(block.attn_mask.shape == (77, 77) for block in tiny_clip.transformer.resblocks)


def test_a_class_does_not_see_the_others(tiny_clip, width):
    context = contexts(1, width)[0]
    every, order = ContextTextTower(tiny_clip, NAMES, N)(context), [2, 0, 1]
    permuted = ContextTextTower(tiny_clip, [NAMES[i] for i in order], N)(context)
    torch.testing.assert_close(permuted, every[order], atol=1e-6, rtol=1e-5)
    alone = ContextTextTower(tiny_clip, NAMES[2:], N)(context)  # a shorter tower
    torch.testing.assert_close(alone, every[2:], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(every[0], every[2], atol=1e-3)


@pytest.mark.parametrize("n_ctx, fits", [(67, True), (68, False), (80, False)])
def test_a_prompt_that_is_too_long(tiny_clip, width, n_ctx, fits):
    # [SOS] very long station wagon with a roof . [EOT]: 10 tokens of 77
    if fits:
        assert ContextTextTower(tiny_clip, NAMES, n_ctx)(torch.zeros(n_ctx, width)).isfinite().all()
        return
    with pytest.raises(UserError, match="N_CTX 67 or less") as error:
        ContextTextTower(tiny_clip, NAMES, n_ctx)
    assert "very long station wagon" in str(error.value)


def test_start():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, b = initial_context(3, 100, 100), initial_context(4, 100, 100)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(initial_context(3, 100, 100), a) and not torch.equal(a, b)
    assert a.std().item() == pytest.approx(0.02, rel=0.05) and abs(a.mean().item()) < 1e-3
    assert initial_context(0, 5, 4, 8).shape == (5, 4, 8)


# -- The classifier ----------------------------------------------------------------------------------------------------


def by_hand(model, images: torch.Tensor, features: list[torch.Tensor]) -> list[list[list[float]]]:
    """tau * cos for each member, image and class, in loops and float64."""
    tau = math.exp(float(model.logit_scale))
    with torch.no_grad():
        raw = model.visual(images).double().tolist()
    logits = []
    for member in features:
        rows = []
        for f in raw:
            length = math.sqrt(sum(x * x for x in f))
            cosines = [sum(x / length * y for x, y in zip(f, t, strict=True)) for t in member.double().tolist()]
            rows.append([tau * cosine for cosine in cosines])
        logits.append(rows)
    return logits


@pytest.mark.parametrize("classes", [(), (3,)], ids=["shared", "csc"])
def test_logits(tiny_clip, width, classes):
    starts, images = contexts(2, width, *classes), torch.randn(5, 3, 32, 32)
    model = ContextClassifier(tiny_clip, NAMES, starts)
    tower = ContextTextTower(tiny_clip, NAMES, N)
    expected = by_hand(tiny_clip, images, [tower(context) for context in starts])
    torch.testing.assert_close(model(images), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_one_class(tiny_clip, width):
    model = ContextClassifier(tiny_clip, NAMES[:1], contexts(1, width))
    assert model(torch.randn(2, 3, 32, 32)).shape == (1, 2, 1)


def test_nothing_but_the_contexts_is_trained(tiny_clip, width):
    model = ContextClassifier(copy.deepcopy(tiny_clip), NAMES, contexts(2, width))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["contexts"]
    model(torch.randn(2, 3, 32, 32))[0].sum().backward()  # one member alone
    assert (model.contexts.grad[0] != 0).any(dim=1).all() and (model.contexts.grad[1] == 0).all()
    assert all(p.grad is None for name, p in model.named_parameters() if name != "contexts")
    assert not model.train().training and not any(m.training for m in model.modules())


def test_bfloat16_stays_near(tiny_clip, width):
    images = torch.randn(4, 3, 32, 32)
    full, half = (ContextClassifier(tiny_clip, NAMES, contexts(1, width), prec) for prec in ("fp32", "bf16"))
    assert half(images).dtype == torch.float32
    torch.testing.assert_close(half(images), full(images), atol=0.6, rtol=0.05)
    assert (half(images) != full(images)).any()


# -- The learning rate -------------------------------------------------------------------------------------------------


def test_learning_rates():
    share = warmup_cosine(5, 1, 1e-5 / 0.002)
    assert [0.002 * share(e) for e in range(5)] == pytest.approx([1e-5, 0.002, 0.00181, 0.00131, 0.00069], rel=5e-3)
    # cosine as the recursion of its angle, and no warm-up
    expected = [(1 + math.cos(angle * math.pi / 7)) / 2 for angle in range(7)]
    assert [warmup_cosine(7, 0, 0.5)(e) for e in range(7)] == pytest.approx(expected)
    assert [warmup_cosine(7, 2, 0.5)(e) for e in range(2, 7)] == pytest.approx(expected[:5])
    assert [warmup_cosine(7, 2, 0.5)(e) for e in range(2)] == [0.5, 0.5]
    assert [warmup_cosine(7, -1, 0.5)(e) for e in range(7)] == pytest.approx(expected)  # Dassl's word for none
