"""Settings that follow from the backbone, and the config files that leave them out."""

import sys

import pytest
import yaml
from clip import clip
from commands import train
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.evaluation import EVALUATOR_REGISTRY, Classification
from toys import ROOT, arguments, build, check_refused, make_data, save_clip
from yacs.config import CfgNode

from fairclip.core.errors import UserError
from fairclip.core.plugins import import_plugins
from fairclip.run import config as configs
from fairclip.run import launch
from fairclip.run.checks import check_settings
from fairclip.run.settings import run_hash, with_backbone_facts

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
AUGMENTED = ("random_resized_crop", "random_flip", "normalize")
FILES = sorted((ROOT / "configs/trainers").glob("*/*.yaml"))

# The files of before stated what follows from the backbone. Finished runs are known by these hashes.
HASHES = {
    ("FAIR", "tiny", "synth_cars"): "cb564b262a5f",
    ("FAIR", "vit_b32", "synth_cars"): "f40b3a2516f5",
    ("FAIR", "tiny", "stanford_cars"): "4e862e098f40",
    ("FAIR", "vit_b32", "stanford_cars"): "744ede6249c3",
    ("CuPL", "tiny", "synth_cars"): "9a524de4d06f",
    ("CuPL", "vit_b32", "stanford_cars"): "4623d4f90304",
    ("UPL", "tiny", "synth_cars"): "6a0b08d0b15d",
    ("UPL", "vit_b32", "stanford_cars"): "836aeb23242d",
    ("LaFTer", "tiny", "synth_cars"): "ec37f7f17fbb",
    ("LaFTer", "vit_b32", "stanford_cars"): "da61bfb58d69",
    ("MUST", "tiny", "synth_cars"): "abed3b449b34",
    ("MUST", "vit_b32", "stanford_cars"): "ad2529f4a243",
    ("DPA", "tiny", "synth_cars"): "e4c5232921e3",
    ("PromptLearning", "vit_b32", "stanford_cars"): "a165f03ad764",
}

COOP = """\
DATALOADER:
  TRAIN_X:
    BATCH_SIZE: 32
  TEST:
    BATCH_SIZE: 100
  NUM_WORKERS: 8
INPUT:
  SIZE: (224, 224)
  INTERPOLATION: "bicubic"
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]
OPTIM:
  WARMUP_CONS_LR: 1e-5
MODEL:
  BACKBONE:
    NAME: "ViT-B/16"
"""


@TRAINER_REGISTRY.register()
class Foreign(TrainerX):
    """A trainer that does not derive from ours, as CoOp's."""


@pytest.fixture(scope="module")
def modules():
    return import_plugins("trainers", "datasets")[0]


def config(modules, trainer: str, file: object = "", *opts: str) -> CfgNode:
    return configs.build_cfg(launch.parse_args(["--trainer", trainer, "--config-file", str(file), *opts]), modules)


def leaves(node: dict, prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in node.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def unfilled(backbone: str = "tiny", **inputs: object) -> CfgNode:
    cfg = get_cfg_default()
    cfg.MODEL.BACKBONE.NAME = backbone
    cfg.INPUT.update(inputs)
    return cfg


# -- The files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainer, name, dataset", HASHES)
def test_finished_runs_are_still_known(modules, trainer, name, dataset):
    dataset_file = f"--dataset-config-file={ROOT}/configs/datasets/{dataset}.yaml"
    cfg = config(modules, trainer, ROOT / f"configs/trainers/{trainer}/{name}.yaml", dataset_file)
    assert run_hash(cfg) == HASHES[trainer, name, dataset]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_files_state_what_differs_and_no_more(modules, file):
    cfg = get_cfg_default()
    configs.extend_cfg(cfg, modules)
    before = leaves(cfg)
    cfg.merge_from_file(str(file))
    after = leaves(cfg)
    stated = leaves(yaml.safe_load(file.read_text()))
    assert stated and not [key for key in stated if before[key] == after[key]], "Dassl's or the trainer's default"
    assert not stated.keys() & {"INPUT.SIZE", "INPUT.PIXEL_MEAN", "INPUT.PIXEL_STD", "INPUT.INTERPOLATION"}
    assert stated.get("INPUT.TRANSFORMS") != ["normalize"]


@pytest.mark.parametrize("trainer", ["FAIR", "UPL"])
def test_a_file_that_states_the_backbones_facts_is_the_same_run(modules, trainer, tmp_path):
    short = ROOT / f"configs/trainers/{trainer}/vit_b32.yaml"
    content = yaml.safe_load(short.read_text())
    stated = {"INTERPOLATION": "bicubic", "PIXEL_MEAN": MEAN, "PIXEL_STD": STD, "TRANSFORMS": ["normalize"]}
    content["INPUT"] = stated | content.get("INPUT", {})
    long = tmp_path / "long.yaml"
    long.write_text(yaml.safe_dump(content))
    a, b = config(modules, trainer, short), config(modules, trainer, long)
    assert a.dump() == b.dump() and run_hash(a) == run_hash(b)


def test_upls_word_for_the_last_step_is_taken(modules):
    check_settings(config(modules, "FAIR", "", "TEST.FINAL_MODEL", "last_val"))
    with pytest.raises(UserError, match="Set it to last_step"):
        check_settings(config(modules, "FAIR", "", "TEST.FINAL_MODEL", "best_val"))


@EVALUATOR_REGISTRY.register()
class WritesFiles(Classification):
    def process(self, mo, gt, writer):
        """As UPL's."""


def test_an_evaluator_that_takes_more_is_refused_before_training(modules):
    with pytest.raises(UserError, match="give TEST.EVALUATOR Classification on the command line"):
        check_settings(config(modules, "FAIR", "", "TEST.EVALUATOR", "WritesFiles"))


# -- What is filled in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["tiny", "tiny_rn", "RN50", "ViT-L/14", "some/file.pt"])
def test_the_facts_are_those_of_clip(backbone):
    resize, *_, normalize = clip._transform(224).transforms
    filled = with_backbone_facts(unfilled(backbone)).INPUT
    assert tuple(filled.PIXEL_MEAN) == tuple(normalize.mean) and tuple(filled.PIXEL_STD) == tuple(normalize.std)
    assert filled.INTERPOLATION == resize.interpolation.value and filled.TRANSFORMS == ("normalize",)


def test_only_input_changes_and_only_in_the_copy():
    cfg = unfilled()
    before = cfg.dump()
    filled = with_backbone_facts(cfg)
    assert cfg.dump() == before and not filled.is_frozen()
    old, new = leaves(cfg), leaves(filled)
    assert old.keys() == new.keys()
    assert {key for key in old if old[key] != new[key]} == {
        "INPUT.PIXEL_MEAN",
        "INPUT.PIXEL_STD",
        "INPUT.INTERPOLATION",
        "INPUT.TRANSFORMS",
    }
    filled.freeze()
    again = with_backbone_facts(filled)
    assert again.is_frozen() and again.INPUT.is_frozen() and again.dump() == filled.dump()


def test_a_yaml_of_coop_merges_and_keeps_its_augmentation(modules, tmp_path):
    file = tmp_path / "vit_b16.yaml"
    file.write_text(COOP)
    cfg = config(modules, "FAIR", file)
    assert cfg.INPUT.TRANSFORMS == AUGMENTED and cfg.INPUT.SIZE == (224, 224)
    assert (cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD, cfg.INPUT.INTERPOLATION) == (MEAN, STD, "bicubic")
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-5 and cfg.DATALOADER.TEST.BATCH_SIZE == 100


@pytest.mark.parametrize(
    "key, value",
    [
        ("PIXEL_MEAN", [0.5, 0.5, 0.5]),
        ("PIXEL_MEAN", [0.48, 0.457, 0.40]),
        ("PIXEL_STD", [0.5, 0.5, 0.5]),
        ("INTERPOLATION", "nearest"),
    ],
)
def test_other_values_are_refused(key, value):
    with pytest.raises(UserError) as refused:
        with_backbone_facts(unfilled("ViT-B/32", **{key: value}))
    message = str(refused.value)
    assert f"INPUT.{key} is {value}, but ViT-B/32 takes " in message
    assert message.endswith("leave it out: it follows the backbone")


def test_they_are_refused_in_one_message(tmp_path, capsys):
    argv = arguments("CuPL", tmp_path, tmp_path / "absent.pt", tmp_path, "INPUT.INTERPOLATION", "nearest")
    check_refused(argv, "INPUT.INTERPOLATION is nearest", capsys)


# -- Whose config ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", ["Foreign", "NotRegistered", ""])
def test_configs_of_other_trainers_are_dassls(modules, trainer):
    cfg = config(modules, trainer, "", "INPUT.INTERPOLATION", "nearest")
    assert cfg.is_frozen() and cfg.INPUT.INTERPOLATION == "nearest"
    assert cfg.INPUT.PIXEL_MEAN == get_cfg_default().INPUT.PIXEL_MEAN and cfg.INPUT.TRANSFORMS == ()


def test_a_checkouts_train_py_gets_the_same_run(modules, tmp_path):
    """It merges our file by yacs and builds the trainer; nobody fills the config in before."""
    data, backbone = make_data(tmp_path / "data"), save_clip(tmp_path / "clip.pt")
    ours = build("FAIR", data, backbone, tmp_path / "ours")
    cfg = get_cfg_default()
    configs.extend_cfg(cfg, modules)
    args = launch.parse_args(arguments("FAIR", data, backbone, tmp_path / "theirs"))
    cfg.merge_from_file(args.config_file)
    configs.apply_flags(cfg, args)
    cfg.merge_from_list(args.opts)
    cfg.freeze()
    assert cfg.INPUT.PIXEL_MEAN != MEAN, "filled in before"
    theirs = build_trainer(cfg)
    assert theirs.config_hash == ours.config_hash
    assert theirs.cfg.INPUT == ours.cfg.INPUT and theirs.cfg.INPUT.PIXEL_MEAN == MEAN
    assert theirs.cfg.INPUT.SIZE == (32, 32)


def test_config_yaml_has_the_values(tmp_path, monkeypatch):
    """By which predictions prepare their images."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # setup_logger replaces it
    data, backbone = make_data(tmp_path / "data"), save_clip(tmp_path / "clip.pt")
    assert train(arguments("CuPL", data, backbone, tmp_path / "out")) == 0
    inputs = yaml.safe_load((tmp_path / "out/config.yaml").read_text())["INPUT"]
    assert (inputs["PIXEL_MEAN"], inputs["PIXEL_STD"], inputs["INTERPOLATION"]) == (MEAN, STD, "bicubic")
    assert inputs["TRANSFORMS"] == ["normalize"] and inputs["SIZE"] == [32, 32]
