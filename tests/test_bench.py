"""The benchmark in small: its figures are there and add up. How fast anything is, no test says."""

import json
import math

import numpy as np
import pytest
import torch
from commands import bench as run_bench

from fairclip.bench.measuring import operations
from fairclip.bench.photos import photo
from fairclip.bench.stages import Stopwatch
from fairclip.bench.step import BareEncoder
from fairclip.bench.weights import SHAPES


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """All parts, on the smallest backbone."""
    file = tmp_path_factory.mktemp("bench") / "results" / "bench.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairclip.bench.trainers.PHOTOS", 4)  # to draw one takes a while
        status = run_bench(["--quick", "--device", "cpu", "--json", str(file)])
    assert status == 0
    assert [path.name for path in file.parent.iterdir()] == ["bench.json"], "written whole, with nothing left beside it"
    return json.loads(file.read_text())


def numbers(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, float):
        yield value


def test_all_figures_are_finite_and_above_zero(facts):
    assert facts["overhead_ratio"] > 0 and facts["pipeline_speedup"] > 0
    measured = {name: value for name, value in facts.items() if name not in ("versions", "growth_base")}
    assert len(list(numbers(measured))) > 20
    assert all(math.isfinite(number) and number > 0 for number in numbers(measured))
    assert facts["memory_peak_bytes"] >= facts["memory_at_rest_bytes"] > 0
    assert facts["backbone"] == "tiny" and facts["weights"] == "trained" and facts["quick"]


def test_solvers_are_measured_in_two_sizes(facts):
    assert {name: list(sizes) for name, sizes in facts["solvers"].items()} == {
        name: ["200", "400"] for name in ("ZLaP", "StatA", "TransCLIP")
    }


def test_growth_covers_what_was_asked(facts):
    assert {name: list(times) for name, times in facts["growth_seconds"].items()} == {
        "crops": ["0", "2"],
        "classes": ["2", "5"],
        "batch": ["1", "2", "4"],
    }


def test_stages_add_up_to_the_step(facts):
    stages = facts["stages_seconds"]
    assert stages.keys() == {
        "wait for the loader",
        "to device, normalise",
        "views without gradients",
        "scores, weights, losses",
        "student's views, forward",
        "backward",
        "optimizer",
    }
    assert sum(stages.values()) == pytest.approx(facts["stages_step_seconds"], rel=0.05)


def test_a_stage_inside_another_stops_its_clock(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 7.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = Stopwatch(torch.device("cpu"))
    watch.timed("outer", watch.timed("inner", lambda: None))()
    assert watch.spent == {"outer": 1 + 4, "inner": 2}


def test_operations_are_those_of_the_passes():
    """A linear layer of 3 x 5 takes 2 * 3 * 5 operations an image, and as many again where a gradient passes it."""
    layer = torch.nn.Linear(3, 5, bias=False)
    assert operations(layer, torch.ones(1, 3)) == (30, 2 * 30)  # the gradient of its weight


def test_bare_encoder_sees_each_view_once():
    class Tower(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.seen = torch.nn.Parameter(torch.ones(())), []

        def forward(self, images):
            self.seen.append((torch.is_grad_enabled(), images.flatten(1)[:, 0].tolist()))
            return self.scale * images.flatten(1)

    tower, views = Tower(), torch.arange(8.0).reshape(2, 4, 1, 1, 1).expand(2, 4, 3, 2, 2)  # weak, strong, two crops
    bare = BareEncoder(tower, views, 2, "fp32")
    bare.step(chunk=2)
    assert tower.seen == [(False, [0, 4]), (False, [3, 7]), (True, [1, 2, 5, 6])]
    assert tower.scale.grad == 12 * (1 + 2 + 5 + 6)
    bare.step(chunk=512)
    assert tower.seen[3:] == [(False, [0, 4, 3, 7]), (True, [1, 2, 5, 6])]
    assert tower.scale.grad == 12 * (1 + 2 + 5 + 6), "gradients are those of one step"


def test_photos_are_of_real_size_and_detail(tmp_path):
    image = photo(np.random.default_rng(0))
    image.save(tmp_path / "photo.jpg", quality=90)
    assert image.size == (500, 375)
    assert 50_000 < (tmp_path / "photo.jpg").stat().st_size < 150_000


@pytest.mark.parametrize("name", sorted(set(SHAPES) - {"ViT-L/14"}))
def test_shapes_are_openais(name):
    """By the parameters of the image towers, in millions, as OpenAI's checkpoints have them."""
    from clip.model import CLIP

    features, side, layers, width, patch = SHAPES[name]
    with torch.device("meta"), torch.random.fork_rng():
        model = CLIP(features, side, layers, width, patch, 77, 49408, 64, 1, 1)
    count = sum(p.numel() for p in model.visual.parameters())
    assert count == {"ViT-B/32": 87_849_216, "ViT-B/16": 86_192_640, "RN50": 38_316_896}[name]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--backbone", "ViT-B/33"], ["--backbone ViT-B/33", "ViT-B/32", "tiny"]),
        (["--quick", "--device", "cpu", "--prec", "amp"], ["PREC amp needs a GPU"]),
        (["--crops", "-1"], ["--crops"]),
        (["--quick", "--batch", "8", "--workers", "2"], ["--quick", "leave out --batch, --workers"]),
    ],
)
def test_what_cannot_be_done_is_one_message(arguments, words, capsys, tmp_path):
    assert run_bench([*arguments, "--json", str(tmp_path / "b.json")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("Error: ") and all(word in line for word in words)
    assert not list(tmp_path.iterdir())
