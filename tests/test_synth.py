"""The built-in data set: what its classes are, that it is a function of its seed, and what captions claim."""

import hashlib
import itertools
import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import Forked
from PIL import Image
from torch.nn import functional

from fairclip.backbones.makers import pixels_of
from fairclip.backbones.openai import load_clip
from fairclip.core.stopping import stops_on_signals
from fairclip.data import synth
from fairclip.data.synth.captions import ATTRIBUTES, UNKNOWN, Car, agreement, caption
from fairclip.data.synth.catalogue import BODIES, PARTS, catalogue, describe, random_parts
from fairclip.data.synth.lights import LIGHTS
from fairclip.data.synth.render import SIZE, render

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("seed", [0, 1, 3, 4, 99])
def test_trims_of_a_line_differ_in_one_to_three_parts(seed: int) -> None:
    models = catalogue(seed)
    assert len({m.name for m in models}) == 24
    assert sorted({m.body for m in models}) == sorted(BODIES)
    for a in models:
        for b in models:
            if a.line == b.line and a != b:
                assert a.body == b.body
                assert 1 <= sum(a.values[p] != b.values[p] for p in PARTS) <= 3


def test_another_seed_is_another_catalogue() -> None:
    assert catalogue(0) == catalogue(0)
    assert not {m.name for m in catalogue(0)} & {m.name for m in catalogue(1)}


def test_shipped_descriptions_are_those_of_the_catalogue() -> None:
    shipped = json.loads((ROOT / "descriptions" / "synth_cars.json").read_text())
    assert shipped == {model.name: describe(model) for model in catalogue(0)}


def test_descriptions_name_every_part_and_tell_siblings_apart() -> None:
    for model in catalogue(0):
        text = " ".join(describe(model))
        for part, value in model.parts:
            assert any(wording in text for wording in PARTS[part][value]), (model.name, part)
    assert len({" ".join(describe(m)).replace(m.name, "") for m in catalogue(0)}) == 24


def draw(body: str, parts: dict[str, str], seed: int = 3, **settings) -> np.ndarray:
    settings = {"clutter": 3, "light": "bright", "colour": "blue"} | settings
    return np.asarray(render(body, parts, random.Random(seed), **settings)[0]).astype(int)


def test_an_image_is_a_function_of_its_random_stream() -> None:
    parts = random_parts(random.Random(0))
    assert (draw("sedan", parts) == draw("sedan", parts)).all()
    assert (draw("sedan", parts) != draw("sedan", parts, seed=4)).any()


@pytest.mark.parametrize("body", BODIES)
def test_every_part_value_is_drawn_inside_its_boxes(body: str) -> None:
    base = {part: next(iter(values)) for part, values in PARTS.items()}
    _, boxes = render(body, base, random.Random(3), clutter=3, light="bright", colour="blue")
    for part, values in PARTS.items():
        inside = np.zeros((SIZE, SIZE), bool)
        for x0, y0, x1, y1 in boxes[part]:  # two pixels of slack for blur
            inside[max(0, int(y0 * SIZE) - 2) : int(y1 * SIZE) + 3, max(0, int(x0 * SIZE) - 2) : int(x1 * SIZE) + 3] = (
                True
            )
        for value in list(values)[1:]:
            changed = abs(draw(body, base) - draw(body, base | {part: value})).max(axis=2) > 40
            assert changed.sum() > 5, f"{part} {value} cannot be seen"
            assert (changed & inside).sum() >= 0.6 * changed.sum(), f"{part} {value} lies outside its box"


def images(light: str, seed: int, n: int) -> np.ndarray:
    """The first test images of three classes, [3 n, SIZE, SIZE, 3]."""
    found = [
        image
        for model in catalogue(seed)[:3]
        for image in itertools.islice(synth.class_images(model, "test", seed, light), n)
    ]
    return np.stack([np.asarray(image) for image in found])


@pytest.mark.parametrize(
    "light, seed, digest",
    [
        ("blue_hour", 0, "2609ae398ab715ca"),
        ("blue_hour", 5, "6ba527739d75de30"),
        ("bright", 0, "4112ca58d1342e07"),
        ("bright", 5, "217089cf162063ab"),
    ],
)
def test_images_stay_as_they_were_before_there_were_other_lights(light: str, seed: int, digest: str) -> None:
    assert hashlib.sha256(images(light, seed, 5).tobytes()).hexdigest()[:16] == digest


@pytest.mark.parametrize("light", LIGHTS)
def test_a_light_is_a_function_of_the_image_within_bounds(light: str) -> None:
    x = np.random.default_rng(0).random((32, 48, 3), dtype=np.float32)
    x[:4], x[-4:] = 0, 1  # the ends of the range too
    before, y = x.copy(), LIGHTS[light](x)
    assert y.dtype == np.float32 and y.shape == x.shape
    assert y.min() >= 0 and y.max() <= 1
    assert (x == before).all() and (y == LIGHTS[light](x)).all()


@pytest.mark.parametrize("light", LIGHTS)
def test_a_light_moves_all_images_the_same_way_and_keeps_the_scene(light: str) -> None:
    bright, shifted = images("bright", 0, 8), images(light, 0, 8)
    assert (images(light, 0, 8) == shifted).all()
    moved = features(shifted) - features(bright)
    directions = moved / moved.norm(dim=1, keepdim=True)
    assert moved.norm(dim=1).mean() > 0.5
    assert (directions @ (moved.mean(dim=0) / moved.mean(dim=0).norm()) > 0.5).all()
    for a, b in zip(bright.mean(axis=3), shifted.mean(axis=3), strict=True):
        assert np.corrcoef(detail(a).ravel(), detail(b).ravel())[0, 1] > 0.95


@torch.no_grad()
def features(images: np.ndarray) -> torch.Tensor:
    """Unit features of the backbone `tiny`, [n, d]."""
    small = [np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)) for image in images]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (pixels_of("tiny").mean, pixels_of("tiny").std))
    pixels = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2) / 255
    return functional.normalize(load_clip("tiny").encode_image((pixels - mean) / std), dim=1)


def detail(image: np.ndarray) -> np.ndarray:
    """The car and what is near it, without the means of rows and columns, which slopes of brightness change."""
    image = image[SIZE // 3 :]
    return image - image.mean(axis=0, keepdims=True) - image.mean(axis=1, keepdims=True)


def test_lights_stand_in_alphabetical_order_and_differ() -> None:
    assert list(LIGHTS) == sorted(LIGHTS) and len(LIGHTS) >= 4 and "bright" not in LIGHTS
    means = [images(light, 0, 2).astype(float) for light in ("bright", *LIGHTS)]
    for a, b in itertools.combinations(means, 2):
        assert abs(a - b).mean() > 10


def test_captions_claim_only_what_is_visible_and_mix_trims_up() -> None:
    models = catalogue(0)
    rng = random.Random(0)
    wrong = 0
    for _ in range(400):
        index = rng.randrange(len(models))
        car = Car(models[index].body, models[index].values, "red", index)
        text, claims, facts = caption(rng, car, models, visible=["wheels", "bumper"])
        said = {a for a, value in zip(ATTRIBUTES, claims, strict=True) if value != UNKNOWN}
        assert said and said <= {"name", "colour", "wheels", "bumper"}, text
        true, false = agreement(claims[None], facts[None])
        assert true.item() and not false.item(), text
        wrong += models[facts[0]].line == models[index].line and facts[0] != index
    assert 0.3 < wrong / 400 < 0.5


def test_agreement_against_a_loop() -> None:
    rng = np.random.default_rng(0)
    claims = rng.integers(-1, 2, (20, 4))
    facts = rng.integers(-1, 2, (30, 4))
    true, false = agreement(claims, facts)
    for i, fact in enumerate(facts):
        for u, claim in enumerate(claims):
            pairs = [(c, f) for c, f in zip(claim, fact, strict=True) if c != UNKNOWN]
            assert true[i, u] == all(c == f for c, f in pairs)
            assert false[i, u] == any(f not in (UNKNOWN, c) for c, f in pairs)


def test_rendering_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "_render_class", None)  # dies at the first class
    with pytest.raises(Exception):  # noqa: B017
        synth.render_dataset(tmp_path / "cars", 0)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_has_drawn_goes_and_the_next_one_draws_anew(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(synth, "COUNTS", {"train": 1, "val": 1, "test": 1})
    folder = tmp_path / "data/cars"

    def work() -> None:
        with stops_on_signals():  # as runs have it
            synth.render_dataset(folder)

    process = Forked(work, tmp_path / "killed")
    process.until(lambda: list(folder.parent.glob(".cars.*/images/*/*.png")))
    os.kill(process.pid, signal.SIGKILL)  # its workers have to end with it
    assert process.wait() == -signal.SIGKILL and not folder.exists()
    time.sleep(0.1)
    assert len(os.listdir(folder.parent)) == 1
    assert Forked(work, tmp_path / "again").wait() == 0
    assert os.listdir(folder.parent) == ["cars"]
    assert len(list(folder.glob("images/*/*.png"))) == 3 * len(catalogue(0))


def test_a_light_is_drawn_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "COUNTS", {"train": 1, "val": 1, "test": 1})
    monkeypatch.setattr(synth, "ProcessPoolExecutor", ThreadPoolExecutor)
    synth.render_dataset(tmp_path / "cars", 5, "fog")
    model = catalogue(5)[7]
    file = tmp_path / "cars/images" / model.name.lower().replace(" ", "_") / "test_000.png"
    (expected,) = synth.class_images(model, "test", 5, "fog")
    assert (np.asarray(Image.open(file)) == np.asarray(expected)).all()
    described = json.loads((tmp_path / "cars/descriptions.json").read_text())
    assert described == {model.name: describe(model) for model in catalogue(5)}
