"""Features of the frozen tower: the same as computed plainly, and a cache that is never wrong and never in the way."""

import copy
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from fairclip.core import cache as module
from fairclip.views.features import encode_images
from fairclip.views.views import FixedCrops, RandomCrops

PLAIN = Compose([Resize(32), CenterCrop(32), ToTensor()])
CROPS = RandomCrops(32, 3, 0.1, 0.9)


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 52, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    return [tmp_path / f"{i}.png" for i in range(5)]


class Tower:
    """Encodes, and counts the images."""

    def __init__(self, clip):
        self.visual, self.images = clip.visual, 0

    def encode(self, views):
        self.images += len(views)
        flat = normalize(self.visual(views.flatten(0, -4).float()), dim=-1)
        return flat.unflatten(0, views.shape[:-3])


@pytest.fixture
def tower(tiny_clip):
    return Tower(tiny_clip)


def encode(tower, paths, transform=PLAIN, **settings):
    return encode_images(tower.visual, paths, transform, tower.encode, **({"batch": 2} | settings))


def files(cache):
    return sorted((cache / "features").glob("*")) if (cache / "features").is_dir() else []


def test_features_are_those_of_the_plain_computation(tower, paths):
    features, saved = encode(tower, paths)
    with torch.no_grad():
        expected = torch.cat([normalize(tower.visual(PLAIN(Image.open(p))[None]), dim=-1) for p in paths])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)
    assert saved == 0 and features.dtype == torch.float32 and not features.requires_grad


def test_computed_once(tower, paths, cache):
    first, _ = encode(tower, paths)
    second, saved = encode(tower, paths)
    assert torch.equal(first, second) and tower.images == 5 and saved > 0
    (file,) = files(cache)
    assert file.suffix == ".npy" and np.load(file, allow_pickle=False).shape == (5, 16)


@pytest.mark.parametrize("change", ["parameter", "buffer", "transform", "settings", "seed", "order", "file", "time"])
def test_whatever_features_depend_on_is_in_the_key(tower, tiny_clip, paths, change):
    encode(tower, paths, CROPS)
    transform, settings = CROPS, {}
    if change in ("parameter", "buffer"):
        tower.visual = copy.deepcopy(tiny_clip.visual)
        if change == "parameter":
            with torch.no_grad():
                tower.visual.ln_post.bias[0] += 1e-3
        else:
            tower.visual.register_buffer("running_mean", torch.zeros(1))
    elif change == "transform":
        transform = RandomCrops(32, 3, 0.2, 0.9)
    elif change in ("settings", "seed"):
        settings = {change: {"settings": "bf16", "seed": 1}[change]}
    elif change == "order":
        paths = paths[::-1]
    elif change == "file":
        Image.new("RGB", (52, 40), "red").save(paths[0])
    else:
        status = os.stat(paths[0])
        os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    tower.images = 0
    _, saved = encode(tower, paths, transform, **settings)
    assert tower.images == 5 and saved == 0


def test_transforms_describe_themselves():
    assert repr(CROPS) == repr(RandomCrops(32, 3, 0.1, 0.9))
    others = [
        RandomCrops(16, 3, 0.1, 0.9),
        RandomCrops(32, 4, 0.1, 0.9),
        RandomCrops(32, 3, 0.1, 0.8),
        FixedCrops(32, 3, 0.1, 0.9),
    ]
    assert repr(CROPS) not in map(repr, others)


def test_a_transform_that_does_not_describe_itself_is_not_cached(tower, paths, cache):
    encode(tower, paths, lambda image: PLAIN(image))
    assert files(cache) == []
    encode(tower, paths, lambda image: PLAIN(image) * 0)
    assert tower.images == 10


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "zip", "shape", "pickle", "nan", "tail"])
def test_a_damaged_cache_is_made_again(tower, paths, cache, damage):
    first, _ = encode(tower, paths)
    (file,) = files(cache)
    content = file.read_bytes()
    if damage in ("shape", "pickle", "nan"):
        array = {
            "shape": np.zeros((4, 16), np.float32),
            "pickle": np.array([print] * 5, dtype=object),
            "nan": np.full((5, 16), np.nan, np.float32),
        }[damage]
        with open(file, "wb") as stream:
            np.save(stream, array)
            np.save(stream, 1.0)
    else:
        file.write_bytes(
            {
                "cut": content[:200],
                "empty": b"",
                "text": b"not an array",
                "zip": b"PK\x03\x04" + content,
                "tail": content[:-4],
            }[damage]
        )
    again, saved = encode(tower, paths)
    assert torch.equal(first, again) and saved == 0 and tower.images == 10
    assert files(cache) == [file] and encode(tower, paths)[1] > 0  # and mended


def test_a_cache_that_cannot_be_written_to_costs_time_only(tower, paths, cache):
    (cache / "features").write_text("a file where the folder would be")
    assert torch.equal(encode(tower, paths)[0], encode(tower, paths)[0])
    assert tower.images == 10


def test_nothing_half_written_stays(tower, paths, cache, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(module.np, "save", fail)
    encode(tower, paths)
    assert files(cache) == []


def test_moved_images_are_encoded_again(tower, paths, tmp_path):
    encode(tower, paths)
    shutil.copytree(tmp_path, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("elsewhere"))
    encode(tower, [tmp_path / "elsewhere" / path.name for path in paths])
    assert tower.images == 10


def test_an_images_draws_depend_on_seed_and_position_alone(tower, paths, cache):
    def draws(**settings):
        shutil.rmtree(cache / "features", ignore_errors=True)
        return encode(tower, paths, CROPS, **settings)[0]

    first = draws()
    assert first.shape == (5, 4, 16)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    torch.testing.assert_close(draws(batch=5), first, rtol=0, atol=1e-5)
    torch.testing.assert_close(draws(workers=2), first, rtol=0, atol=1e-5)
    assert torch.equal(torch.get_rng_state(), before)  # the run's own random numbers stay what they were
    other = draws(seed=1)
    torch.testing.assert_close(other[:, 0], first[:, 0], rtol=0, atol=1e-5)  # the whole image is no draw
    assert ((other - first)[:, 1:].abs().amax(dim=2) > 1e-3).all()


def test_images_differ_in_their_crops(tower, paths):
    same, _ = encode(tower, [paths[0]] * 2, CROPS)
    assert torch.equal(same[0, 0], same[1, 0]) and ((same[0, 1:] - same[1, 1:]).abs().amax(dim=1) > 1e-3).all()


def test_a_missing_image_is_named(tower, paths):
    paths[2].unlink()
    with pytest.raises(FileNotFoundError, match="2.png"):
        encode(tower, paths)
