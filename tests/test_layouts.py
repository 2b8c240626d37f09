"""Data sets in every layout that people have: the same labels and names for the same images, or a clear message."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import miniatures
import pytest
from commands import train
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from miniatures import CARS, CARS_LAYOUTS, CARS_WITH_COOPS_NAMES, TEST, TRAIN, config, food101, stanford_cars
from toys import save_clip

from datasets.food101 import Food101
from datasets.stanford_cars import StanfordCars
from fairclip.core.errors import UserError
from fairclip.core.image_files import images_below
from fairclip.data import choose_split, images, labelled, messages, settings, split_store, splits
from fairclip.data.annotations import mat_rows, name_of_number, read_lines
from fairclip.data.classes import class_folders, class_list, match_classes
from fairclip.data.folders import part_folders, skip_doubled
from fairclip.data.split_store import keep_split, split_places
from fairclip.data.splits import load_split, split_all, split_trainval, write_split
from fairclip.run import config as configs
from fairclip.run import launch

ROOT = Path(__file__).resolve().parents[1]
PARTS = splits.PARTS
CARS_TRAIN, CARS_TEST = TRAIN * len(CARS), TEST * len(CARS)
RULE = round(0.2 * TRAIN) * len(CARS)  # images that CoOp's rule takes for validation


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No test reaches the network, or is silent because another said the same."""

    def no_network(drive_id, path):
        raise OSError("no network")

    monkeypatch.setattr(split_store, "_download", no_network)
    split_store.fetch_split.cache_clear()
    messages.tell_once.cache_clear()


def build(root: Path, name: str = "StanfordCars", **dataset):
    return build_dataset(config(root, name, **dataset))


def digest(path: str) -> str:
    return hashlib.md5(Path(path).read_bytes()).hexdigest()


def content(dataset, *parts: str) -> dict[str, list[tuple[str, int, str]]]:
    """What a data set says about its pictures, wherever they lie, in its order."""
    return {
        part: [(digest(d.impath), d.label, d.classname) for d in getattr(dataset, {"train": "train_x"}.get(part, part))]
        for part in parts or PARTS
    }


def sizes(dataset) -> tuple[int, ...]:
    return len(dataset.train_x), len(dataset.val), len(dataset.test)


def everything(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


# -- Stanford Cars: one truth in every layout --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """picture -> (label, class name), from the facts rather than from a loader."""
    names = {source: (label, name) for label, (name, source) in enumerate(class_list("stanford_cars"))}
    folder = tmp_path_factory.mktemp("truth")
    found = {}
    for part, file, source in miniatures.cars():
        miniatures.picture(folder / "a.jpg", f"{part} {file}")
        found[digest(folder / "a.jpg")] = names[source]
    assert len(found) == CARS_TRAIN + CARS_TEST
    return found


@pytest.mark.parametrize("layout", CARS_LAYOUTS)
@pytest.mark.parametrize("split", ["", "official"])
def test_labels_and_names_are_true_in_every_layout(tmp_path, truth, layout, split):
    stanford_cars(tmp_path, layout)
    dataset = build(tmp_path, SPLIT=split)
    assert sizes(dataset) == ((CARS_TRAIN, 0, CARS_TEST) if split else (CARS_TRAIN - RULE, RULE, CARS_TEST))
    seen = [row for part in content(dataset).values() for row in part]
    assert {picture: (label, name) for picture, label, name in seen} == truth
    assert dataset.num_classes == 196 and dataset.classnames == [name for name, _ in class_list("stanford_cars")]
    assert dataset.lab2cname == dict(enumerate(dataset.classnames))


@pytest.mark.parametrize("zhou", [True, False])
def test_layouts_with_coops_file_names_give_the_same_split_in_the_same_order(tmp_path, zhou):
    expected = None
    for layout in CARS_WITH_COOPS_NAMES:
        stanford_cars(tmp_path / layout, layout, zhou=zhou)
        found = content(build(tmp_path / layout, NUM_SHOTS=-1))
        expected = expected or found
        assert found == expected, layout
    whole = [row for part in PARTS for row in expected[part]]
    assert len(set(whole)) == CARS_TRAIN + CARS_TEST


def test_the_test_split_is_the_same_in_the_layout_with_other_file_names(tmp_path):
    stanford_cars(tmp_path / "a", "coop")
    stanford_cars(tmp_path / "b", "flat")
    one, other = (content(build(tmp_path / name), "test")["test"] for name in "ab")
    assert sorted(one) == sorted(other)


def test_the_name_with_a_slash(tmp_path):
    for layout in ("coop", "tree", "vissl tree"):
        stanford_cars(tmp_path / layout, layout)
        names = {d.classname for d in build(tmp_path / layout).train_x}
        assert names == {"2000 AM General Hummer SUV", "2012 Audi TTS Coupe", "2012 Ram C/V Cargo Van Minivan"}


def test_one_line_reports_what_was_found(tmp_path, capsys):
    home = stanford_cars(tmp_path, "kaggle", zhou=True)
    build(tmp_path)
    build(tmp_path)  # as trainers do
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("StanfordCars:")]
    assert lines == [
        f"StanfordCars: nested folders cars_train/cars_train in {home}, split: zhou file, 196 classes, "
        "18 train, 6 val, 12 test"
    ]


def test_fair_gives_the_same_result_in_every_layout(tmp_path, monkeypatch):
    """Through the command line."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # setup_logger replaces it
    results, clip = {}, save_clip(tmp_path / "clip.pt", "resnet")
    for layout in ("coop", "kaggle", "doubled", "tree"):
        stanford_cars(tmp_path / layout, layout)
        out = tmp_path / f"out {layout}"
        arguments = [
            "--root",
            tmp_path / layout,
            "--output-dir",
            out,
            "--trainer",
            "FAIR",
            "--seed",
            1,
            "--no-download",
            "--backbone",
            clip,
            "--dataset-config-file",
            ROOT / "configs/datasets/stanford_cars.yaml",
            "--config-file",
            ROOT / "configs/trainers/FAIR/tiny_rn.yaml",
            "OPTIM.MAX_EPOCH",
            1,
            "TRAINER.FAIR.N_CROPS",
            2,
            "TRAINER.FAIR.TOP_K",
            1,
            "DATALOADER.NUM_WORKERS",
            0,
        ]
        assert train([str(argument) for argument in arguments]) == 0
        result = json.loads((out / "results.json").read_text())
        assert result["epochs"][0]["loss"] > 0
        results[layout] = result["epochs"][0]["loss"], result["accuracy"], result["macro_f1"], result["config_hash"]
    assert len(set(results.values())) == 1, results


# -- Stanford Cars: what is missing or ambiguous -----------------------------------------------------------------------


def test_two_copies_are_named_and_none_is_chosen(tmp_path):
    stanford_cars(tmp_path, "coop")
    stanford_cars(tmp_path, "tree")
    with pytest.raises(UserError) as error:
        build(tmp_path)
    for part in ("2 times", "cars_train/ and cars_test/", "train/ and test/ class folders", str(tmp_path)):
        assert part in str(error.value)


def test_two_folders_are_named(tmp_path):
    stanford_cars(tmp_path, "coop")
    stanford_cars(tmp_path / "other", "coop")
    shutil.move(tmp_path / "other" / "stanford_cars", tmp_path / "Cars196")
    with pytest.raises(UserError, match=r"(?s)2 times.*Cars196.*stanford_cars"):
        build(tmp_path)
    shutil.rmtree(tmp_path / "stanford_cars")
    (tmp_path / "stanford_cars").mkdir()  # an empty one is in nobody's way
    assert sizes(build(tmp_path)) == (CARS_TRAIN - RULE, RULE, CARS_TEST)


def test_links_to_the_same_images_are_not_a_second_copy(tmp_path, truth):
    home = stanford_cars(tmp_path, "coop")
    for part, file, source in miniatures.cars():
        link = home / part / source.replace("/", "-") / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(home / f"cars_{part}" / file)
    (tmp_path / "cars").symlink_to(home)
    assert sizes(build(tmp_path)) == (CARS_TRAIN - RULE, RULE, CARS_TEST)


def test_missing_test_labels_are_named_with_their_source(tmp_path):
    home = stanford_cars(tmp_path, "kaggle")
    (home / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UserError) as error:
        build(tmp_path)
    for part in ("no split_zhou_StanfordCars.json", "withlabels.mat is missing", "fair data doctor"):
        assert part in str(error.value)
    (home / "split_zhou_StanfordCars.json").write_text(json.dumps(miniatures.cars_zhou()))
    assert sizes(build(tmp_path)) == (18, 6, 12)


def test_the_file_without_labels_is_told_from_the_one_with(tmp_path):
    home = stanford_cars(tmp_path)
    shutil.copy(home / "devkit" / "cars_test_annos.mat", home / "cars_test_annos_withlabels.mat")
    with pytest.raises(UserError, match="has no field class"):
        build(tmp_path)


def test_damaged_annotations(tmp_path):
    home = stanford_cars(tmp_path)
    (home / "devkit" / "cars_meta.mat").write_bytes(b"not MATLAB" * 20)
    with pytest.raises(UserError, match=r"cars_meta\.mat cannot be read as a MATLAB file"):
        build(tmp_path)


def test_a_class_number_that_is_counted_from_zero_is_an_error(tmp_path):
    home = stanford_cars(tmp_path)
    labels = [{"class": label, "fname": file} for label, (_, file, _) in enumerate(miniatures.cars()[:3])]
    miniatures.write_mat(home / "devkit" / "cars_train_annos.mat", annotations=miniatures.records(labels))
    with pytest.raises(UserError, match="class number 0"):
        build(tmp_path)


def test_nothing_there(tmp_path):
    for folder in ("stanford_cars/devkit", "stanford_cars/cars_train"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=r"(?s)nothing that is known lies in .*stanford_cars.*fair data doctor.*--root"):
        build(tmp_path)
    with pytest.raises(UserError, match=r"not in .*elsewhere"):
        build(tmp_path / "elsewhere")


def test_the_data_folder_itself_given_as_root(tmp_path):
    with pytest.raises(UserError, match="give its parent"):
        build(stanford_cars(tmp_path))


def test_few_missing_images_are_a_warning_or_with_strict_an_error(tmp_path, capsys):
    home = stanford_cars(tmp_path, zhou=True)
    for name in ("cars_train/00001.jpg", "cars_test/00002.jpg"):
        (home / name).unlink()
    dataset = build(tmp_path)
    assert sizes(dataset) == (17, 6, 11)
    out = capsys.readouterr().out
    assert f"2 images of the split are missing, the first is {home / 'cars_train/00001.jpg'}" in out
    with pytest.raises(UserError, match="2 images of the split are missing"):
        build(tmp_path, STRICT=True)


def test_most_of_a_part_missing_is_always_an_error(tmp_path):
    home = stanford_cars(tmp_path, zhou=True)
    shutil.rmtree(home / "cars_test")
    with pytest.raises(UserError, match=r"(?s)12 of the 12 test images are missing.*00001\.jpg.*fair data doctor"):
        build(tmp_path)


def test_counts_that_differ_are_a_warning_with_figures_or_an_error(tmp_path, capsys):
    stanford_cars(tmp_path, zhou=True)
    build(tmp_path)
    message = "18 / 6 / 12 train / val / test images, the full data set 6,509 / 1,635 / 8,041 (zhou)"
    assert f"Warning: StanfordCars: the split has {message}" in capsys.readouterr().out
    with pytest.raises(UserError, match="18 / 6 / 12"):
        build(tmp_path, STRICT=True)


def test_known_counts_are_no_warning(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(StanfordCars, "counts", {"zhou": (18, 6, 12), "official": 36})
    stanford_cars(tmp_path, zhou=True)
    build(tmp_path)
    build(tmp_path, SPLIT="official")
    assert "images, the full data set" not in capsys.readouterr().out


def test_a_class_without_training_images_keeps_its_label_and_the_others_theirs(tmp_path, truth, capsys):
    home = stanford_cars(tmp_path, zhou=True)
    for number in range(2, CARS_TRAIN + 1, 3):
        (home / "cars_train" / f"{number:05}.jpg").unlink()
    dataset = build(tmp_path)
    assert all(truth[picture] == (label, name) for picture, label, name in content(dataset, "train")["train"])
    assert "2012 Audi TTS Coupe" not in {d.classname for d in dataset.train_x}
    assert {d.classname for d in dataset.test} >= {"2012 Audi TTS Coupe"}
    assert dataset.num_classes == 196
    assert "194 classes have no training image (they keep their labels)" in capsys.readouterr().out


def test_corrupt_images_end_the_run_with_all_of_them_listed(tmp_path, capsys):
    home = stanford_cars(tmp_path, zhou=True)
    bad = [home / "cars_train" / "00003.jpg", home / "cars_test" / "00005.jpg"]
    for path in bad:
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError) as error:
        build(tmp_path)
    assert all(str(path) in str(error.value) for path in bad) and "SKIP_CORRUPT" in str(error.value)
    assert sizes(build(tmp_path, SKIP_CORRUPT=True)) == (17, 6, 11)
    assert str(bad[1]) in capsys.readouterr().out


def test_check_images_looks_again(tmp_path, monkeypatch):
    stanford_cars(tmp_path, zhou=True)
    asked = []

    def check(paths, name, again):
        asked.append((len(paths), name, again))
        return images.Checked([], [])

    monkeypatch.setattr(labelled, "examine", check)
    build(tmp_path)
    build(tmp_path, CHECK_IMAGES=True)
    assert asked == [(36, "StanfordCars", False), (36, "StanfordCars", True)]


def test_few_shots_and_halves_go_by_all_classes(tmp_path):
    stanford_cars(tmp_path, zhou=True)
    dataset = build(tmp_path, NUM_SHOTS=2, SUBSAMPLE_CLASSES="base")
    assert dataset.classnames == [name for name, _ in class_list("stanford_cars")][:98]
    assert {d.classname for d in dataset.train_x} == {"2000 AM General Hummer SUV", "2012 Audi TTS Coupe"}
    assert sizes(dataset) == (4, 4, 8)
    new = build(tmp_path, SUBSAMPLE_CLASSES="new")
    assert {(new.classnames[d.label], d.classname) for d in new.test} == {("2012 Ram C/V Cargo Van Minivan",) * 2}


def test_it_works_where_coops_train_py_declares_the_keys(tmp_path):
    stanford_cars(tmp_path, zhou=True)
    cfg = get_cfg_default()
    cfg.DATASET.SUBSAMPLE_CLASSES = "all"
    cfg.DATASET.ROOT, cfg.DATASET.NAME = str(tmp_path), "StanfordCars"
    assert sizes(build_dataset(cfg)) == (18, 6, 12)


def test_how_a_run_is_done_is_not_in_its_hash():
    from fairclip.run.settings import run_hash

    others = ["DATALOADER.TEST.BATCH_SIZE", "7", "TRAIN.CHECKPOINT_FREQ", "2", "TEST.EVERY_EPOCH", "True"]
    plain, flagged, watched = (
        configs.build_cfg(launch.parse_args(argv), [settings])
        for argv in ([], ["--no-download", "--check-images"], others)
    )
    assert (plain.DATASET.DOWNLOAD, plain.DATASET.CHECK_IMAGES) == (True, False)
    assert (flagged.DATASET.DOWNLOAD, flagged.DATASET.CHECK_IMAGES) == (False, True)
    assert run_hash(plain) == run_hash(flagged) == run_hash(watched)


# -- Split files -------------------------------------------------------------------------------------------------------


def test_a_made_split_is_kept_beside_the_data_and_said_to_be_made(tmp_path, capsys):
    home = stanford_cars(tmp_path)
    first = content(build(tmp_path))
    out = capsys.readouterr().out
    file = home / "split_zhou_StanfordCars.json"
    assert f"made the split by CoOp's rule, kept in {file}" in out and "not CoOp's very own" in out
    assert "split: built by the CoOp rule" in out
    split = load_split(file)
    assert split["train"][0][0].startswith("cars_train/") and "rule 'trainval'" in split.made_by
    (home / "devkit" / "cars_meta.mat").unlink()  # the file is all that is needed
    messages.tell_once.cache_clear()
    assert content(build(tmp_path)) == first
    assert "split: built by the CoOp rule" in capsys.readouterr().out  # not passed off as CoOp's


def test_a_read_only_data_folder_is_left_alone(tmp_path, cache, monkeypatch):
    home = stanford_cars(tmp_path)
    before = everything(tmp_path)
    real = splits.atomic

    def atomic(path):  # chmod does not stop root, who runs tests in containers
        if Path(path).is_relative_to(tmp_path):
            raise PermissionError(13, "Read-only file system", str(path))
        return real(path)

    monkeypatch.setattr(splits, "atomic", atomic)
    first = content(build(tmp_path))
    assert everything(tmp_path) == before
    kept = list((cache / "splits").rglob("*.json"))
    assert [path.name for path in kept] == ["split_zhou_StanfordCars.json"]
    (home / "devkit" / "cars_meta.mat").unlink()
    assert content(build(tmp_path)) == first
    # Another copy does not get this one's split.
    shutil.copytree(home, tmp_path / "elsewhere" / "stanford_cars")
    with pytest.raises(UserError, match=r"cars_meta\.mat is missing"):
        build(tmp_path / "elsewhere")


def test_a_run_goes_on_where_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    stanford_cars(tmp_path)

    def atomic(path):
        raise PermissionError(13, "Read-only file system", str(path))

    monkeypatch.setattr(splits, "atomic", atomic)
    assert sizes(build(tmp_path)) == (CARS_TRAIN - RULE, RULE, CARS_TEST)
    assert "could not be kept" in capsys.readouterr().out


def test_a_split_file_is_fetched_once_and_its_hash_recorded(tmp_path, monkeypatch, capsys):
    home = stanford_cars(tmp_path, mats=False)
    calls = []

    def download(drive_id, path):
        calls.append(drive_id)
        path.write_text(json.dumps(miniatures.cars_zhou()))

    monkeypatch.setattr(split_store, "_download", download)
    file = home / "split_zhou_StanfordCars.json"
    with pytest.raises(UserError, match="cars_meta"):
        build(tmp_path, DOWNLOAD=False)
    assert not calls
    assert sizes(build(tmp_path)) == sizes(build(tmp_path)) == (18, 6, 12)
    assert calls == [StanfordCars.drive_id]
    assert "split: zhou file" in capsys.readouterr().out
    record = file.with_name(f"{file.name}.sha256")
    assert record.read_text() == f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
    file.write_text(file.read_text().replace("cars_train/00001", "cars_train/00003"))
    with pytest.raises(UserError, match="has changed since it was fetched"):
        build(tmp_path)
    record.unlink()
    assert sizes(build(tmp_path)) == (18, 6, 12)


@pytest.mark.parametrize(
    "error, reason",
    [
        (OSError("no route\nto host"), "to host"),
        (subprocess.TimeoutExpired("gdown", 60), "no answer within 60 seconds"),
        (subprocess.CalledProcessError(1, "gdown", stderr="Traceback\n\nToo many users have viewed it\n"), "Too many"),
        (None, "is not a split file"),
    ],
)
def test_a_failed_fetch_is_one_line_and_the_run_goes_on(tmp_path, monkeypatch, capsys, error, reason):
    home = stanford_cars(tmp_path)
    calls = []

    def download(drive_id, path):
        calls.append(path)
        path.write_text("<html>Google Drive - Quota exceeded</html>")
        if error:
            raise error

    monkeypatch.setattr(split_store, "_download", download)
    assert sizes(build(tmp_path)) == (CARS_TRAIN - RULE, RULE, CARS_TEST)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "could not be fetched" in line]
    assert reason in line
    assert len(calls) == 1 and not (home / "split_zhou_StanfordCars.json.sha256").exists()


def test_gdown_is_asked_as_its_command_line_wants(tmp_path, monkeypatch):
    monkeypatch.undo()
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(split_store.subprocess, "run", lambda command, **options: asked.append((command, options)))
        split_store._download("an-id", tmp_path / "a.json")
    ((command, options),) = asked
    assert command[:3] == [sys.executable, "-m", "gdown"] and command[-1] == "an-id"
    assert command[command.index("-O") + 1] == str(tmp_path / "a.json")
    assert options["check"] and options["timeout"] == 60
    usage = subprocess.run([*command[:3], "--help"], capture_output=True, text=True, timeout=60).stdout
    assert "-O " in usage and "--quiet" in usage and "url_or_id" in usage


def rewritten(split: dict, label, name=lambda name: name) -> dict:
    return {part: [[key, label(y), name(n)] for key, y, n in split[part]] for part in PARTS}


def test_a_split_file_with_the_year_last_gets_coops_names(tmp_path, truth):
    home = stanford_cars(tmp_path, mats=False)
    last = rewritten(miniatures.cars_zhou(), int, lambda name: f"{name[5:]} {name[:4]}")
    (home / "split_zhou_StanfordCars.json").write_text(json.dumps(last))
    for part in content(build(tmp_path)).values():
        assert all(truth[picture] == (label, name) for picture, label, name in part)


def test_a_split_file_of_a_few_classes_numbered_anew_stands_for_itself(tmp_path, capsys):
    home = stanford_cars(tmp_path, mats=False)
    old = sorted({label for _, label, _ in miniatures.cars_zhou()["train"]})
    few = rewritten(miniatures.cars_zhou(), lambda label: (old.index(label) + 1) % 3)
    (home / "split_zhou_StanfordCars.json").write_text(json.dumps(few))
    dataset = build(tmp_path)
    names = ["2012 Ram C/V Cargo Van Minivan", "2000 AM General Hummer SUV", "2012 Audi TTS Coupe"]
    assert dataset.classnames == names
    assert {(d.label, d.classname) for d in dataset.test} == set(enumerate(names))
    assert "has its own 3 classes" in capsys.readouterr().out


def test_a_split_file_with_all_classes_in_another_order_is_put_right(tmp_path, truth, monkeypatch, capsys):
    few = [row for row in class_list("stanford_cars") if row[1] in CARS]
    monkeypatch.setattr(choose_split, "class_list", lambda dataset_dir: few)
    home = stanford_cars(tmp_path, mats=False)
    old = sorted({label for _, label, _ in miniatures.cars_zhou()["train"]})
    other = rewritten(miniatures.cars_zhou(), lambda label: 2 - old.index(label))
    (home / "split_zhou_StanfordCars.json").write_text(json.dumps(other))
    dataset = build(tmp_path)
    assert dataset.classnames == [name for name, _ in few]
    for picture, label, name in content(dataset, "test")["test"]:
        assert (truth[picture][1], few[label][0]) == (name, name)
    assert "usual labels" in capsys.readouterr().out


def test_a_split_file_of_other_images_is_not_used(tmp_path, capsys):
    home = stanford_cars(tmp_path, "flat", zhou=True)
    before = (home / "split_zhou_StanfordCars.json").read_text()
    assert sizes(build(tmp_path)) == (CARS_TRAIN - RULE, RULE, CARS_TEST)
    assert "is not used: none of the images" in capsys.readouterr().out
    assert (home / "split_zhou_StanfordCars.json").read_text() == before


def test_a_split_file_that_contradicts_the_folders_is_not_used(tmp_path, truth, capsys):
    """The files of a tree may be numbered otherwise than the official ones that they are named like."""
    home = stanford_cars(tmp_path, "tree")
    wrong = rewritten(miniatures.cars_zhou(), int)
    wrong["test"][0][0], wrong["test"][1][0] = wrong["test"][1][0], wrong["test"][0][0]
    (home / "split_zhou_StanfordCars.json").write_text(json.dumps(wrong))
    for part in content(build(tmp_path)).values():
        assert all(truth[picture] == (label, name) for picture, label, name in part)
    assert "the folders put other images into its classes" in capsys.readouterr().out


def test_a_split_file_may_lie_in_the_inner_folder(tmp_path, capsys):
    home = stanford_cars(tmp_path, "doubled", zhou=True, mats=False)
    (home / "split_zhou_StanfordCars.json").rename(home / "stanford_cars" / "split_zhou_StanfordCars.json")
    assert sizes(build(tmp_path)) == (18, 6, 12)
    assert "split: zhou file" in capsys.readouterr().out


def test_malformed_split_file_names_the_data_set(tmp_path):
    home = stanford_cars(tmp_path)
    (home / "split_zhou_StanfordCars.json").write_text("[]")
    with pytest.raises(UserError, match=r"StanfordCars in .*is not a split file"):
        build(tmp_path)


def test_unknown_split(tmp_path):
    stanford_cars(tmp_path)
    with pytest.raises(UserError, match="'coop'; StanfordCars has zhou and official"):
        build(tmp_path, SPLIT="coop")


def test_coops_rules_round_as_python_does():
    items = [
        (f"{name}{number:03}", label)
        for label, (name, n) in enumerate([("a", 41), ("b", 83), ("c", 7), ("d", 1)])
        for number in range(n)
    ]
    names = ["a", "b", "c", "d"]

    def numbers(made):
        return {part: [sum(y == label for _, y in made[part]) for label in range(4)] for part in made}

    one, two = split_trainval("x", items, names), split_all("x", items, names)
    assert numbers(one) == {"train": [33, 66, 6, 1], "val": [8, 17, 1, 0]}
    # 20.5 and 3.5 go to the even number
    assert numbers(two) == {"train": [20, 42, 4, 0], "val": [8, 17, 1, 0], "test": [13, 24, 2, 1]}
    for made in (one, two):
        assert sorted(item for part in made.values() for item in part) == sorted(items)


def test_the_draw_of_a_class_depends_on_data_set_and_name_alone():
    items = [(f"{label}/{number}", label) for label in range(3) for number in range(30)]

    def train_of(label, made):
        return [key for key, y in made["train"] if y == label]

    whole = split_all("x", items, ["a", "b", "c"])
    shifted = split_all("x", [(key, 0) for key, label in reversed(items) if label == 2], ["c"])
    assert train_of(2, whole) == train_of(0, shifted)
    assert train_of(2, whole) != train_of(2, split_all("y", items, ["a", "b", "c"]))
    assert train_of(2, whole) != train_of(2, split_all("x", items, ["a", "b", "d"]))


def test_nobodys_split_file_is_overwritten(tmp_path, cache):
    split = {"train": [("a.jpg", 0, "x")], "val": [], "test": []}
    write_split(split, tmp_path / "s.json")
    file = keep_split(split, tmp_path, "s.json", "us")
    assert file.is_relative_to(cache) and load_split(tmp_path / "s.json").made_by == ""
    assert file in split_places(tmp_path, "s.json") and load_split(file).made_by == "us"
    assert file not in split_places(tmp_path / "other", "s.json")


# -- Trees -------------------------------------------------------------------------------------------------------------


def test_a_tree_with_its_own_val_is_taken_as_it_is(tmp_path):
    home = stanford_cars(tmp_path, "tree")
    moved = home / "valid" / "Audi TTS Coupe 2012"
    moved.mkdir(parents=True)
    shutil.move(home / "train" / "Audi TTS Coupe 2012" / "00002.jpg", moved)
    dataset = build(tmp_path)
    assert sizes(dataset) == (CARS_TRAIN - 1, 1, CARS_TEST)
    assert dataset.val[0].classname == "2012 Audi TTS Coupe"


def test_a_tree_with_its_own_val_and_coops_rule_asked_for(tmp_path):
    home = stanford_cars(tmp_path, "tree")
    expected = content(build(tmp_path))
    (home / "split_zhou_StanfordCars.json").unlink()
    (home / "val" / "Audi TTS Coupe 2012").mkdir(parents=True)
    for number in (2, 5):
        path = home / "train" / "Audi TTS Coupe 2012" / f"{number:05}.jpg"
        shutil.move(path, home / "val" / "Audi TTS Coupe 2012")
    found = content(build(tmp_path, SPLIT="zhou"))
    # The same images are dealt out; those from val have other keys, so the draw is another.
    assert {part: len(rows) for part, rows in found.items()} == {part: len(rows) for part, rows in expected.items()}
    assert found["test"] == expected["test"]


def test_a_tree_that_calls_its_test_val(tmp_path):
    home = stanford_cars(tmp_path, "tree")
    (home / "test").rename(home / "val")
    assert sizes(build(tmp_path)) == sizes(build(tmp_path, DOWNLOAD=False)) == (CARS_TRAIN - RULE, RULE, CARS_TEST)
    assert sizes(build(tmp_path, SPLIT="official")) == (CARS_TRAIN, 0, CARS_TEST)


def test_a_tree_whose_folders_number_their_files_anew(tmp_path):
    home = stanford_cars(tmp_path, "tree", zhou=True)
    for folder in [*(home / "train").iterdir(), *(home / "test").iterdir()]:
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"img_{number}.jpg")
    dataset = build(tmp_path)
    assert sizes(dataset) == (CARS_TRAIN - RULE, RULE, CARS_TEST)
    assert len({d.impath for d in [*dataset.train_x, *dataset.val, *dataset.test]}) == CARS_TRAIN + CARS_TEST


def test_a_folder_that_is_no_class_is_left_out_by_name(tmp_path, capsys):
    home = stanford_cars(tmp_path, "tree")
    miniatures.picture(home / "train" / "Trabant 601 1988" / "1.jpg", "x")
    assert sizes(build(tmp_path)) == (CARS_TRAIN - RULE, RULE, CARS_TEST)
    assert f"no class of the name of {home / 'train' / 'Trabant 601 1988'}" in capsys.readouterr().out


def test_stray_files_are_no_images(tmp_path):
    home = stanford_cars(tmp_path, "tree")
    folder = home / "train" / "Audi TTS Coupe 2012"
    for name in (".directory", "._00002.jpg", "Thumbs.db", "notes.mat"):
        (folder / name).write_text("x")
    (home / "train" / ".ipynb_checkpoints").mkdir()
    miniatures.picture(home / "train" / ".ipynb_checkpoints" / "a.jpg", "x")
    assert sizes(build(tmp_path)) == (CARS_TRAIN - RULE, RULE, CARS_TEST)


# -- Food-101 ----------------------------------------------------------------------------------------------------------


def test_food101_in_its_layouts(tmp_path):
    labels = {name: label for label, (name, _) in enumerate(class_list("food-101"))}
    n = len(miniatures.FOOD)
    zhou, official, made = [], [], []
    for layout in miniatures.FOOD_LAYOUTS:
        root = tmp_path / layout
        food101(root, layout)
        official.append(content(build(root, "Food101", SPLIT="official")))
        made.append(content(build(root, "Food101", SPLIT="zhou")))
        food101(root, layout, zhou=True)
        zhou.append(content(build(root, "Food101")))
        dataset = build(root, "Food101")
        assert dataset.num_classes == 101
        seen = {(Path(d.impath).parent.name, d.label) for d in dataset.test}
        assert seen == {(name, labels[name]) for name in miniatures.FOOD}
    for found, numbers in ((official, (8, 0, 4)), (made, (6, 2, 4)), (zhou, (4, 4, 4))):
        assert tuple(len(found[0][part]) for part in PARTS) == tuple(n * number for number in numbers)
        assert found[0] == found[1] == found[2]


def test_a_food_tree_is_its_own_split_unless_coops_is_there(tmp_path, capsys):
    food101(tmp_path, "tree")
    assert sizes(build(tmp_path, "Food101")) == (24, 0, 12)
    assert "split: folders" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.json"))


def test_food101_without_its_lists_has_coops_split_and_no_official_one(tmp_path):
    home = food101(tmp_path)
    shutil.rmtree(home / "meta")
    assert sizes(build(tmp_path, "Food101")) == (18, 6, 12)
    with pytest.raises(UserError, match=r"meta/train\.txt is missing"):
        build(tmp_path, "Food101", SPLIT="official")


def test_torchvisions_and_kaggles_folder_names(tmp_path):
    food101(tmp_path / "a")
    shutil.move(tmp_path / "a" / "food-101", tmp_path / "Food101")
    assert Food101.locate(tmp_path).home == tmp_path / "Food101"


# -- Looking at folders ------------------------------------------------------------------------------------------------


def test_names_match_in_many_spellings_but_never_two_ways():
    classes = [
        ("Black-footed Albatross", "001.Black_footed_Albatross"),
        ("F/A-18", "F/A-18"),
        ("707-320", "707-320"),
        ("ab c", "ab c"),
        ("a bc", "a bc"),
        ("5", "5"),
    ]
    found = [
        "001.Black_footed_Albatross",
        "Black_footed_Albatross",
        "BLACK FOOTED ALBATROSS",
        "F-A-18",
        "001_F_A_18",
        "707-320",
        "ab c",
        "abc",
        "320",
        "5",
        "Boeing",
    ]
    labels = {
        "001.Black_footed_Albatross": 0,
        "Black_footed_Albatross": 0,
        "BLACK FOOTED ALBATROSS": 0,
        "F-A-18": 1,
        "001_F_A_18": 1,
        "707-320": 2,
        "ab c": 3,
        "5": 5,
    }
    assert match_classes(found, classes) == labels


def test_images_below_is_sorted_and_follows_links_once(tmp_path):
    for name in ("b/2.JPG", "b/c/1.png", "a.jpeg", "a.txt", ".hidden/x.jpg"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).touch()
    (tmp_path / "x" / "b" / "back").symlink_to(tmp_path / "x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "3.jpg").touch()
    (tmp_path / "x" / "z").symlink_to(tmp_path / "out")
    assert list(images_below(tmp_path / "x")) == ["a.jpeg", "b/2.JPG", "b/c/1.png", "z/3.jpg"]


def test_doubled_folders(tmp_path):
    inner = tmp_path / "images" / "Images" / "images"
    inner.mkdir(parents=True)
    assert skip_doubled(tmp_path / "images") == inner
    (tmp_path / "images" / "a.jpg").touch()
    assert skip_doubled(tmp_path / "images") == tmp_path / "images"  # its own images are not passed over


def test_part_and_class_folders(tmp_path):
    for name in ("Train/001.cat", "Train/dog", "Train/.x", "testing/cat"):
        (tmp_path / name).mkdir(parents=True)
    parts = part_folders(tmp_path)
    assert {part: place.name for part, place in parts.items()} == {"train": "Train", "test": "testing"}
    assert class_folders(parts["train"], [("cat", "cat"), ("dog", "dog")]) == {"001.cat": 0, "dog": 1}
    assert class_folders(parts["train"], [("cow", "cow"), ("dog", "dog")]) == {}
    assert part_folders(tmp_path / "Train") == {}
    (tmp_path / "testing").rename(tmp_path / "valid")
    assert {part: place.name for part, place in part_folders(tmp_path).items()} == {"train": "Train", "test": "valid"}


def test_annotation_files(tmp_path):
    miniatures.write_mat(tmp_path / "one.mat", annotations=miniatures.records([{"fname": "a.jpg", "class": 3}]))
    assert [(str(name), int(y)) for name, y in mat_rows(tmp_path / "one.mat", "annotations", "fname", "class")] == [
        ("a.jpg", 3)
    ]
    with pytest.raises(UserError, match="no variable labels"):
        mat_rows(tmp_path / "one.mat", "labels", "class")
    assert name_of_number(["a", "b"], 2, tmp_path) == "b"
    with pytest.raises(UserError, match="class number 0"):
        name_of_number(["a", "b"], 0, tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst \r\n\r\nsecond")
    assert read_lines(tmp_path / "a.txt") == ["first", "second"]
    with pytest.raises(UserError, match="cannot be read as text"):
        read_lines(tmp_path / "b.txt")
