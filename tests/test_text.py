"""Prompts and text embeddings."""

import copy

import numpy as np
import pytest
import torch
from clip import clip
from clip.model import CLIP
from toys import as_backbone

from fairclip.core.errors import UserError
from fairclip.text.embeddings import encode_ragged, encode_texts, name_prompts
from fairclip.text.templates import ENSEMBLE, PROMPTS, TEMPLATES, prompt, template_of


@pytest.fixture(scope="module")
def model() -> CLIP:
    torch.manual_seed(0)
    return CLIP(24, 32, 1, 64, 16, 77, 49408, 64, 1, 2).eval()


def embed(model: CLIP, sentence: str) -> torch.Tensor:
    """One text at a time, normalised in float64."""
    with torch.no_grad():
        feature = model.encode_text(clip.tokenize([sentence]))[0].double()
    return feature / (feature**2).sum().sqrt()


# ---------------------------------------------------------------------------------------------------------------------
# Prompts
# ---------------------------------------------------------------------------------------------------------------------
def test_prompt():
    assert prompt("a photo of a {}.", "air_hockey table") == "a photo of a air hockey table."
    assert prompt("{} texture {n}.", "{odd}") == "{odd} texture {n}."  # braces are no format fields
    with pytest.raises(UserError, match="has no {} for the class name"):
        prompt("a photo of a car", "Audi")


def test_every_template_takes_a_name():
    assert all(template.count("{}") == 1 for template in (*TEMPLATES.values(), *ENSEMBLE, *sum(PROMPTS.values(), ())))
    assert len(set(ENSEMBLE)) == 7
    assert template_of("EuroSAT") == TEMPLATES["EuroSAT"] and template_of("Mine") == "a photo of a {}."


# ---------------------------------------------------------------------------------------------------------------------
# Embeddings
# ---------------------------------------------------------------------------------------------------------------------
SENTENCES = ["a photo of a car.", "two round headlights", "a red stripe on the roof of a small car", "x", "spoiler"]


def test_encode_texts(model):
    features = encode_texts(as_backbone(model), SENTENCES, batch=2)
    assert features.shape == (5, 24) and features.dtype == torch.float32 and not features.requires_grad
    expected = torch.stack([embed(model, sentence) for sentence in SENTENCES])
    torch.testing.assert_close(features.double(), expected, atol=1e-6, rtol=0)
    assert encode_texts(as_backbone(model), []).shape == (0, 24)


def test_texts_are_embedded_once(model, cache, monkeypatch):
    first = encode_texts(as_backbone(model), SENTENCES)
    assert len(list(cache.rglob("*.npy"))) == 1
    monkeypatch.setattr(model, "encode_text", None)  # a second call would fail
    assert torch.equal(encode_texts(as_backbone(model), SENTENCES), first)


@pytest.mark.parametrize("part", ["token_embedding.weight", "text_projection", "ln_final.bias"])
def test_another_backbone_or_other_texts_are_embedded_anew(model, cache, part):
    encode_texts(as_backbone(model), SENTENCES)
    encode_texts(as_backbone(model), SENTENCES[::-1])
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter(part).view(-1)[7] += 1e-3
    encode_texts(as_backbone(other), SENTENCES)
    assert len(list(cache.rglob("*.npy"))) == 3


@pytest.mark.parametrize("content", [b"", b"no numbers", None])
def test_a_damaged_cache_is_written_again(model, cache, content):
    first = encode_texts(as_backbone(model), SENTENCES)
    (file,) = cache.rglob("*.npy")
    if content is None:  # an array of another shape
        np.save(file, np.zeros((5, 23), dtype=np.float32))
    else:
        file.write_bytes(content)
    assert torch.equal(encode_texts(as_backbone(model), SENTENCES), first)
    assert np.load(file).shape == (5, 24)


def test_pickles_are_not_read(model, cache):
    encode_texts(as_backbone(model), SENTENCES)
    (file,) = cache.rglob("*.npy")
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    assert encode_texts(as_backbone(model), SENTENCES).shape == (5, 24)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_a_cache_that_cannot_be_written_to(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FAIR_CACHE", str(tmp_path / "file"))
    assert encode_texts(as_backbone(model), SENTENCES).shape == (5, 24)


def test_long_texts_are_cut_with_one_warning(model, caplog):
    full, long, longer = (" ".join(["wheel"] * words) for words in (75, 76, 100))  # 77 tokens: start, 75 words, end
    features = encode_texts(as_backbone(model), [full, long, longer])
    assert len(caplog.records) == 1 and caplog.messages[0].startswith("2 of 3 texts exceed")
    torch.testing.assert_close(features, embed(model, full).float().expand(3, -1), atol=1e-6, rtol=0)
    encode_texts(as_backbone(model), [full])
    assert len(caplog.records) == 1


def test_encode_ragged(model):
    lists = [SENTENCES[:2], [], SENTENCES[2:5], ["x"]]
    features, mask = encode_ragged(as_backbone(model), lists)
    assert features.shape == (4, 3, 24) and mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3, [True, False, False]]
    for k, sentences in enumerate(lists):
        for m in range(3):
            expected = embed(model, sentences[m]) if m < len(sentences) else torch.zeros(24, dtype=torch.float64)
            torch.testing.assert_close(features[k, m].double(), expected, atol=1e-6, rtol=0)


def test_encode_ragged_without_any_text(model):
    features, mask = encode_ragged(as_backbone(model), [[], []])
    assert features.shape == (2, 1, 24) and not mask.any() and not features.any()


def test_name_prompts(model):
    names, templates = ["Audi_S4", "BMW", "Kia"], ENSEMBLE[:3]
    features = name_prompts(as_backbone(model), names, templates)
    for k, name in enumerate(names):
        mean = sum(embed(model, t.replace("{}", name.replace("_", " "))) for t in templates) / 3
        torch.testing.assert_close(features[k].double(), mean / mean.norm(), atol=1e-6, rtol=0)
