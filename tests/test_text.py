"""Prompts, description files and text embeddings."""

import json

import pytest
import torch
from clip import clip
from clip.model import CLIP

from trainers.modules import text
from trainers.modules.errors import UserError
from trainers.modules.text import (
    ENSEMBLE,
    TEMPLATES,
    encode_ragged,
    encode_texts,
    find_descriptions,
    load_descriptions,
    name_prompts,
    prompt,
)


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
    assert all(template.count("{}") == 1 for template in (*TEMPLATES.values(), *ENSEMBLE))
    assert len(set(ENSEMBLE)) == 7


# ---------------------------------------------------------------------------------------------------------------------
# Description files
# ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def write(tmp_path):
    def write(content) -> str:
        path = tmp_path / "cars.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("name, key", [
    ("Audi S4", "Audi S4"),
    ("air_hockey", "Air Hockey"),
    ("JumpRope", "jump rope"),
    ("Chevrolet C-10", "chevrolet_c10"),
    ("2012 Audi S4 Sedan", "Audi S4 Sedan 2012"),
])
def test_names_match(write, name, key):
    path = write({"another": ["x"], key: ["one", "two"]})
    assert load_descriptions(path, [name]) == [["one", "two"]]


@pytest.mark.parametrize("names, keys, found", [
    (["C++", "C#", "Go"], ["C#", "Go"], [None, "C#", "Go"]),  # an exact match is not taken by a look-alike
    (["A-1", "A 1", "B", "D"], ["a1", "B", "D"], [None, None, "B", "D"]),  # a key for two classes
    (["A-1", "B"], ["a 1", "a_1", "B"], [None, "B"]),  # two keys for a class
    (["crane", "crane"], ["crane"], ["crane", "crane"]),  # ImageNet has two classes of one name
    (["?", "B"], ["!", "B"], [None, "B"]),  # nothing to compare
])
def test_only_unique_names_match(write, names, keys, found, capsys):
    lists = load_descriptions(write({key: [key] for key in keys}), names)
    assert lists == [[key] if key else [] for key in found]
    assert ("no descriptions for" in capsys.readouterr().out) == (None in found)


def test_order_follows_the_classes(write):
    table = {name: [f"{name} {i}" for i in range(n)] for n, name in enumerate("abcd", 1)}
    assert load_descriptions(write(table), ["c", "a", "d", "b"]) == [table[name] for name in "cadb"]


def test_gaps_and_extras_are_named_once(write, capsys):
    path = write({"a": ["x"], "b": [], "c": ["x"], **{f"extra{i}": ["x"] for i in range(5)}})
    assert load_descriptions(path, ["a", "b", "c"]) == [["x"], [], ["x"]]
    first, second = capsys.readouterr().out.splitlines()
    assert "no descriptions for b in" in first
    assert "extra0, extra1, extra2 and 2 more" in second


def test_a_whole_match_prints_nothing(write, capsys):
    load_descriptions(write({"a": ["x"]}), ["a"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content, message", [
    ({"Audi": ["x"]}, "0 of 3 classes. Without: a, b, c. Its keys: Audi"),
    ({"a": ["x"]}, "1 of 3 classes. Without: b, c"),
    ("{'a': 1}", "not valid JSON"),
    (["a"], "must be an object"),
    ({"a": "one sentence"}, "must give 'a' a list of sentences"),
    ({"a": ["x", 3]}, "must give 'a' a list of sentences"),
    ({"a": ["x", " "]}, "must give 'a' a list of sentences"),
])
def test_unusable_files(write, content, message):
    with pytest.raises(UserError, match=message) as error:
        load_descriptions(write(content), ["a", "b", "c"])
    assert "cars.json" in str(error.value)


def test_absent_file(tmp_path):
    with pytest.raises(UserError, match="Cannot read .*absent.json"):
        load_descriptions(tmp_path / "absent.json", ["a"])


class StanfordCars:
    pass


class DescribableTextures:
    pass


def test_find_descriptions(tmp_path, monkeypatch):
    shelf, own, given = tmp_path / "shelf", tmp_path / "own.json", tmp_path / "given.json"
    shelf.mkdir()
    for path in (shelf / "stanford_cars.json", shelf / "dtd.json", own, given):
        path.write_text("{}")
    monkeypatch.setattr(text, "DESCRIPTIONS", shelf)

    cars = StanfordCars()
    assert find_descriptions("", cars) == shelf / "stanford_cars.json"
    assert find_descriptions("", DescribableTextures()) == shelf / "dtd.json"
    assert find_descriptions("", object()) is None
    cars.descriptions_file = own
    assert find_descriptions("", cars) == own
    assert find_descriptions(str(given), cars) == given
    with pytest.raises(UserError, match="absent.json does not exist"):
        find_descriptions(str(tmp_path / "absent.json"), cars)


# ---------------------------------------------------------------------------------------------------------------------
# Embeddings
# ---------------------------------------------------------------------------------------------------------------------
SENTENCES = ["a photo of a car.", "two round headlights", "a red stripe on the roof of a small car", "x", "spoiler"]


def test_encode_texts(model):
    features = encode_texts(model, SENTENCES, batch=2)
    assert features.shape == (5, 24) and features.dtype == torch.float32 and not features.requires_grad
    expected = torch.stack([embed(model, sentence) for sentence in SENTENCES])
    torch.testing.assert_close(features.double(), expected, atol=1e-6, rtol=0)
    assert encode_texts(model, []).shape == (0, 24)


def test_long_texts_are_cut_with_one_warning(model, capsys):
    full, long, longer = (" ".join(["wheel"] * words) for words in (75, 76, 100))  # 77 tokens: start, 75 words, end
    features = encode_texts(model, [full, long, longer])
    assert capsys.readouterr().out.count("Warning: 2 of 3 texts exceed") == 1
    torch.testing.assert_close(features, embed(model, full).float().expand(3, -1), atol=1e-6, rtol=0)
    encode_texts(model, [full])
    assert capsys.readouterr().out == ""


def test_encode_ragged(model):
    lists = [SENTENCES[:2], [], SENTENCES[2:5], ["x"]]
    features, mask = encode_ragged(model, lists)
    assert features.shape == (4, 3, 24) and mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3, [True, False, False]]
    for k, sentences in enumerate(lists):
        for m in range(3):
            expected = embed(model, sentences[m]) if m < len(sentences) else torch.zeros(24, dtype=torch.float64)
            torch.testing.assert_close(features[k, m].double(), expected, atol=1e-6, rtol=0)


def test_encode_ragged_without_any_text(model):
    features, mask = encode_ragged(model, [[], []])
    assert features.shape == (2, 1, 24) and not mask.any() and not features.any()


def test_name_prompts(model):
    names, templates = ["Audi_S4", "BMW", "Kia"], ENSEMBLE[:3]
    features = name_prompts(model, names, templates)
    for k, name in enumerate(names):
        mean = sum(embed(model, t.replace("{}", name.replace("_", " "))) for t in templates) / 3
        torch.testing.assert_close(features[k].double(), mean / mean.norm(), atol=1e-6, rtol=0)
