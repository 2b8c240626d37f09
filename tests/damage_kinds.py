"""The kinds of files that are damaged: how each is made, and how the product reads it."""

import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from made_up_runs import finish, load
from PIL import Image
from test_network import random_clip
from torch import nn

from fairclip.backbones.openai import load_clip
from fairclip.compare.forms import as_csv, as_latex, as_markdown, as_text, runs_as_csv
from fairclip.compare.many_sets import comparison_grids
from fairclip.compare.methods import read_methods
from fairclip.compare.page import make_page
from fairclip.compare.suites import read_suites
from fairclip.core.cache import cached
from fairclip.core.places import CONFIGS
from fairclip.data.annotations import mat_rows, read_lines
from fairclip.data.archives import unpack
from fairclip.data.images import check_images, decode_error
from fairclip.data.own_folder import read_own_folder
from fairclip.data.splits import check_labels, load_split
from fairclip.describe.check import read_classes
from fairclip.describe.endpoint import Answer, Endpoint
from fairclip.describe.generate import describe
from fairclip.install.plan import Manifest
from fairclip.predict.folder import read_folder, write_folder
from fairclip.predict.images import read_image
from fairclip.predict.runs import TrainedModel, read_trained, write_saved
from fairclip.run import checkpoints
from fairclip.run.state import Kept
from fairclip.text.descriptions import load_descriptions
from fairclip.text.priors import read_prior
from fairclip.views.image_cache import ImageCache

NAMES = ["red car", "green car", "blue car"]


@dataclass(frozen=True)
class Kind:
    """Args:
    make: writes a folder, and returns the file of it to damage.
    read: what the product makes of such a folder.
    exact: whether damage must be noticed, since the file has a checksum.
    parse, write: the file as nested values, and back, to damage those.
    slow: whether reading takes long, so that the suite has fewer cases.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    exact: bool = False
    parse: Callable[[bytes], Any] | None = None
    write: Callable[[Any], bytes] | None = None
    slow: bool = False


# -- Forms -------------------------------------------------------------------------------------------------------------


def json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


def yaml_bytes(value: Any) -> bytes:
    return yaml.safe_dump(value).encode()


def torch_parse(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), weights_only=True)


def torch_bytes(value: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


JSON = {"parse": json.loads, "write": json_bytes}
YAML = {"parse": yaml.safe_load, "write": yaml_bytes}
TORCH = {"parse": torch_parse, "write": torch_bytes}


def put(folder: Path, name: str, content: bytes | str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def writes(name: str, content: bytes | str) -> Callable[[Path], Path]:
    return lambda folder: put(folder, name, content)


# -- Images and data sets ----------------------------------------------------------------------------------------------


def picture(form: str) -> bytes:
    pixels, stream = np.random.default_rng(0).integers(0, 255, (40, 52, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def read_picture(folder: Path) -> Any:
    reason = decode_error(str(folder / "image"))
    return reason or np.asarray(read_image(folder / "image")).shape


SPLIT = {part: [[f"{part}{i}.png", i, NAMES[i]] for i in range(3)] for part in ("train", "val", "test")}


def read_the_split(folder: Path) -> Any:
    split = load_split(folder / "split.json")
    check_labels(folder / "split.json", split)
    return dict(split)


def make_mat(folder: Path) -> Path:
    from scipy.io import savemat

    rows = np.array([(f"{i}.jpg", i) for i in range(5)], dtype=[("fname", "O"), ("class", "O")])
    savemat(folder / "a.mat", {"annotations": rows})
    return folder / "a.mat"


def make_own(folder: Path) -> Path:
    for part in ("train", "test"):
        for name in NAMES:
            put(folder, f"{part}/{name}/a.png", b"")
    return put(folder, "classes.txt", "\n".join(NAMES))


def make_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/b.txt", "a/c.txt"):
            archive.writestr(name, name * 100)
    return folder / "a.zip"


def make_tar(folder: Path) -> Path:
    with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
        for name in ("a/b.txt", "a/c.txt"):
            info = tarfile.TarInfo(name)
            info.size = 100
            archive.addfile(info, io.BytesIO(bytes(100)))
    return folder / "a.tar.gz"


def unpacked(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        unpack(folder / name, folder / "out", 10**6)
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))

    return read


def read_config(folder: Path) -> Any:
    from dassl.config import get_cfg_default

    from fairclip.run.config import extend_cfg, take
    from fairclip.run.yaml_file import read_yaml

    cfg, file = get_cfg_default(), str(folder / "config.yaml")
    extend_cfg(cfg, [])
    take(cfg, read_yaml(file), file, [])
    return cfg.dump()


# -- Runs --------------------------------------------------------------------------------------------------------------

CFG = {
    "TRAINER": {"NAME": "FAIR", "FAIR": {"PREC": "fp32"}},
    "DATASET": {"NAME": "Toy", "ROOT": "/data"},
    "MODEL": {"BACKBONE": {"NAME": "tiny"}},
    "OPTIM": {"MAX_EPOCH": 2, "LR": 0.1},
    "INPUT": {"NO_TRANSFORM": False, "TRANSFORMS": ["normalize"], "SIZE": [32, 32]},
}
SETTINGS = {
    "crops": {"n": 4, "k": 2, "alpha": 0.5, "beta": 0.9, "sharpness": 1.0},
    "size": 32,
    "resize": "shortest",
    "backbone_options": [0, [], ""],
    "interpolation": "bicubic",
    "normalize": True,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "prec": "fp32",
    "lengths": [1.0, 2.0, 3.0],
}
SOURCE = {"file": "descriptions.json", "sha256": "a" * 64}
RUN = {"trainer": "FAIR", "dataset": "Toy", "epoch": 2, "seed": 1}


class Trainer:
    """The parts of one that a checkpoint is made of and put into."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(8, 3)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 3)
        self.model(torch.ones(2, 8)).sum().backward()
        self.optimizer.step()
        self.kept, self.memory, self.step = Kept(self), torch.ones(4), 1
        for name in ("memory", "step"):
            self.kept.add(name)

    def state(self) -> dict[str, Any]:
        return {
            "state_dict": checkpoints.trained_state(self.model),
            "epoch": 2,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": {},
            "extra": self.kept.state_dict(),
            "history": [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": None}],
            "seed": 1,
            "config_hash": "abc",
            "backbone": "tiny",
            "tower_hash": "b" * 64,
            "text_hash": "c" * 64,
            "classnames": NAMES,
            "descriptions": SOURCE,
            "anchors": None,
            "prediction": SETTINGS | {"anchors": torch.eye(3, 8)},
        }


def make_run(folder: Path) -> Path:
    checkpoints.write_checkpoint(folder / "fair", Trainer().state())
    put(folder, "config.yaml", yaml_bytes(CFG))
    finish(folder, config_hash="abc", descriptions=SOURCE, trainer="FAIR", seed=1)
    return folder / "fair/model.pth.tar-2"


def make_old_run(folder: Path) -> Path:
    """From before checkpoints had digests."""
    state = torch_parse(make_run(folder).read_bytes())
    del state["sha256"]
    return put(folder, "fair/model.pth.tar-2", torch_bytes(state))


def run_file(name: str) -> Callable[[Path], Path]:
    return lambda folder: make_run(folder) and folder / name


def go_on(folder: Path) -> Any:
    """What a run does that goes on from its checkpoint."""
    trainer, path = Trainer(), checkpoints.find_checkpoint(folder / "fair")
    state = checkpoints.read_checkpoint(path, "tiny")
    checkpoints.check_whole(state, path)
    checkpoints.load_trained(trainer.model, state)
    with checkpoints.fitting(path):
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.scheduler.load_state_dict(state["scheduler"])
        trainer.kept.load_state_dict(state["extra"])
    return trainer.state() | {name: state[name] for name in ("epoch", "history", "seed")}


def predict(folder: Path) -> Any:
    return vars(read_trained(folder))


def make_saved(folder: Path) -> Path:
    write_saved(read_trained_run(folder / "run"), folder / "saved.pt")
    return folder / "saved.pt"


def read_trained_run(folder: Path) -> TrainedModel:
    make_run(folder)
    trained = read_trained(folder)
    tower = {"visual.weight": torch.ones(3)}
    return TrainedModel(**(vars(trained) | {"state_dict": tower}))


def make_shared(folder: Path) -> Path:
    write_folder(read_trained_run(folder / "run"), folder / "shared")
    return folder / "shared/fair.json"


def read_shared(folder: Path) -> Any:
    return vars(read_folder(folder / "shared", "tiny"))


# -- Comparisons -------------------------------------------------------------------------------------------------------


def make_output(folder: Path) -> Path:
    cells = [("red car", "red car"), ("green car", "red car"), ("blue car", "blue car")]
    for seed in (1, 2):
        facts = {"seed": seed, "descriptions": SOURCE, "crop_accuracy": 60.0, "transductive": False}
        place = folder / f"output/synth_cars/FAIR/tiny/seed{seed}"
        finish(place, 50 + seed, CFG, cells, config_hash=f"abc{seed}", **facts)
    finish(folder / "output/synth_cars/ZeroshotCLIP/tiny/seed1", 40, CFG, cells)
    return folder / "output/synth_cars/FAIR/tiny/seed1/results.json"


def output_file(name: str) -> Callable[[Path], Path]:
    return lambda folder: make_output(folder).with_name(name)


def compare(folder: Path) -> Any:
    comparison = load(folder / "output")
    grids = comparison_grids(comparison)
    for form in (as_text, as_markdown, as_latex):
        for grid in grids:
            form(grid)
    return as_csv(comparison), runs_as_csv(comparison), make_page(comparison, grids, None, 0)


# -- Backbones ---------------------------------------------------------------------------------------------------------


def make_weights(folder: Path) -> Path:
    return put(folder, "clip.pt", torch_bytes(dict(random_clip("vit").state_dict())))


def make_legacy(folder: Path) -> Path:
    torch.save(dict(random_clip("resnet").state_dict()), folder / "clip.pt", _use_new_zipfile_serialization=False)
    return folder / "clip.pt"


def make_script(folder: Path) -> Path:
    model = random_clip("vit")
    images, tokens = torch.zeros(1, 3, 64, 64), torch.ones(1, 20, dtype=torch.long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, (images, tokens), check_trace=False).save(str(folder / "clip.pt"))
    return folder / "clip.pt"


def make_safetensors(folder: Path) -> Path:
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in random_clip("vit").state_dict().items()}
    save_file(state, folder / "clip.safetensors")
    return folder / "clip.safetensors"


def make_hugging_face(folder: Path) -> Path:
    from safetensors.torch import save_file

    from fairclip.backbones.hugging_face import config_of, to_hugging_face

    make_weights(folder)
    model = load_clip(str(folder / "clip.pt"))
    state = {name: tensor.contiguous().clone() for name, tensor in to_hugging_face(model.state_dict()).items()}
    (folder / "clip").mkdir()
    save_file(state, folder / "clip/model.safetensors")
    return put(folder, "clip/config.json", json_bytes(config_of(model.architecture)))


def weights(name: str = "clip.pt") -> Callable[[Path], Any]:
    return lambda folder: dict(load_clip(str(folder / name)).state_dict())


# -- Caches and replies ------------------------------------------------------------------------------------------------


def make_features(folder: Path) -> Path:
    read_features(folder)
    return folder / "cache/features/key.npy"


def read_features(folder: Path) -> Any:
    return cached("features", "key", 3, lambda: torch.arange(12.0).reshape(3, 4))[0]


def make_checked(folder: Path) -> Path:
    put(folder, "a.png", b"no image")
    read_checked(folder)
    (record,) = (folder / "cache/checked").iterdir()
    return record


def read_checked(folder: Path) -> Any:
    from fairclip.data import images

    images._seen.clear()
    return [reason for _, reason in check_images([str(folder.parent / "whole/a.png")], "Toy")]


def make_image_cache(folder: Path) -> Path:
    put(folder, "a.png", picture("png"))
    read_image_cache(folder)
    return next(path for path in (folder / "cache/images").iterdir() if path.name != "tally")


def read_image_cache(folder: Path) -> Any:
    image = ImageCache("disk", 1.0).read(folder.parent / "whole/a.png")
    return torch.from_numpy(np.array(image))


REPLY = json.dumps([f"A red car with part {n} of it in view." for n in range(6)])


class Replies(Endpoint):
    """An endpoint that always answers the same bytes."""

    def _post(self, url: str, body: bytes) -> Answer:
        return Answer(200, Path(self.model).read_bytes(), None)


def read_reply(folder: Path) -> Any:
    sentences = describe("red car", NAMES, Replies("http://a", str(folder / "reply"), "key"), "car", 6)
    assert all(sentence.isprintable() for sentence in sentences)
    return sentences


MANIFEST = {"files": {"a.py": ["0"]}, "folders": ["a"], "baselines": False, "descriptions": ["dtd"]}

KINDS = (
    Kind("png", writes("image", picture("png")), read_picture),
    Kind("jpeg", writes("image", picture("jpeg")), read_picture),
    Kind("webp", writes("image", picture("webp")), read_picture),
    Kind("split", writes("split.json", json_bytes(SPLIT)), read_the_split, **JSON),
    Kind(
        "mat",
        make_mat,
        lambda folder: [repr(row) for row in mat_rows(folder / "a.mat", "annotations", "fname", "class")],
    ),
    Kind("list", writes("list.txt", "a.jpg 1\nb.jpg 2\n"), lambda folder: read_lines(folder / "list.txt")),
    Kind("own_classes", make_own, lambda folder: read_own_folder(folder).names),
    Kind("zip", make_zip, unpacked("a.zip")),
    Kind("tar", make_tar, unpacked("a.tar.gz")),
    Kind("config", writes("config.yaml", yaml_bytes(CFG | {"TRAINER": {"NAME": "FAIR"}})), read_config, **YAML),
    Kind(
        "descriptions",
        writes("d.json", json_bytes({name: [f"a {name} {i}" for i in range(4)] for name in NAMES})),
        lambda folder: load_descriptions(folder / "d.json", NAMES),
        **JSON,
    ),
    Kind(
        "prior",
        writes("p.json", json_bytes(dict.fromkeys(NAMES, 3))),
        lambda f: read_prior(str(f / "p.json"), NAMES),
        **JSON,
    ),
    Kind("classes", writes("c.txt", "\n".join(NAMES)), lambda folder: read_classes(folder / "c.txt")),
    Kind(
        "methods",
        writes("m.txt", (CONFIGS / "methods.txt").read_bytes()),
        lambda folder: [repr(method) for method in read_methods(folder / "m.txt")],
    ),
    Kind(
        "suites", writes("s.yaml", (CONFIGS / "suites.yaml").read_bytes()), lambda f: read_suites(f / "s.yaml"), **YAML
    ),
    Kind(
        "manifest",
        writes(
            ".fair_install.json",
            json_bytes({"files": {"a.py": ["0"]}, "folders": [], "baselines": False, "descriptions": []}),
        ),
        lambda folder: repr(Manifest.read(folder)),
        **JSON,
    ),
    Kind("results", make_output, compare, **JSON),
    Kind("predictions", output_file("predictions.csv"), compare),
    Kind("compared_config", output_file("config.yaml"), compare, **YAML),
    Kind("checkpoint", make_run, go_on, exact=True, **TORCH),
    Kind("checkpoint_predicts", make_run, predict, exact=True, **TORCH),
    Kind("old_checkpoint", make_old_run, go_on, **TORCH),
    Kind("old_checkpoint_predicts", make_old_run, predict, **TORCH),
    Kind("pointer", run_file("fair/checkpoint"), go_on, exact=True),
    Kind("run_config", run_file("config.yaml"), predict, **YAML),
    Kind("run_results", run_file("results.json"), predict, **JSON),
    Kind("saved", make_saved, lambda folder: predict(folder / "saved.pt"), exact=True, **TORCH),
    Kind("shared_facts", make_shared, read_shared, **JSON),
    Kind(
        "shared_tensors",
        lambda folder: make_shared(folder).with_name("model.safetensors"),
        read_shared,
        exact=True,
    ),
    Kind("weights", make_weights, weights(), exact=True, slow=True),
    Kind("weights_values", make_weights, weights(), **TORCH, slow=True),
    Kind("weights_legacy", make_legacy, weights(), slow=True),
    Kind("weights_script", make_script, weights(), exact=True, slow=True),
    Kind("weights_safetensors", make_safetensors, weights("clip.safetensors"), slow=True),
    Kind("weights_hugging_face", make_hugging_face, weights("clip"), **JSON, slow=True),
    Kind("features", make_features, read_features, exact=True),
    Kind("checked", make_checked, read_checked, exact=True, **JSON),
    Kind("image_cache", make_image_cache, read_image_cache, exact=True),
    Kind("reply", writes("reply", json_bytes({"choices": [{"message": {"content": REPLY}}]})), read_reply, **JSON),
)
