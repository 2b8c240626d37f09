"""Description files: which one is a data set's, what it may hold, and which key means which class."""

import json

import pytest

from fairclip.core.errors import UserError
from fairclip.data.classes import class_list
from fairclip.text import descriptions
from fairclip.text.descriptions import SPELLINGS, find_descriptions, load_descriptions, match_names


@pytest.fixture
def write(tmp_path):
    def write(content) -> str:
        path = tmp_path / "cars.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    "name, key",
    [
        ("Audi S4", "Audi S4"),
        ("air_hockey", "Air Hockey"),
        ("JumpRope", "jump rope"),
        ("Chevrolet C-10", "chevrolet_c10"),
        ("2012 Audi S4 Sedan", "Audi S4 Sedan 2012"),
        ("F-16A/B", "f16a_b"),
        ("Brewer Blackbird", "Brewer's Blackbird"),
        ("Brewers Blackbird", "Brewer’s Blackbird"),
        ("Great Grey Shrike", "great gray shrike"),
        ("ball moss", "air plant"),
        ("crocodile_head", "head of a  crocodile"),
        ("Sea or Lake", "SeaLake"),
    ],
)
def test_names_match(write, name, key):
    path = write({"another": ["x"], key: ["one", "two"]})
    assert load_descriptions(path, [name]) == [["one", "two"]]


@pytest.mark.parametrize(
    "names, keys, found",
    [
        (["C++", "C#", "Go"], ["C#", "Go"], [None, "C#", "Go"]),  # an exact match is not taken by a look-alike
        (["A-1", "A 1", "B", "D"], ["a1", "B", "D"], [None, None, "B", "D"]),  # a key for two classes
        (["A-1", "B"], ["a 1", "a_1", "B"], [None, "B"]),  # two keys for a class
        (["crane", "crane"], ["crane"], ["crane", "crane"]),  # ImageNet has two classes of one name
        (["?", "B"], ["!", "B"], [None, "B"]),  # nothing to compare
    ],
)
def test_only_unique_names_match(write, names, keys, found, caplog):
    lists = load_descriptions(write({key: [key] for key in keys}), names)
    assert lists == [[key] if key else [] for key in found]
    assert ("no descriptions for" in caplog.text) == (None in found)


# What CuPL's and LaFTer's files and CLIP's prompts.md call classes of ours: a rule, or the names that differ.
@pytest.mark.parametrize(
    "dataset, keys",
    [
        ("stanford_cars", lambda name: " ".join([*name.split()[1:], name.split()[0]])),  # year last
        ("ucf101", lambda name: name.replace("_", " ")),
        ("food-101", lambda name: name.replace("_", " ").title()),
        ("sun397", lambda name: " ".join(reversed(name.split())).replace("_", " ")),  # "indoor apse" -> "apse indoor"
        ("oxford_pets", lambda name: name.replace("_", " ").title()),
        (
            "oxford_flowers",
            {"ball moss": "air plant", "pink-yellow dahlia": "pink and yellow dahlia", "globe-flower": "globe flower"},
        ),
        (
            "eurosat",
            {
                "Annual Crop Land": "AnnualCrop",
                "Herbaceous Vegetation Land": "brushland or shrubland",
                "Residential Buildings": "residential buildings or homes or apartments",
                "Sea or Lake": "lake or sea",
                "Industrial Buildings": "industrial buildings or commercial buildings",
                "Pasture Land": "Pasture",
            },
        ),
        (
            "caltech-101",
            {
                "face": "centered face",
                "car_side": "side of a car",
                "cougar_body": "body of a cougar cat",
                "cougar_face": "face of a cougar cat",
                "crocodile_head": "head of a  crocodile",
                "flamingo_head": "head of a flamingo",
                "snoopy": "snoopy (cartoon beagle)",
                "yin_yang": "yin and yang symbol",
            },
        ),
    ],
)
def test_public_spellings(dataset, keys):
    names = [name for name, _ in class_list(dataset)]
    spell = keys if callable(keys) else lambda name: keys.get(name, name)
    pairs = match_names(names, [*map(spell, names), "background", "off-center face"])
    assert pairs == {name: spell(name) for name in names}


@pytest.mark.parametrize("dataset", ["food-101", "dtd", "eurosat", "ucf101", "caltech-101", "birdsnap", "aid"])
def test_folder_names(dataset):
    """Keys in a file that was made from the folders of a data set."""
    folders = dict(class_list(dataset))
    assert match_names(folders, folders.values()) == folders


def test_no_name_stands_for_two_classes():
    forms = [form for group in SPELLINGS for form in {descriptions.letters(name) for name in group}]
    assert len(forms) == len(set(forms))


def test_order_follows_the_classes(write):
    table = {name: [f"{name} {i}" for i in range(n)] for n, name in enumerate("abcd", 1)}
    assert load_descriptions(write(table), ["c", "a", "d", "b"]) == [table[name] for name in "cadb"]


def test_gaps_and_extras_are_named_once(write, caplog):
    path = write({"a": ["x"], "b": [], "c": ["x"], **{f"extra{i}": ["x"] for i in range(5)}})
    assert load_descriptions(path, ["a", "b", "c"]) == [["x"], [], ["x"]]
    first, second = caplog.messages
    assert "no descriptions for b in" in first
    assert "extra0, extra1, extra2 and 2 more" in second


def test_a_whole_match_prints_nothing(write, capsys, caplog):
    load_descriptions(write({"a": ["x"]}), ["a"])
    assert capsys.readouterr().out == "" and not caplog.records


@pytest.mark.parametrize(
    "content, message",
    [
        ({"Audi": ["x"]}, "0 of 3 classes. Without: a, b, c. Its keys: Audi"),
        ({"a": ["x"]}, "1 of 3 classes. Without: b, c"),
        ("{'a': 1}", "not valid JSON"),
        (["a"], "must be an object"),
        ('{"a": ["x"], "b": ["y"], "a": ["z"]}', "names a class twice: a"),
        ({"a": "one sentence"}, "must give 'a' a list of sentences"),
        ({"a": ["x", 3]}, "must give 'a' a list of sentences"),
    ],
)
def test_unusable_files(write, content, message):
    with pytest.raises(UserError, match=message) as error:
        load_descriptions(write(content), ["a", "b", "c"])
    assert "cars.json" in str(error.value)


def test_blanks_are_no_descriptions(write, caplog):
    assert load_descriptions(write({"a": ["x", " "], "b": ["y"], "c": [""]}), ["a", "b", "c"]) == [["x"], ["y"], []]
    assert "no descriptions for c in" in caplog.text


def test_a_byte_order_mark_is_no_matter(write):
    assert load_descriptions(write("\ufeff" + json.dumps({"a": ["x"]})), ["a"]) == [["x"]]


def test_absent_file(tmp_path):
    with pytest.raises(UserError, match="absent.json cannot be read"):
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
    monkeypatch.setattr(descriptions, "DESCRIPTIONS", shelf)

    cars = StanfordCars()
    assert find_descriptions("", cars) == shelf / "stanford_cars.json"
    assert find_descriptions("", DescribableTextures()) == shelf / "dtd.json"
    assert find_descriptions("", object()) is None
    cars.descriptions_file = own
    assert find_descriptions("", cars) == own
    assert find_descriptions(str(given), cars) == given
    with pytest.raises(UserError, match="absent.json does not exist"):
        find_descriptions(str(tmp_path / "absent.json"), cars)
