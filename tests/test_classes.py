"""Class lists: how many, none twice, no stray blanks, and the order of the labels where it is easily got wrong."""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "datasets" / "classes"
COUNTS = {
    "stanford_cars": 196,
    "fgvc_aircraft": 100,
    "oxford_flowers": 102,
    "oxford_pets": 37,
    "food-101": 101,
    "dtd": 47,
    "eurosat": 10,
    "sun397": 397,
    "ucf101": 101,
    "caltech-101": 100,
    "cub200": 200,
    "birdsnap": 500,
    "resisc45": 45,
    "aid": 30,
}


def lines(name: str) -> list[str]:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def classes(name: str) -> list[tuple[str, str]]:
    """(class name, source name) in label order."""
    return [(line.split("\t")[0], line.split("\t")[-1]) for line in lines(name)]


def names(name: str) -> list[str]:
    return [class_name for class_name, _ in classes(name)]


def sources(name: str) -> list[str]:
    return [source for _, source in classes(name)]


def moved(order: list[str], other: list[str]) -> list[int]:
    """The labels that are different classes in the two orders of the same classes."""
    assert sorted(order) == sorted(other)
    return [label for label, (a, b) in enumerate(zip(order, other, strict=True)) if a != b]


def squash(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


# -- Every list --------------------------------------------------------------------------------------------------------


def test_there_is_a_list_for_each_of_the_fourteen():
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_count(name):
    assert len(classes(name)) == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_no_name_and_no_source_twice(name):
    for column in (names(name), sources(name)):
        assert len({squash(entry) for entry in column}) == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_no_name_means_another_class(name):
    # Folders and annotations are looked up under both names, without regard to case and punctuation.
    label = {squash(source): number for number, source in enumerate(sources(name))}
    assert [entry for number, entry in enumerate(names(name)) if label.get(squash(entry), number) != number] == []


@pytest.mark.parametrize("name", COUNTS)
def test_no_stray_characters(name):
    for line in lines(name):
        fields = line.split("\t")
        assert len(fields) in (1, 2) and len(set(fields)) == len(fields), line
        for field in fields:
            assert re.fullmatch(r"[!-~]+( [!-~]+)*", field), line  # printable ASCII, single spaces, none at the ends


@pytest.mark.parametrize("name", COUNTS)
def test_file_ends_with_its_last_class(name):
    data = (FOLDER / f"{name}.txt").read_bytes()
    assert data.endswith(b"\n") and not data.endswith(b"\n\n") and b"\r" not in data


# -- CoOp's ten --------------------------------------------------------------------------------------------------------


def test_cars_year_moves_to_the_front():
    assert classes("stanford_cars")[13] == ("2012 Audi TTS Coupe", "Audi TTS Coupe 2012")
    assert classes("stanford_cars")[0] == ("2000 AM General Hummer SUV", "AM General Hummer SUV 2000")
    assert classes("stanford_cars")[195] == ("2012 smart fortwo Convertible", "smart fortwo Convertible 2012")
    for name, source in classes("stanford_cars"):
        year, model = name.split(" ", 1)
        assert re.fullmatch(r"(19|20)\d\d", year) and source == f"{model} {year}"


def test_cars_slash_stays():
    assert classes("stanford_cars")[173] == ("2012 Ram C/V Cargo Van Minivan", "Ram C/V Cargo Van Minivan 2012")


def test_cars_are_not_sorted():
    assert names("stanford_cars")[4:7] == [
        "2012 Acura TSX Sedan",
        "2001 Acura Integra Type R",
        "2012 Acura ZDX Hatchback",
    ]
    assert sources("stanford_cars") != sorted(sources("stanford_cars"))


def test_aircraft_follow_variants_txt():
    order = names("fgvc_aircraft")
    assert order[37:40] == ["BAE 146-200", "BAE 146-300", "BAE-125"]
    assert order[0] == "707-320" and order[72:74] == ["F-16A/B", "F/A-18"] and order[99] == "Yak-42"
    # What sorted folders with - for blanks and slashes would make of it:
    assert moved(order, sorted(order, key=lambda name: re.sub("[ /]", "-", name))) == [37, 38, 39]


def test_flowers_are_numbered_from_one():
    assert sources("oxford_flowers") == [str(number) for number in range(1, 103)]
    order = names("oxford_flowers")
    assert order[0] == "pink primrose" and order[101] == "blackberry lily"
    assert (order[15], order[40], order[59], order[92]) == (
        "globe-flower",
        "barbeton daisy",
        "pink-yellow dahlia",
        "ball moss",
    )


def test_pets_order_ignores_case():
    assert classes("oxford_pets")[:6] == [
        ("abyssinian", "Abyssinian"),
        ("american_bulldog", "american_bulldog"),
        ("american_pit_bull_terrier", "american_pit_bull_terrier"),
        ("basset_hound", "basset_hound"),
        ("beagle", "beagle"),
        ("bengal", "Bengal"),
    ]
    breeds = sources("oxford_pets")
    assert breeds == sorted(breeds, key=str.lower) and breeds != sorted(breeds)
    assert names("oxford_pets") == [breed.lower() for breed in breeds]
    assert len([breed for breed in breeds if breed[0].isupper()]) == 12  # the cats


@pytest.mark.parametrize("name", ["food-101", "dtd"])
def test_folders_are_names(name):
    assert names(name) == sources(name) == sorted(names(name))


def test_food_underscore_sorts_before_letters():
    assert names("food-101")[16:18] == ["cheese_plate", "cheesecake"]


def test_dtd_hyphen_stays():
    assert names("dtd")[30] == "polka-dotted"


def test_eurosat():
    assert classes("eurosat") == [
        ("Annual Crop Land", "AnnualCrop"),
        ("Forest", "Forest"),
        ("Herbaceous Vegetation Land", "HerbaceousVegetation"),
        ("Highway or Road", "Highway"),
        ("Industrial Buildings", "Industrial"),
        ("Pasture Land", "Pasture"),
        ("Permanent Crop Land", "PermanentCrop"),
        ("Residential Buildings", "Residential"),
        ("River", "River"),
        ("Sea or Lake", "SeaLake"),
    ]


def test_sun_innermost_folder_comes_first():
    for name, source in classes("sun397"):
        letter, *path = source.removeprefix("/").split("/")
        assert source[0] == "/" and path[0][0] == letter and name == " ".join(reversed(path))
    assert classes("sun397")[8] == ("outdoor apartment_building", "/a/apartment_building/outdoor")
    assert ("coral_reef underwater", "/u/underwater/coral_reef") in classes("sun397")


def test_sun_follows_classname_txt():
    paths = sources("sun397")
    assert paths == sorted(paths)
    assert (paths[0], paths[396]) == ("/a/abbey", "/y/youth_hostel")
    assert paths[206:208] == ["/j/jail/indoor", "/j/jail_cell"]  # by name, jail cell would come first


def test_ucf_follows_classind_txt():
    assert classes("ucf101")[0] == ("Apply_Eye_Makeup", "ApplyEyeMakeup")
    assert sources("ucf101")[34:37] == ["Hammering", "HammerThrow", "HandstandPushups"]
    assert sources("ucf101")[46:48] == ["JumpingJack", "JumpRope"]
    assert moved(sources("ucf101"), sorted(sources("ucf101"))) == [34, 35, 46, 47]


def test_ucf_names_are_cut_at_capitals():
    assert names("ucf101") == ["_".join(re.findall("[A-Z][a-z]*", source)) for source in sources("ucf101")]
    assert names("ucf101")[36] == "Handstand_Pushups" and names("ucf101")[100] == "Yo_Yo"


def test_caltech_capitals_come_first():
    assert classes("caltech-101")[:5] == [
        ("face", "Faces"),
        ("leopard", "Leopards"),
        ("motorbike", "Motorbikes"),
        ("accordion", "accordion"),
        ("airplane", "airplanes"),
    ]
    assert sources("caltech-101") == sorted(sources("caltech-101"))
    assert [name for name, source in classes("caltech-101")[5:] if name != source] == []
    assert not {"BACKGROUND_Google", "Faces_easy"} & set(sources("caltech-101"))


# -- The other four ----------------------------------------------------------------------------------------------------


def test_cub_follows_its_numbers():
    for label, (name, source) in enumerate(classes("cub200")):
        assert source == f"{label + 1:03d}.{name.replace(' ', '_')}"
    assert names("cub200")[0] == "Black footed Albatross" and names("cub200")[199] == "Common Yellowthroat"
    assert sources("cub200")[140] == "141.Artic_Tern"  # the official spelling


def test_birdsnap_follows_species_txt():
    species = sources("birdsnap")
    ids = {
        1: "Coopers_Hawk",
        4: "Golden_Eagle",
        23: "Belted_Kingfisher",
        65: "Fulvous_Whistling_Duck",
        115: "Rock_Pigeon",
        174: "Crested_Caracara",
        230: "Herring_Gull",
        324: "Ruffed_Grouse",
        399: "Marbled_Godwit",
        432: "Black_chinned_Hummingbird",
        500: "Blue_headed_Vireo",
    }
    assert {number: species[number - 1] for number in ids} == ids
    assert species != sorted(species)  # not CLIP's order
    assert names("birdsnap") == [name.replace("_", " ") for name in species]


@pytest.mark.parametrize("name", ["resisc45", "aid"])
def test_folders_are_sorted(name):
    assert sources(name) == sorted(sources(name))


def test_resisc_names_have_spaces():
    assert names("resisc45") == [source.replace("_", " ") for source in sources("resisc45")]
    assert classes("resisc45")[2] == ("baseball diamond", "baseball_diamond")
    assert names("resisc45")[29:31] == ["railway", "railway station"]


def test_aid_names_have_spaces():
    assert sources("aid") == [name.replace(" ", "") for name in names("aid")]
    assert classes("aid")[1:3] == [("Bare Land", "BareLand"), ("Baseball Field", "BaseballField")]
    assert classes("aid")[28] == ("Storage Tanks", "StorageTanks")
