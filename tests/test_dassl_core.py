"""The bundled core: its interface, its parts, and a CoOp-shaped trainer that trains, resumes and evaluates on it."""

from __future__ import annotations

import copy
import importlib
import io
import logging
import pickle
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from fairclip.core import toolbox

if toolbox.use_dassl(announce=False) != "bundled":
    pytest.skip("upstream Dassl is in use; FAIR_DASSL=bundled tests the core", allow_module_level=True)

from dassl.config import clean_cfg, get_cfg_default
from dassl.data import DataManager, DatasetWrapper
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.data.samplers import build_sampler
from dassl.data.transforms import AVAI_CHOICES, build_transform
from dassl.engine import TRAINER_REGISTRY, TrainerX, TrainerXU, build_trainer
from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import (
    AverageMeter,
    Logger,
    MetricMeter,
    Registry,
    collect_env_info,
    count_num_param,
    listdir_nohidden,
    load_checkpoint,
    load_pretrained_weights,
    open_specified_layers,
    read_json,
    resume_from_checkpoint,
    save_checkpoint,
    set_random_seed,
    setup_logger,
    write_json,
)
from dassl.utils.logger import show_messages
from yacs.config import CfgNode as CN

# What CoOp, MaPLe, LaFTer and UPL import.
INTERFACE = {
    "dassl.config": "get_cfg_default clean_cfg",
    "dassl.data": "DataManager DatasetWrapper",
    "dassl.data.data_manager": "DataManager DatasetWrapper build_data_loader",
    "dassl.data.datasets": "DATASET_REGISTRY DatasetBase Datum build_dataset",
    "dassl.data.samplers": "build_sampler",
    "dassl.data.transforms": "build_transform",
    "dassl.data.transforms.transforms": "INTERPOLATION_MODES build_transform",
    "dassl.engine": "TRAINER_REGISTRY TrainerBase SimpleTrainer TrainerX TrainerXU build_trainer",
    "dassl.evaluation": "EVALUATOR_REGISTRY build_evaluator",
    "dassl.evaluation.build": "EVALUATOR_REGISTRY",
    "dassl.evaluation.evaluator": "Classification",
    "dassl.metrics": "compute_accuracy",
    "dassl.optim": "build_lr_scheduler build_optimizer",
    "dassl.utils": "AverageMeter MetricMeter Registry check_availability check_isfile collect_env_info count_num_param "
    "listdir_nohidden load_checkpoint load_pretrained_weights mkdir_if_missing read_image read_json "
    "resume_from_checkpoint save_checkpoint set_random_seed setup_logger tolist_if_not write_json",
}


@pytest.fixture
def console(monkeypatch, capsys) -> Callable[[], str]:
    """What is printed in a program that has no log handlers of its own; here pytest has some."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.getLogger("dassl"), "handlers", [])
    show_messages()
    return lambda: capsys.readouterr().out


# Interface and config


@pytest.mark.parametrize("module", INTERFACE)
def test_every_imported_name_exists(module):
    loaded = importlib.import_module(module)
    assert [name for name in INTERFACE[module].split() if not hasattr(loaded, name)] == []


def leaves(node: CN, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys += leaves(value, f"{prefix}{key}.") if isinstance(value, CN) else [prefix + key]
    return keys


def test_config_has_all_keys_and_takes_a_coop_yaml(tmp_path):
    cfg = get_cfg_default()
    assert len(leaves(cfg)) == 135
    file = tmp_path / "vit_b16_ep50.yaml"
    file.write_text(
        "DATALOADER: {TRAIN_X: {BATCH_SIZE: 32}, TEST: {BATCH_SIZE: 100}, NUM_WORKERS: 8}\n"
        "INPUT:\n  SIZE: (224, 224)\n  INTERPOLATION: bicubic\n  PIXEL_MEAN: [0.48, 0.457, 0.40]\n"
        '  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]\n'
        "OPTIM: {NAME: sgd, LR: 0.002, MAX_EPOCH: 50, LR_SCHEDULER: cosine, WARMUP_EPOCH: 1,\n"
        "  WARMUP_TYPE: constant, WARMUP_CONS_LR: 1e-5}\n"
        "TRAINER: {FIXMATCH: {STRONG_TRANSFORMS: ['randaugment']}}\n"
    )
    cfg.merge_from_file(str(file))
    cfg.merge_from_list(["OPTIM.WEIGHT_DECAY", "1e-3", "TRAINER.MIXMATCH.TEMP", "0.5"])
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-5 and cfg.OPTIM.WEIGHT_DECAY == 1e-3
    assert get_cfg_default().OPTIM.MAX_EPOCH == 10, "the defaults themselves were changed"
    with pytest.raises(AssertionError, match="Non-existent key"):
        cfg.merge_from_list(["OPTIM.LRR", 1])


def test_clean_cfg_keeps_the_trainers_node_in_any_case():
    cfg = get_cfg_default()
    cfg.TRAINER.UPLTrainer = CN()
    clean_cfg(cfg, "uplTRAINER")
    assert list(cfg.TRAINER) == ["NAME", "UPLTrainer"]


# Utilities


def test_registry():
    registry = Registry("THING")

    @registry.register()
    class StanfordCars:
        pass

    registry.register("other", int)
    assert registry.get("StanfordCars") is StanfordCars and registry.get("other") is int
    with pytest.raises(KeyError, match="already registered"):
        registry.register("other", str)
    registry.register("other", str, force=True)
    assert registry.get("other") is str
    with pytest.raises(KeyError, match=r'do you mean "StanfordCars".*did you import the module'):
        registry.get("stanford_cars")


@pytest.mark.parametrize("key", ["DATASET.NAME", "TEST.EVALUATOR", "TRAINER.NAME"])
def test_builders_name_the_closest_choice(key):
    build = {
        "DATASET.NAME": importlib.import_module("dassl.data.datasets").build_dataset,
        "TEST.EVALUATOR": build_evaluator,
        "TRAINER.NAME": build_trainer,
    }[key]
    name = {"DATASET.NAME": "TwoColour", "TEST.EVALUATOR": "Classificaton", "TRAINER.NAME": "Prompts"}[key]
    cfg = get_cfg_default()
    cfg.merge_from_list([key, name])
    with pytest.raises(ValueError, match=rf'got "{name}" \(do you mean "\w+"\?\)'):
        build(cfg)


def test_meters():
    meter = MetricMeter()
    meter.update({"loss": 1.0, "acc": torch.tensor(50.0)})
    meter.update({"loss": 3.0, "acc": 100.0})
    meter.update(None)
    assert str(meter) == "loss 3.0000 (2.0000) acc 100.0000 (75.0000)"
    average = AverageMeter()
    average.update(1.0, n=3)
    average.update(5.0)
    assert (average.avg, average.sum, average.count) == (2.0, 8.0, 4)
    ema = AverageMeter(ema=True)
    ema.update(10.0)
    ema.update(20.0)
    assert ema.avg == pytest.approx(11.0)


def test_logger_copies_and_stays_a_stream(tmp_path, monkeypatch):
    class Console(io.StringIO):
        encoding = "utf-7"

        def isatty(self):
            return True

    console = Console()
    monkeypatch.setattr(sys, "stdout", console)
    setup_logger(str(tmp_path))
    print("first")
    assert sys.stdout.isatty() and sys.stdout.encoding == "utf-7"
    assert (tmp_path / "log.txt").read_text() == "first\n", "a kill now would lose the line"
    setup_logger(str(tmp_path))  # a second run into the same folder
    print("second")
    sys.stdout.close()
    assert console.getvalue() == "first\nsecond\n" and not console.closed
    newer = [f for f in tmp_path.iterdir() if f.name.startswith("log.txt-")]
    assert [f.read_text() for f in newer] == ["second\n"]
    assert (tmp_path / "log.txt").read_text() == "first\n"
    with Logger() as plain:  # console only
        plain.write("third")
    assert console.getvalue().endswith("third")


def test_messages_are_printed_unless_the_program_has_handlers(tmp_path, console, monkeypatch, caplog):
    log = logging.getLogger("dassl")
    show_messages()  # a second call adds nothing
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # put back after the test
    setup_logger(str(tmp_path))
    log.info("100 % done")
    log.warning("careful")
    sys.stdout.close()
    assert console() == (tmp_path / "log.txt").read_text() == "100 % done\nWarning: careful\n"
    log.setLevel(logging.WARNING)
    show_messages()
    log.info("silenced")
    log.setLevel(logging.INFO)
    log.handlers.clear()
    caplog.clear()
    show_messages()  # pytest has put its handlers back
    log.info("theirs")
    assert console() == "" and caplog.messages == ["theirs"]


def test_files_and_env(tmp_path):
    path = tmp_path / "deep" / "x.json"
    write_json({"a": [1, 2]}, str(path))
    assert read_json(str(path)) == {"a": [1, 2]} and [f.name for f in path.parent.iterdir()] == ["x.json"]
    for name in ("b", ".hidden", "a"):
        (tmp_path / "deep" / name).write_text("")
    assert listdir_nohidden(str(path.parent), sort=True) == ["a", "b", "x.json"]
    assert torch.__version__ in collect_env_info()


def test_compute_accuracy():
    output = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.1, 0.3], [0.2, 0.3, 0.5], [0.2, 0.5, 0.3]])
    target = torch.tensor([2, 0, 2, 0])
    top1, top2 = compute_accuracy(output, target, topk=(1, 2))
    assert top1.tolist() == [50.0] and top2.tolist() == [75.0]
    assert compute_accuracy((output, None), target)[0].item() == 50.0


def test_weights_and_layers(tmp_path, caplog):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    assert count_num_param(net) == count_num_param(params=[{"params": net.parameters()}]) == 15
    open_specified_layers(net, "1")
    assert [p.requires_grad for p in net.parameters()] == [False, False, True, True]
    assert not net[0].training and net[1].training
    with pytest.raises(ValueError, match="not layers of the model"):
        open_specified_layers(net, "2")

    weights = {"module.0.weight": torch.ones(3, 2), "module.0.bias": torch.ones(4)}
    torch.save({"state_dict": weights}, tmp_path / "w.pt")
    bias = net[0].bias.clone()
    load_pretrained_weights(net, str(tmp_path / "w.pt"))
    assert (net[0].weight == 1).all() and torch.equal(net[0].bias, bias)
    assert "['0.bias']" in caplog.text


# Optimizers and schedules


def optim_cfg(**kwargs) -> CN:
    cfg = get_cfg_default().OPTIM
    for key, value in kwargs.items():
        cfg[key] = value
    return cfg


def learning_rates(cfg: CN, epochs: int) -> list[float]:
    optim = build_optimizer(nn.Linear(1, 1), cfg)
    sched = build_lr_scheduler(optim, cfg)
    rates = []
    for _ in range(epochs):
        rates.append(optim.param_groups[0]["lr"])
        optim.step()
        sched.step()
    return rates


def test_schedules():
    def cosine(t: int, n: int) -> float:
        return 0.002 * (1 + np.cos(np.pi * t / n)) / 2

    coop = {"NAME": "sgd", "LR": 0.002, "MAX_EPOCH": 5, "LR_SCHEDULER": "cosine"}
    warm = {"WARMUP_EPOCH": 1, "WARMUP_TYPE": "constant", **coop}
    # the first five epochs of CoOp's settings: warm-up, then a cosine that starts at its top
    assert learning_rates(optim_cfg(**warm), 5) == pytest.approx([1e-5] + [cosine(t, 5) for t in range(4)])
    assert learning_rates(optim_cfg(**coop), 5) == pytest.approx([cosine(t, 5) for t in range(5)])
    linear = {**warm, "WARMUP_EPOCH": 3, "WARMUP_TYPE": "linear"}
    assert learning_rates(optim_cfg(**linear), 4) == pytest.approx([1e-5, 0.002 / 3, 0.004 / 3, 0.002])
    step = {"LR": 1.0, "MAX_EPOCH": 3, "LR_SCHEDULER": "single_step"}
    assert learning_rates(optim_cfg(**step), 5) == pytest.approx([1, 1, 1, 0.1, 0.1])
    multi = {"LR": 1.0, "LR_SCHEDULER": "multi_step", "STEPSIZE": (1, 3)}
    assert learning_rates(optim_cfg(**multi), 4) == pytest.approx([1, 0.1, 0.1, 0.01])
    with pytest.raises(ValueError, match="WARMUP_TYPE"):
        learning_rates(optim_cfg(WARMUP_EPOCH=1, WARMUP_TYPE="const"), 1)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"])
def test_optimizers_take_a_step(name):
    net = nn.Linear(2, 1)
    optim = build_optimizer(net, optim_cfg(NAME=name))
    before = copy.deepcopy(net.state_dict())
    net(torch.ones(1, 2)).sum().backward()
    optim.step()
    assert not torch.equal(before["weight"], net.weight)


def test_optimizer_groups():
    net = nn.ModuleDict({"old": nn.Linear(1, 1), "new": nn.Linear(1, 1)})
    staged = build_optimizer(net, optim_cfg(STAGED_LR=True, NEW_LAYERS="new", LR=1.0))
    assert [(g["lr"], len(g["params"])) for g in staged.param_groups] == [(0.1, 2), (1.0, 2)]
    groups = [{"params": net["new"].parameters(), "lr": 0.5}]
    assert build_optimizer(net, optim_cfg(), param_groups=groups).param_groups[0]["lr"] == 0.5
    assert len(build_optimizer(net["old"].parameters(), optim_cfg()).param_groups[0]["params"]) == 2
    with pytest.raises(ValueError, match='do you mean "sgd"'):
        build_optimizer(net, optim_cfg(NAME="SGD"))


# Checkpoints


def trained(epochs: int, cfg: CN) -> tuple:
    torch.manual_seed(epochs)
    net = nn.Linear(2, 1)
    optim = build_optimizer(net, cfg)
    sched = build_lr_scheduler(optim, cfg)
    go_on(epochs, net, optim, sched)
    return net, optim, sched


def go_on(epochs: int, net, optim, sched) -> None:
    for _ in range(epochs):
        optim.zero_grad()
        net(torch.ones(1, 2)).sum().backward()
        optim.step()
        sched.step()


WARM = {"NAME": "sgd", "LR": 0.002, "MAX_EPOCH": 5, "LR_SCHEDULER": "cosine", "WARMUP_EPOCH": 1}


@pytest.mark.parametrize("changes", [{}, {"WARMUP_TYPE": "constant"}, {"LR_SCHEDULER": "multi_step", "STEPSIZE": (2,)}])
def test_checkpoint_is_plain_data_and_resumes(tmp_path, changes):
    cfg = optim_cfg(**{**WARM, **changes})
    net, optim, sched = trained(2, cfg)
    state = {
        "state_dict": {f"module.{k}": v for k, v in net.state_dict().items()},
        "epoch": 2,
        "optimizer": optim.state_dict(),
        "scheduler": sched.state_dict(),
        "val_result": np.float64(61.25),
    }
    save_checkpoint(state, str(tmp_path / "net"), is_best=True)
    names = sorted(f.name for f in (tmp_path / "net").iterdir())
    assert names == ["checkpoint", "model-best.pth.tar", "model.pth.tar-2"]
    stored = torch.load(tmp_path / "net" / "model.pth.tar-2", weights_only=True)
    assert type(stored["val_result"]) is float and list(stored["state_dict"]) == ["weight", "bias"]

    net2, optim2, sched2 = trained(0, cfg)
    assert resume_from_checkpoint(str(tmp_path / "net"), net2, optim2, sched2) == 2
    go_on(2, net, optim, sched)
    go_on(2, net2, optim2, sched2)
    assert torch.equal(net.weight, net2.weight)
    assert optim.param_groups[0]["lr"] == optim2.param_groups[0]["lr"]


def test_reads_a_warmup_checkpoint_of_upstream(tmp_path):
    # Upstream stores the scheduler after the warm-up, and so its optimizer, as pickled objects.
    cfg = optim_cfg(**WARM)
    net, optim, sched = trained(2, cfg)
    pickled = {**sched.state_dict(), "successor": sched.successor}
    state = {"state_dict": net.state_dict(), "epoch": 2, "optimizer": optim.state_dict(), "scheduler": pickled}
    torch.save(state, tmp_path / "model.pth.tar-2")
    (tmp_path / "checkpoint").write_text("model.pth.tar-2\n")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "model.pth.tar-2", weights_only=True)
    net2, optim2, sched2 = trained(0, cfg)
    assert resume_from_checkpoint(str(tmp_path), net2, optim2, sched2) == 2
    go_on(2, net, optim, sched)
    go_on(2, net2, optim2, sched2)
    assert torch.equal(net.weight, net2.weight) and optim.param_groups[0]["lr"] == optim2.param_groups[0]["lr"]


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("code of a checkpoint was run",))


def test_never_runs_code_from_a_checkpoint(tmp_path):
    torch.save({"state_dict": {}, "epoch": 1, "extra": Bomb()}, tmp_path / "bad")
    with pytest.raises(pickle.UnpicklingError, match=r"bad.*could run code"):
        load_checkpoint(str(tmp_path / "bad"))
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_checkpoint(str(tmp_path / "nothing"))


# Data


def make_images(folder, n: int = 16, size: tuple[int, int] = (40, 32)) -> list[Datum]:
    """`n` noisy images of class red (0) and blue (1) in turn; width, height."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for i in range(n):
        pixels = rng.integers(0, 130, (size[1], size[0], 3), dtype=np.uint8)
        pixels[..., 2 * (i % 2)] += 120
        path = str(folder / f"{i:02d}.png")
        Image.fromarray(pixels).save(path)
        items.append(Datum(impath=path, label=i % 2, domain=i // 4, classname=("red", "blue")[i % 2]))
    return items


@DATASET_REGISTRY.register()
class TwoColours(DatasetBase):
    """The images of `make_images` as every split; no validation split where NUM_LABELED is 0."""

    def __init__(self, cfg):
        items = make_images(Path(cfg.DATASET.ROOT) / "images")
        super().__init__(train_x=items, train_u=items[:8], val=items if cfg.DATASET.NUM_LABELED else None, test=items)


@pytest.fixture
def cfg(tmp_path) -> CN:
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    cfg.DATASET.ROOT = str(tmp_path)
    cfg.DATASET.NAME = "TwoColours"
    cfg.INPUT.SIZE = (32, 32)
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 4
    cfg.VERBOSE = False
    cfg.USE_CUDA = False
    return cfg


def test_datum(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"DATASET.ROOT.*gone.jpg"):
        Datum(impath=str(tmp_path / "gone.jpg"))
    with pytest.raises(TypeError):
        Datum(impath=tmp_path)
    item = make_images(tmp_path, 2)[1]
    # as CoOp does for few-shot splits, which thus go from upstream to this core and back
    back = pickle.loads(pickle.dumps(item))
    assert vars(back) == {"_impath": item.impath, "_label": 1, "_domain": 0, "_classname": "blue"}
    assert type(item).__module__ == "dassl.data.datasets.base_dataset"


def test_dataset_classes(tmp_path):
    items = make_images(tmp_path, 4)
    data = DatasetBase(train_x=items[::-1], test=items)
    assert data.classnames == ["red", "blue"] and data.lab2cname == {0: "red", 1: "blue"} and data.num_classes == 2
    assert data.val is None and data.train_u is None
    with pytest.raises(ValueError, match="no training image has label 0"):
        DatasetBase(train_x=[items[1]], test=items)
    with pytest.raises(ValueError, match="train_x is empty"):
        DatasetBase(train_x=[], test=items)
    with pytest.raises(ValueError, match="Input domain must belong to"):
        data.check_input_domains(["art"], [])


def test_fewshot(tmp_path):
    items = make_images(tmp_path, 10)[:8]
    data = DatasetBase(train_x=items, test=items)
    random.seed(1)
    shots = data.generate_fewshot_dataset(items, num_shots=3)
    assert [d.label for d in shots] == [0, 0, 0, 1, 1, 1] and len({d.impath for d in shots}) == 6
    # the same draws as upstream for the same seed: random.sample, class after class
    random.seed(1)
    assert shots == random.sample(items[0::2], 3) + random.sample(items[1::2], 3)
    assert len(data.generate_fewshot_dataset(items, num_shots=9)) == 8
    assert len(data.generate_fewshot_dataset(items, num_shots=9, repeat=True)) == 18
    both = data.generate_fewshot_dataset(items, items[:4], num_shots=1)
    assert [len(x) for x in both] == [2, 2]
    assert data.generate_fewshot_dataset(items, num_shots=-1) is items


def test_samplers(tmp_path):
    items = make_images(tmp_path)  # 4 domains of 4, 2 classes of 8
    order = list(build_sampler("SeqDomainSampler", data_source=items, batch_size=8))
    assert [items[i].domain for i in order] == [0, 0, 1, 1, 2, 2, 3, 3] * 2 and sorted(order) == list(range(16))
    sampler = build_sampler("RandomDomainSampler", data_source=items, batch_size=4, n_domain=2)
    order = list(sampler)
    assert len(order) % 4 == 0 and len(set(order)) == len(order) >= 8
    for i in range(0, len(order), 4):
        a, b, c, d = (items[j].domain for j in order[i : i + 4])
        assert a == b != c == d
    sampler = build_sampler("RandomClassSampler", data_source=items[:3], batch_size=4, n_ins=2)
    order = list(sampler)
    assert len(sampler) == len(order) == 4 and order.count(1) == 2  # the only image of class 1 is repeated
    assert sorted(items[i].label for i in order) == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="multiple of the number of domains"):
        build_sampler("SeqDomainSampler", data_source=items, batch_size=6)
    with pytest.raises(ValueError, match='do you mean "RandomSampler"'):
        build_sampler("RandomSample", data_source=items)


def test_wrapper_items(cfg, tmp_path):
    items = make_images(tmp_path, 3)
    size = [lambda im: im.size, lambda im: (im.size, "second")]
    item = DatasetWrapper(cfg, items, transform=size, is_train=True)[1]
    assert item == {
        "img": (40, 32),
        "img2": ((40, 32), "second"),
        "label": 1,
        "domain": 0,
        "impath": items[1].impath,
        "index": 1,
    }
    cfg.DATALOADER.K_TRANSFORMS, cfg.DATALOADER.RETURN_IMG0 = 3, True
    item = DatasetWrapper(cfg, items, transform=size[0], is_train=True)[0]
    assert item["img"] == [(40, 32)] * 3 and item["img0"].shape == (3, 32, 32)
    assert item["img0"].min() < 0, "img0 is normalised where INPUT.TRANSFORMS says so"
    assert DatasetWrapper(cfg, items, transform=size[0])[0]["img"] == (40, 32)  # one draw in testing
    with pytest.raises(ValueError, match="3 times"):
        DatasetWrapper(cfg, items, is_train=True)


def test_manager(cfg, capsys):
    cfg.VERBOSE = True
    dm = DataManager(cfg)
    assert (dm.num_classes, dm.num_source_domains, dm.lab2cname[1]) == (2, 0, "blue")
    assert [len(x) for x in (dm.train_loader_x, dm.train_loader_u, dm.val_loader, dm.test_loader)] == [4, 2, 1, 1]
    batch = next(iter(dm.train_loader_x))
    assert batch["img"].shape == (4, 3, 32, 32) and batch["index"].dtype == torch.int64
    assert re.search(r"# train_x +16\n", capsys.readouterr().out)

    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 10  # the smaller last batch is dropped, the only batch is not
    cfg.DATALOADER.TRAIN_U.SAME_AS_X, cfg.DATALOADER.TRAIN_U.BATCH_SIZE = False, 20
    dm = DataManager(cfg, custom_tfm_train=build_transform(cfg, is_train=False), dataset_wrapper=DatasetWrapper)
    assert [len(b["label"]) for b in dm.train_loader_x] == [10] and [len(b["label"]) for b in dm.train_loader_u] == [8]


def test_loader_without_a_batch(cfg):
    cfg.DATALOADER.TRAIN_X.SAMPLER = "RandomDomainSampler"
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATALOADER.TRAIN_X.N_DOMAIN = 16, 2
    with pytest.raises(ValueError, match="TwoColours: 16 images with RandomDomainSampler and batch size 16"):
        DataManager(cfg)


def test_damaged_image(cfg, tmp_path):
    items = make_images(tmp_path, 2)
    with open(items[0].impath, "w") as file:
        file.write("not an image")
    with pytest.raises(OSError, match=re.escape(items[0].impath)):
        DatasetWrapper(cfg, items)[0]


@pytest.mark.parametrize("choice", AVAI_CHOICES)
@pytest.mark.parametrize("is_train", [True, False])
def test_each_transform(cfg, choice, is_train):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8))
    out = build_transform(cfg, is_train, choices=[choice])(image)
    assert out.shape == (3, 32, 32) and out.dtype == torch.float32


def test_transform_geometry(cfg, console):
    left_white = np.zeros((32, 64, 3), dtype=np.uint8)
    left_white[:, :16] = 255
    image = Image.fromarray(left_white)
    assert build_transform(cfg, is_train=False, choices=[])(image).max() == 0, "testing cuts the centre"
    squashed = build_transform(cfg, is_train=True, choices=[])(image)
    assert squashed[:, :, :6].min() > 0.9 and squashed[:, :, 12:].max() < 0.1, "training squashes the whole image"
    out = console()
    assert "Building transform_test\n+ resize the smaller edge to 32\n+ 32x32 center crop\n" in out
    normalised = build_transform(cfg, is_train=False, choices=["normalize"])(image)
    assert torch.allclose(normalised[:, 0, 0], -torch.tensor(cfg.INPUT.PIXEL_MEAN) / torch.tensor(cfg.INPUT.PIXEL_STD))
    cfg.INPUT.NO_TRANSFORM = True
    assert build_transform(cfg) is None
    cfg.INPUT.NO_TRANSFORM = False
    with pytest.raises(ValueError, match='do you mean "random_flip"'):
        build_transform(cfg, choices=["random_flips"])


# Evaluation


def test_evaluator(cfg, capsys):
    cfg.TEST.PER_CLASS_RESULT = cfg.TEST.COMPUTE_CMAT = True
    evaluator = build_evaluator(cfg, lab2cname={0: "red", 1: "green", 2: "blue", 3: "never"})
    truth, guess = [0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 3, 2, 0, 2]
    for start in (0, 5):
        rows = slice(start, start + 5)
        evaluator.process(torch.eye(4)[guess[rows]], torch.tensor(truth[rows]))
    results = evaluator.evaluate()
    f1 = [2 * 2 / (3 + 3), 2 * 1 / (2 + 2), 2 * 2 / (3 + 2)]  # 2 TP / (truth + guesses); class 3 is not in the truth
    assert list(results) == ["accuracy", "error_rate", "macro_f1", "perclass_accuracy"]
    assert results["accuracy"] == 62.5 and results["error_rate"] == 37.5
    assert results["macro_f1"] == pytest.approx(100 * sum(f1) / 3)
    assert results["perclass_accuracy"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 2 / 3) / 3)
    out = capsys.readouterr().out
    assert "=> result\n* total: 8\n* correct: 5\n* accuracy: 62.5%\n* error: 37.5%\n* macro_f1: 65.6%\n" in out
    assert "* class: 1 (green)\ttotal: 2\tcorrect: 1\tacc: 50.0%" in out
    # what CoOp's parse_test_res.py looks for
    assert re.search(r"\* accuracy: ([\.\deE+-]+)%", out)[1] == "62.5"
    matrix = torch.load(f"{cfg.OUTPUT_DIR}/cmat.pt", weights_only=True)
    assert matrix.shape == (4, 4) and matrix[1].tolist() == [0, 0.5, 0, 0.5] and matrix[3].sum() == 0
    evaluator.reset()
    with pytest.raises(ValueError, match="Nothing to evaluate"):
        evaluator.evaluate()


# Trainers. `Prompt` uses the interface the way CoOp's and MaPLe's trainers do.


class PromptLearner(nn.Module):
    """Two context vectors before each class name; the embeddings around them are buffers that are never loaded."""

    def __init__(self, classnames, clip_model):
        super().__init__()
        from clip import clip

        self.tokens = torch.cat([clip.tokenize(f"X X {name}.") for name in classnames])
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokens)
        self.ctx = nn.Parameter(torch.randn(2, embedding.shape[-1]) * 0.02)
        self.register_buffer("token_prefix", embedding[:, :1])
        self.register_buffer("token_suffix", embedding[:, 3:])

    def forward(self):
        ctx = F.dropout(self.ctx, 0.2, self.training).expand(len(self.tokens), -1, -1)  # dropout: uses the generator
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)


class PromptedCLIP(nn.Module):
    def __init__(self, classnames, clip_model):
        super().__init__()
        self.prompt_learner = PromptLearner(classnames, clip_model)
        self.clip = clip_model

    def forward(self, image):
        model = self.clip
        x = self.prompt_learner() + model.positional_embedding
        x = model.ln_final(model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2))
        text = x[torch.arange(len(x)), self.prompt_learner.tokens.argmax(-1)] @ model.text_projection
        return 10 * F.normalize(model.encode_image(image), dim=-1) @ F.normalize(text, dim=-1).t()


CLIP_MODEL = None  # set by the fixture


@TRAINER_REGISTRY.register()
class Prompt(TrainerX):
    stop_at = -1  # epoch at which the process "dies"

    def check_cfg(self, cfg):
        assert cfg.TRAINER.PROMPT.PREC in ["fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        self.model = PromptedCLIP(self.dm.dataset.classnames, copy.deepcopy(CLIP_MODEL))
        for name, param in self.model.named_parameters():
            param.requires_grad_("prompt_learner" in name)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)
        amp = cfg.TRAINER.PROMPT.PREC == "amp"
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=64.0, growth_interval=3) if amp else None

    def before_epoch(self):
        if self.epoch == self.stop_at:
            raise KeyboardInterrupt

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        if self.scaler is not None:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                loss = F.cross_entropy(self.model(image).float(), label)
            self.optim.zero_grad()
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optim)
            self.scaler.update()
        else:
            output = self.model(image)
            loss = F.cross_entropy(output, label)
            self.model_backward_and_update(loss)
        summary = {"loss": loss.item()}
        if self.scaler is None:
            summary["acc"] = compute_accuracy(output, label)[0].item()
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return summary

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            state = load_checkpoint(f"{directory}/{name}/{file}")["state_dict"]
            for key in ("token_prefix", "token_suffix"):
                state.pop(key, None)
            self._models[name].load_state_dict(state, strict=False)


@pytest.fixture
def prompt_cfg(cfg, tiny_clip, monkeypatch) -> CN:
    monkeypatch.setattr(sys.modules[__name__], "CLIP_MODEL", tiny_clip)
    cfg.TRAINER.NAME = "Prompt"
    cfg.TRAINER.PROMPT = CN({"PREC": "fp32"})
    cfg.merge_from_list(["OPTIM.NAME", "sgd", "OPTIM.LR", 0.05, "OPTIM.MAX_EPOCH", 2, "OPTIM.LR_SCHEDULER", "cosine"])
    cfg.merge_from_list(["OPTIM.WARMUP_EPOCH", 1, "OPTIM.WARMUP_TYPE", "constant", "OPTIM.WARMUP_CONS_LR", 0.01])
    cfg.TRAIN.PRINT_FREQ = 2
    return cfg


def run(cfg: CN, seed: int = 1, stop_at: int = -1) -> Prompt:
    set_random_seed(seed)
    trainer = build_trainer(cfg)
    trainer.stop_at = stop_at
    if stop_at < 0:
        trainer.train()
    else:
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        trainer.close_writer()
    return trainer


def test_coop_style_training_and_evaluation(prompt_cfg, tmp_path, console):
    trainer = run(prompt_cfg)
    out = console()
    line = r"epoch \[1/2\] batch \[2/4\] time [\d.]+ \([\d.]+\) data [\d.]+ \([\d.]+\) "
    line += r"loss [\d.]+ \([\d.]+\) acc [\d.]+ \([\d.]+\) lr 1.0000e-02 eta 0:00:\d\d\n"
    assert re.search(line, out), out
    tail = r"Finish training\nDeploy the last-epoch model\nEvaluate on the \*test\* set\n=> result\n.*Elapsed: 0:00:"
    assert re.search(tail, out, re.S), out
    folder = tmp_path / "out"
    assert sorted(f.name for f in (folder / "prompt_learner").iterdir()) == ["checkpoint", "model.pth.tar-2"]
    assert list((folder / "tensorboard").iterdir())

    accuracy = trainer.test()
    prompt_cfg.OUTPUT_DIR = str(tmp_path / "eval")
    other = build_trainer(prompt_cfg)  # as train.py --eval-only does
    assert not torch.equal(other.model.prompt_learner.ctx, trainer.model.prompt_learner.ctx)
    other.load_model(str(folder), epoch=2)
    assert torch.equal(other.model.prompt_learner.ctx, trainer.model.prompt_learner.ctx)
    assert other.test() == accuracy
    assert not (tmp_path / "eval").exists()
    super(Prompt, other).load_model(str(folder), epoch=2)  # val_result is None here
    with pytest.raises(FileNotFoundError, match="model-best"):
        super(Prompt, other).load_model(str(folder))
    prompt_cfg.MODEL.INIT_WEIGHTS = str(folder / "prompt_learner" / "model.pth.tar-2")
    assert torch.equal(build_trainer(prompt_cfg).model.prompt_learner.ctx, trainer.model.prompt_learner.ctx)


@pytest.mark.parametrize("prec", ["fp32", "amp"])
@pytest.mark.parametrize("final_model", ["last_step", "best_val"])
def test_resumed_run_equals_an_uninterrupted_one(prompt_cfg, tmp_path, prec, final_model):
    cfg = prompt_cfg
    cfg.OPTIM.MAX_EPOCH, cfg.TRAIN.CHECKPOINT_FREQ = 3, 1
    cfg.TRAINER.PROMPT.PREC, cfg.TEST.FINAL_MODEL = prec, final_model
    whole = run(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "stopped")
    run(cfg, stop_at=2)
    assert (tmp_path / "stopped" / "prompt_learner" / "checkpoint").read_text() == "model.pth.tar-2\n"
    resumed = run(cfg, seed=99)  # nothing may depend on the seed any more
    assert resumed.start_epoch == 2
    for a, b in ((whole, resumed), (whole, run(cfg))):  # the last one starts after the end: only tests
        states = a.model.prompt_learner.state_dict(), b.model.prompt_learner.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert prec == "fp32" or a.scaler.state_dict() == b.scaler.state_dict()


def test_resume_from_another_folder(prompt_cfg, tmp_path, capsys):
    run(prompt_cfg)
    prompt_cfg.RESUME, prompt_cfg.OUTPUT_DIR = prompt_cfg.OUTPUT_DIR, str(tmp_path / "new")
    prompt_cfg.OPTIM.MAX_EPOCH = 3
    assert run(prompt_cfg).start_epoch == 2
    assert (tmp_path / "new" / "prompt_learner" / "model.pth.tar-3").exists()


def test_best_val(prompt_cfg, tmp_path, monkeypatch):
    results = iter([50.0, 70.0, 60.0, 0.0])
    monkeypatch.setattr(Prompt, "test", lambda self, split=None: next(results))
    prompt_cfg.OPTIM.MAX_EPOCH, prompt_cfg.TEST.FINAL_MODEL, prompt_cfg.TRAIN.CHECKPOINT_FREQ = 3, "best_val", 1
    trainer = run(prompt_cfg)
    best = load_checkpoint(str(tmp_path / "out" / "prompt_learner" / "model-best.pth.tar"))
    assert best["epoch"] == 2 and best["val_result"] == 70.0
    assert torch.equal(best["state_dict"]["ctx"], trainer.model.prompt_learner.ctx)
    # a resumed run has to beat the stored result
    results = iter([69.0, 0.0])
    prompt_cfg.OPTIM.MAX_EPOCH = 4
    run(prompt_cfg)
    assert load_checkpoint(str(tmp_path / "out" / "prompt_learner" / "model-best.pth.tar"))["epoch"] == 2


def test_final_model_is_checked(prompt_cfg):
    prompt_cfg.TEST.FINAL_MODEL = "best"
    with pytest.raises(ValueError, match='"last_step" or "best_val", got "best"'):
        build_trainer(prompt_cfg)
    prompt_cfg.TEST.FINAL_MODEL, prompt_cfg.DATASET.NUM_LABELED = "best_val", 0
    with pytest.raises(ValueError, match="TwoColours has no validation images"):
        build_trainer(prompt_cfg)


def test_last_val_is_the_last_step(prompt_cfg, console):
    prompt_cfg.TEST.FINAL_MODEL = "last_val"
    trainer = run(prompt_cfg)
    assert "Deploy the last-epoch model" in console() and trainer.epoch == 1
    assert not list(Path(prompt_cfg.OUTPUT_DIR).rglob("model-best*"))


def test_checkpoints_of_different_epochs_are_refused(prompt_cfg, tmp_path):
    trainer = build_trainer(prompt_cfg)
    trainer.register_model("extra", nn.Linear(1, 1))
    trainer.save_model(0, str(tmp_path))
    trainer.save_model(1, str(tmp_path))
    (tmp_path / "extra" / "checkpoint").write_text("model.pth.tar-1\n")
    with pytest.raises(ValueError, match=r"different epochs: \{'prompt_learner': 2, 'extra': 1\}"):
        trainer.resume_model_if_exist(str(tmp_path))


def test_registered_models(prompt_cfg):
    trainer = build_trainer(prompt_cfg)
    trainer.register_model("frozen", nn.Linear(1, 1))
    assert trainer.get_model_names() == ["prompt_learner", "frozen"] and trainer.get_model_names("frozen") == ["frozen"]
    with pytest.raises(ValueError, match="already registered"):
        trainer.register_model("frozen", nn.Linear(1, 1))
    with pytest.raises(ValueError, match="No model is registered"):
        trainer.update_lr("frosen")
    trainer.set_model_mode("eval", "frozen")
    assert not trainer._models["frozen"].training and trainer.model.prompt_learner.training
    with pytest.raises(FloatingPointError, match="infinite or NaN"):
        trainer.model_backward_and_update(torch.tensor(float("nan")))


def test_no_test_and_no_tensorboard(prompt_cfg, monkeypatch, console):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    prompt_cfg.TEST.NO_TEST = True
    run(prompt_cfg)
    out = console()
    assert "tensorboard is not installed" in out and "=> result" not in out


@TRAINER_REGISTRY.register()
class Pairs(TrainerXU):
    def build_model(self):
        self.model = nn.Linear(1, 2)
        self.register_model("model", self.model, build_optimizer(self.model, self.cfg.OPTIM))
        self.seen = []

    def forward_backward(self, batch_x, batch_u):
        x, label, u = self.parse_batch_train(batch_x, batch_u)
        self.seen.append((len(x), len(label), len(u)))
        return {"loss": 0.0}

    def model_inference(self, input):
        return self.model(input.mean((1, 2, 3), keepdim=False)[:, None])


@pytest.mark.parametrize(("count", "batches"), [("train_x", 4), ("train_u", 2), ("smaller_one", 2)])
def test_labelled_and_unlabelled(cfg, count, batches):
    cfg.TRAINER.NAME, cfg.TRAIN.COUNT_ITER, cfg.OPTIM.MAX_EPOCH = "Pairs", count, 1
    trainer = build_trainer(cfg)
    trainer.train()
    assert trainer.seen == [(4, 4, 4)] * batches and trainer.num_batches == batches
    cfg.TRAIN.COUNT_ITER = "train_y"
    with pytest.raises(ValueError, match="COUNT_ITER"):
        trainer.run_epoch()


# -- Names that checkouts made like CoOp import ------------------------------------------------------------------------


def test_names_of_upstream_that_checkouts_use(tmp_path):
    from dassl.engine.trainer import SummaryWriter
    from dassl.optim import RAdam
    from dassl.optim.radam import RAdam as the_same
    from torch.utils.tensorboard import SummaryWriter as torchs

    assert SummaryWriter is torchs and RAdam is the_same is torch.optim.RAdam
    with SummaryWriter(log_dir=str(tmp_path)) as writer:
        writer.add_scalar("loss", 1.0, 0)
    assert list(tmp_path.glob("events.*"))
    import dassl.engine.trainer as engine

    with pytest.raises(AttributeError, match="no attribute 'SumaryWriter'"):
        _ = engine.SumaryWriter


def test_hits_of_each_class_are_kept_where_they_are_asked_for():
    cfg = get_cfg_default()
    cfg.TEST.PER_CLASS_RESULT = True
    evaluator = build_evaluator(cfg, lab2cname={0: "a", 1: "b"})
    evaluator.process(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 1]))
    assert evaluator._per_class_res == {0: [1], 1: [0, 1]}
    evaluator.reset()
    assert evaluator._per_class_res == {}
    cfg.TEST.PER_CLASS_RESULT = False
    assert build_evaluator(cfg)._per_class_res is None
