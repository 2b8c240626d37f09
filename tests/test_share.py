"""A trained model as a folder to share, and on a hub that a stand-in plays: nothing here needs a network."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from commands import predict
from forked import Forked, without
from safetensors.torch import load_file, save_file
from toys import CLASSES, run

from fairclip import Predictor
from fairclip.core.errors import UserError

pytestmark = pytest.mark.usefixtures("console")

FILES = ["README.md", "fair.json", "model.safetensors"]


@pytest.fixture(scope="module")
def finished(data, backbone, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run("FAIR", data, backbone, out, "OPTIM.LR", "1e-2", "OPTIM.MAX_EPOCH", "2", "TRAIN.CHECKPOINT_FREQ", "1")
    return out


@pytest.fixture
def shared(finished, tmp_path) -> Path:
    return Predictor.load(finished, device="cpu").to_folder(tmp_path / "shared")


def images(data: Path) -> list[Path]:
    return sorted(data.glob("test_*.png"))


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


# -- The folder --------------------------------------------------------------------------------------------------------


def test_a_folder_predicts_as_the_run_does(finished, shared, backbone, data, tmp_path):
    assert sorted(path.name for path in shared.iterdir()) == FILES
    original, copy = Predictor.load(finished), Predictor.from_folder(shared, backbone=str(backbone))
    assert torch.equal(copy(images(data)), original(images(data)))
    assert torch.equal(copy(images(data), crops=True), original(images(data), crops=True))
    assert copy.settings == original.settings and copy.classnames == CLASSES
    again = copy.to_folder(tmp_path / "again")
    for name in FILES:
        assert (again / name).read_bytes() == (shared / name).read_bytes()
    loaded = Predictor.load(shared, backbone=str(backbone))
    assert torch.equal(loaded(images(data)[0]), original(images(data)[0]))
    with pytest.raises(UserError, match="in a run's folder only"):
        Predictor.load(shared, epoch=1)


@pytest.mark.parametrize("trainer, opts", [("UPL", ("TRAINER.UPL.ENSEMBLE", "2")), ("LinearProbe", ())])
def test_what_is_more_than_cosines_is_shared_too(trainer, opts, data, backbone, tmp_path):
    run(trainer, data, backbone, tmp_path / "run", "OPTIM.MAX_EPOCH", "1", *opts)
    original = Predictor.load(tmp_path / "run")
    copy = Predictor.from_folder(original.to_folder(tmp_path / "shared"), backbone=str(backbone))
    assert torch.equal(copy(images(data)), original(images(data)))


def test_no_path_of_this_machine_is_shared(shared, backbone):
    facts = json.loads((shared / "fair.json").read_text())
    assert facts["backbone"] == "vit.pt" and facts["format"] == "fair-folder-1"
    for name in FILES:
        assert str(backbone.parent).encode() not in (shared / name).read_bytes()
    tensors = load_file(shared / "model.safetensors")
    assert tensors["anchors"].shape == (3, 16)
    assert all(name == "anchors" or name.startswith("visual.ln_") or ".ln_" in name for name in tensors)


def test_the_card_says_what_it_is(finished, shared, tmp_path):
    card, said = (shared / "README.md").read_text(), results(finished)
    assert card.startswith("---\nlibrary_name: fairclip\n") and "# FAIR on Toy\n" in card
    assert "(vit.pt)" in card and "Toy, without labels (epoch 2, seed 1)" in card
    assert f"| accuracy | {said['accuracy']:.2f} % |" in card and "| On the test images | |" in card
    assert f"| accuracy with crops | {said['crop_accuracy']:.2f} % |" in card
    assert "Classes: red car, green car, blue car." in card
    assert "fair predict FOLDER IMAGES... --backbone vit.pt" in card and 'backbone="vit.pt")' in card
    assert "## Licence\n\nNone is chosen yet." in card and "license: " not in card

    (shared / "README.md").write_text("mine")
    Predictor.load(finished).to_folder(shared)
    assert (shared / "README.md").read_text() == "mine"
    # What is known of the run's last epoch and classes is not said of others.
    early = Predictor.load(finished, epoch=1).to_folder(tmp_path / "early")
    other = Predictor.load(finished).with_classes(["bike", "red car"]).to_folder(tmp_path / "other")
    for folder in (early, other):
        assert "accuracy" not in (folder / "README.md").read_text()
    assert "(epoch 1, seed 1)" in (early / "README.md").read_text()


def test_where_no_folder_is_written(finished, tmp_path, monkeypatch):
    predictor = Predictor.load(finished)
    with pytest.raises(UserError, match="the folder of a run: name another one"):
        predictor.to_folder(finished)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file: name a folder"):
        predictor.to_folder(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(UserError, match="needs the package safetensors"):
        predictor.to_folder(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


# -- What is read is checked -------------------------------------------------------------------------------------------


def facts(**new) -> Callable[[Path], None]:
    """Other values in fair.json, by dotted key; None: without that key."""

    def change(folder: Path) -> None:
        content = json.loads((folder / "fair.json").read_text())
        for key, value in new.items():
            *outer, name = key.split("__")
            node = content[outer[0]] if outer else content
            node[name] = value
            if value is None:
                del node[name]
        (folder / "fair.json").write_text(json.dumps(content))

    return change


def tensors(**new) -> Callable[[Path], None]:
    """Other tensors in model.safetensors; None: without that one."""

    def change(folder: Path) -> None:
        content = load_file(folder / "model.safetensors") | new
        save_file({name: value for name, value in content.items() if value is not None}, folder / "model.safetensors")

    return change


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def linked(name: str) -> Callable[[Path], None]:
    """A link to the same file elsewhere."""

    def change(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / name)
        (folder / name).symlink_to(folder.parent / name)

    return change


def without_digest(change):
    """As folders from before there was one."""

    def both(folder: Path) -> None:
        facts(sha256=None)(folder)
        change(folder)

    return both


CROPS = {"n": 4, "k": 5, "alpha": 0.7, "beta": 1.0, "sharpness": 1.0}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "it has no model.safetensors"),
        (linked("model.safetensors"), "model.safetensors leads out of the folder"),
        (linked("fair.json"), "fair.json leads out of the folder"),
        (written("fair.json", "{"), "fair.json cannot be read .*not valid JSON"),
        (written("fair.json", "[" * 100000), "fair.json cannot be read .*nested too deeply"),
        (written("fair.json", "[]"), "it is not a JSON object"),
        (facts(format="fair-folder-2"), "does not have the format fair-folder-1"),
        (facts(classnames=None), "lacks classnames: a list of different names"),
        (facts(classnames=["a", "a", "b"]), "classnames is .* a list of different names"),
        (facts(classnames=["a", "b"]), r"anchors has the shape \(3, 16\), and fair.json has 2 class names"),
        (facts(more=1), "keys that this version does not know: more"),
        (facts(settings__more=1), "keys that this version does not know: settings.more"),
        (facts(settings=[]), "settings is .* a JSON object"),
        (facts(settings__size="32"), "settings.size is '32'"),
        (facts(settings__size=10**9), "settings.size is 1000000000: it has to be a whole number from 1 to 4096"),
        (facts(settings__size=64), "not the backbone that .* was trained on"),
        (facts(settings__mean=[0.5, 0.5]), "settings.mean is .* three numbers"),
        (facts(settings__std=[0.5, 0.5, float("nan")]), "NaN is no number in JSON"),
        (facts(settings__std=[0.5, 0.5, 10**400]), "settings.std is .* three numbers above 0"),
        (facts(settings__prec="fp8"), "settings.prec is 'fp8'"),
        (facts(settings__crops=CROPS), "settings.crops is"),
        (facts(settings__crops={"n": 1}), "settings.crops is"),
        (facts(settings__lengths=[1.0, 2.0]), "settings.lengths has 2 numbers for 3 classes"),
        (facts(settings__bias="big"), "settings.bias is 'big'"),
        (facts(results__accuracy=101), "results.accuracy is 101"),
        (facts(tower_hash="0" * 64), "the same shape, but other weights"),
        (facts(tower_hash="a"), "tower_hash is 'a'"),
        (facts(backbone="a" * 999), "backbone is"),
        (written("model.safetensors", "no tensors"), "is not a whole .safetensors file"),
        (tensors(anchors=None), "has no tensor anchors"),
        (tensors(anchors=torch.ones(3)), "anchors has the shape"),
        (tensors(anchors=torch.full((3, 16), torch.nan)), "not finite numbers: anchors"),
        (tensors(anchors=torch.ones(3, 16, dtype=torch.int64)), "not finite numbers: anchors"),
        (tensors(anchors=torch.ones(3, 16)), "fair.json: its tensors have another SHA-256"),
        (without_digest(tensors(anchors=torch.ones(3, 8))), "another shape"),
        (tensors(head=torch.ones(1)), "tensors that no model of ours has: head"),
        (without_digest(tensors(**{"visual.more": torch.ones(1)})), "has parameters that vit.pt lacks: visual.more"),
        (without_digest(tensors(**{"visual.ln_post.weight": torch.ones(1)})), "does not fit"),
    ],
)
def test_each_fault_is_one_message(shared, backbone, change, message):
    change(shared)
    with pytest.raises(UserError, match=message):
        Predictor.from_folder(shared, backbone=str(backbone))


def test_pickles_are_not_read(shared, backbone):
    state = {"anchors": torch.ones(3, 16)}
    torch.save(state, shared / "model.safetensors")
    with pytest.raises(UserError, match="is not a whole .safetensors file"):
        Predictor.from_folder(shared, backbone=str(backbone))


@pytest.mark.parametrize("name", ["/etc/vit.pt", "../vit.pt", "~/vit.pt", "here.pt"])
def test_a_folder_does_not_choose_files_of_this_machine(name, shared, backbone, tmp_path, monkeypatch):
    shutil.copy(backbone, tmp_path / "here.pt")
    monkeypatch.chdir(tmp_path)
    facts(backbone=name)(shared)
    with pytest.raises(UserError, match=f"names the backbone {name}, which is a file on this machine"):
        Predictor.from_folder(shared)
    assert Predictor.from_folder(shared, backbone="here.pt").classnames == CLASSES


def test_a_backbone_that_is_not_there_is_asked_for(shared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="say where it is now"):
        Predictor.from_folder(shared)


# -- fair predict ------------------------------------------------------------------------------------------------------


def test_fair_predict_takes_the_folder(finished, shared, backbone, data, capsys):
    paths = [str(path) for path in images(data)]
    assert predict([str(finished), *paths]) == 0
    expected = capsys.readouterr().out
    assert predict([str(shared), *paths, "--backbone", str(backbone)]) == 0
    assert capsys.readouterr().out == expected
    facts(settings__prec="fp8")(shared)
    assert predict([str(shared), *paths, "--backbone", str(backbone)]) == 2
    assert capsys.readouterr().err.startswith(f"Error: {shared / 'fair.json'}: settings.prec is 'fp8'")


def test_neither_the_hub_nor_dassl_is_imported(shared, backbone, data, tmp_path):
    def work() -> None:
        without("huggingface_hub", "dassl", "yacs")
        predictor = importlib.import_module("fairclip").Predictor.from_folder(str(shared), backbone=str(backbone))
        print(predictor(str(images(data)[0])).shape)

    done = Forked(work, tmp_path / "said")
    assert done.wait() == 0 and done.said()[0] == "torch.Size([1, 3])\n", done.said()


# -- The hub -----------------------------------------------------------------------------------------------------------


class Hub(ModuleType):
    """Stands in for huggingface_hub: one repository, whose files lie in a folder, and a cache as the package has it."""

    def __init__(self, folder: Path) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.calls = folder, list[tuple]()
        self.repository = folder / "repository"

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create", repo_id, private, exist_ok))
        self.repository.mkdir(exist_ok=True)

    def file_exists(self, repo_id: str, filename: str) -> bool:
        return (self.repository / filename).exists()

    def upload_folder(
        self, *, repo_id: str, folder_path: str, commit_message: str, ignore_patterns: list[str] | None
    ) -> None:
        files = sorted(path.name for path in Path(folder_path).iterdir() if path.name not in (ignore_patterns or ()))
        self.calls.append(("upload", repo_id, files))
        for name in files:
            shutil.copy(Path(folder_path) / name, self.repository)

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.calls.append(("download", repo_id, revision, sorted(allow_patterns)))
        if not self.repository.is_dir():
            raise ConnectionError(f"no repository {repo_id}\nand more")
        snapshot, blobs = self.folder / "models--me--cars/snapshots/0123", self.folder / "models--me--cars/blobs"
        shutil.rmtree(snapshot.parents[1], ignore_errors=True)
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        for i, name in enumerate(allow_patterns):
            shutil.copy(self.repository / name, blobs / str(i))
            (snapshot / name).symlink_to(Path("../../blobs") / str(i))
        return str(snapshot)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    stand_in = Hub(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    return stand_in


def test_to_the_hub_and_back(finished, backbone, data, hub):
    original = Predictor.load(finished)
    with pytest.raises(UserError, match="^cannot download me/cars: no repository me/cars$"):
        Predictor.from_hub("me/cars")
    assert original.push_to_hub("me/cars", private=True) == "https://huggingface.co/me/cars"
    assert hub.calls[1:] == [("create", "me/cars", True, True), ("upload", "me/cars", FILES)]
    copy = Predictor.from_hub("me/cars", revision="v1", backbone=str(backbone))
    assert hub.calls[-1] == ("download", "me/cars", "v1", FILES[1:])
    assert torch.equal(copy(images(data)), original(images(data)))

    (hub.repository / "README.md").write_text("under a licence of mine")  # written on the hub
    original.push_to_hub("me/cars")
    assert hub.calls[-1] == ("upload", "me/cars", FILES[1:])


def test_links_out_of_the_cache_are_refused(finished, backbone, hub):
    Predictor.load(finished).push_to_hub("me/cars")
    download = hub.snapshot_download

    def elsewhere(*args, **kwargs) -> str:
        snapshot = Path(download(*args, **kwargs))
        (snapshot / "fair.json").unlink()
        (snapshot / "fair.json").symlink_to(hub.repository / "fair.json")
        return str(snapshot)

    hub.snapshot_download = elsewhere
    with pytest.raises(UserError, match="fair.json leads out of the folder"):
        Predictor.from_hub("me/cars", backbone=str(backbone))


def test_what_the_hub_says_is_told(finished, hub, monkeypatch):
    def refuse(*args, **kwargs) -> None:
        raise PermissionError("401: log in first")

    hub.create_repo = refuse
    with pytest.raises(UserError, match="^cannot upload to me/cars: 401: log in first$"):
        Predictor.load(finished).push_to_hub("me/cars")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: Predictor.load(finished).push_to_hub("me/cars"), lambda: Predictor.from_hub("me/cars")):
        with pytest.raises(UserError, match="pip install huggingface_hub safetensors"):
            call()


def test_the_package_takes_these_calls():
    """The stand-in has the arguments that huggingface_hub has."""
    import inspect

    huggingface_hub = pytest.importorskip("huggingface_hub")
    for name in ("create_repo", "file_exists", "upload_folder", "snapshot_download"):
        ours = inspect.signature(getattr(Hub, name)).parameters.keys() - {"self"}
        assert ours <= inspect.signature(getattr(huggingface_hub, name)).parameters.keys()
