"""Views cut on the device equal those of the workers; the cache of images gives back what was read and fails softly."""

import errno
import os
import socket
import sys
from multiprocessing.resource_sharer import DupFd

import numpy as np
import pytest
import torch
import toys
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.transforms import InterpolationMode, RandAugment

from fairclip.core.errors import UserError
from fairclip.core.log import Console, log
from fairclip.views import image_cache
from fairclip.views.device_views import DrawOnly, UncutViews, cut_boxes
from fairclip.views.image_cache import ImageCache, check_cache
from fairclip.views.loading import Images, build_loader, collate, read_image, set_seed, shrink, silence_stopped_reader
from fairclip.views.randaugment import NAMES, OPERATIONS, apply_in_groups, apply_operation, draw_operations
from fairclip.views.views import Views, crop_boxes, resize_box, to_bytes

CPU = torch.device("cpu")


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Neighbouring pixels are alike, as in photographs."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


# -- RandAugment -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 63])
def test_randaugment_is_torchvisions(side):
    theirs = RandAugment(2, 9, interpolation=InterpolationMode.BILINEAR)
    image = photo(side, side)
    for seed in range(100):
        torch.manual_seed(seed)
        expected, after = theirs(image), torch.rand(())
        torch.manual_seed(seed)
        found = image
        for code in draw_operations():
            found = apply_operation(found, code)
        assert torch.rand(()) == after  # as many draws
        assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_operations_in_groups_are_those_one_by_one():
    images = torch.stack([to_bytes(photo(32, 32, seed)) for seed in range(60)])
    torch.manual_seed(0)
    codes = torch.tensor([draw_operations() for _ in images])
    assert len(codes.unique()) > 15
    found = apply_in_groups(images, codes)
    for image, pair, result in zip(images, codes.tolist(), found, strict=True):
        for code in pair:
            image = apply_operation(image, code)
        assert torch.equal(result, image)


@pytest.mark.parametrize("name", NAMES)
def test_operations_on_tensors_are_pillows(name):
    """To a level of 255; where the image is moved, all but the line of pixels along its old border."""
    image = photo(64, 64)
    for sign in range(1 + OPERATIONS[name][2]):
        code = 2 * NAMES.index(name) + sign
        expected = to_bytes(apply_operation(image, code)).int()
        far = (apply_operation(to_bytes(image), code).int() - expected).abs() > 1
        assert far.float().mean() < (0.05 if name in ("ShearX", "ShearY", "Rotate") else 1e-9)


# -- Cutting on the device ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "mean"), [(torch.float32, 0.01), (torch.float16, 0.12)])
def test_boxes_are_cut_as_one_by_one(dtype, mean):
    """Images of several sizes, larger and smaller than the views; boxes at the edges; flips."""
    size, images = 48, [photo(90, 70), photo(33, 140, 1), photo(200, 180, 2), photo(20, 24, 3)]
    torch.manual_seed(0)
    boxes = [
        [(0, 0, *image.size), (image.width - 9, image.height - 7, *image.size), (0, 0, 5, 3)]
        + crop_boxes(*image.size, 5, 0.2, 1.0)
        for image in images
    ]
    flips = torch.rand(4, 8) < 0.5
    pixels = torch.zeros(4, 184, 200, 3, dtype=torch.uint8)
    for image, place in zip(images, pixels, strict=True):
        place[: image.height, : image.width] = to_bytes(image).permute(1, 2, 0)
    found = cut_boxes(pixels, torch.tensor(boxes), flips, size, dtype)
    assert found.shape == (4, 8, 3, size, size) and found.dtype == torch.uint8
    for other in (
        lambda image, box: resize_box(to_bytes(image), box, size),
        lambda image, box: to_bytes(image.crop(box).resize((size, size), Image.Resampling.BICUBIC)),
    ):
        expected = [[other(image, box) for box in row] for image, row in zip(images, boxes, strict=True)]
        expected = torch.stack([torch.stack(row) for row in expected])
        expected = torch.where(flips[..., None, None, None], expected.flip(-1), expected)
        difference = (found.int() - expected.int()).abs().float()
        assert difference.max() <= 2 and difference.mean() < mean


def test_chunks_do_not_matter(monkeypatch):
    pixels = torch.randint(256, (5, 40, 48, 3), dtype=torch.uint8)
    boxes, flips = torch.tensor([0, 0, 40, 40]).expand(5, 3, 4), torch.zeros(5, 3, dtype=torch.bool)
    whole = cut_boxes(pixels, boxes, flips, 16)
    monkeypatch.setattr("fairclip.views.device_views.CHUNK", 1)
    assert torch.equal(cut_boxes(pixels, boxes, flips, 16), whole)


@pytest.mark.parametrize("n_crops", [0, 3])
def test_views_of_the_device_are_those_of_the_worker(n_crops):
    views = Views(32, n_crops, 0.5, 0.9)
    images = [photo(60, 44, 1), photo(40, 63, 2), photo(32, 32, 3), photo(20, 31, 4)] * 5
    images = [image for image in images if min(image.size) <= views.min_side]  # others are shrunk first

    def made_by(transform):
        batch = []
        for seed, image in enumerate(images):
            torch.manual_seed(seed)
            batch.append({"img": transform(image)})
        return collate(batch)["img"]

    expected, found = made_by(views), made_by(DrawOnly(views))
    assert len(found) == len(images)
    found = found.cut()
    assert found.shape == expected.shape
    difference = (found.int() - expected.int()).abs().float()
    plain = difference[:, [0, *range(2, 2 + n_crops)]]
    assert plain.max() <= 2 and plain.mean() < 0.01
    # An operation such as Equalize or Posterize turns one level into many; and see the test of borders above.
    assert (difference[:, 1] <= 2).float().mean() > 0.95


def test_torchs_loader_pins_uncut_views(monkeypatch):
    """Without a GPU there is nothing to pin: it is counted which tensors would be."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: pinned.append(tensor) or tensor)
    part = DrawOnly(Views(32))(photo(50, 40))
    batch = pin_memory({"img": part, "label": torch.zeros(1)})
    assert isinstance(batch["img"], UncutViews) and len(pinned) == 4  # pixels, boxes, flips; labels
    assert batch["img"].operations is part.operations


def test_large_images_are_shrunk_in_the_worker():
    image = photo(400, 300)
    part = DrawOnly(Views(32, 2, 0.5, 0.9))(image)
    assert part.pixels.shape == (1, 64, 85, 3)
    assert shrink(image, 0) is image and shrink(image, 151) is image and shrink(image, 400) is image


# -- FAIR on it --------------------------------------------------------------------------------------------------------


DEVICE = ("DATALOADER.VIEWS", "device")


def test_fair_trains_and_resumes_with_views_of_the_device(data, backbone, tmp_path):
    whole = toys.run("FAIR", data, backbone, tmp_path / "whole", *DEVICE)
    toys.run_killed("FAIR", data, backbone, tmp_path / "killed", *DEVICE)
    resumed = toys.run("FAIR", data, backbone, tmp_path / "killed", *DEVICE)
    assert toys.untimed(resumed["epochs"]) == toys.untimed(whole["epochs"])
    a, b = (toys.checkpoint(tmp_path / name, "FAIR")["state_dict"] for name in ("whole", "killed"))
    assert toys.same(a, b)


def test_where_views_are_cut(data, backbone, tmp_path):
    def transform(*opts):
        return toys.build("FAIR", data, backbone, tmp_path, *opts).train_loader_x.dataset.transform

    assert isinstance(transform(), Views)  # auto, on a CPU
    assert isinstance(transform(*DEVICE), DrawOnly)
    with pytest.raises(UserError, match="DATALOADER.VIEWS 'gpu'"):
        transform("DATALOADER.VIEWS", "gpu")


def test_dpa_fills_its_memory_with_views_of_the_device(data, backbone, tmp_path):
    trainer = toys.build("DPA", data, backbone, tmp_path, *DEVICE)
    trainer.epoch = 0
    trainer.fill_memory()
    assert trainer.memory.features.norm(dim=1).allclose(torch.ones(36), atol=1e-4)


# -- Cache -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory(tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "SHM", tmp_path)
    return tmp_path


@pytest.fixture
def files(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(6):
        photo(60, 40, i).save(tmp_path / f"images/{i}.png")
    return sorted((tmp_path / "images").iterdir())


def corrupt(file) -> None:
    """Other bytes under the same time and size: whoever opens it fails."""
    status = os.stat(file)
    file.write_bytes(bytes(status.st_size))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def epoch(loader: DataLoader) -> torch.Tensor:
    set_seed(loader, 1)
    return torch.cat([batch["img"] for batch in loader])


@pytest.mark.parametrize(("kind", "context"), [("ram", None), ("disk", None), ("disk", "fork"), ("ram", "spawn")])
def test_second_epoch_opens_no_file(kind, context, files, memory, monkeypatch):
    if context:
        monkeypatch.setattr("fairclip.views.loading.cores", lambda: 2)
    paths, views, cache = list(map(str, files)), Views(32, 2, 0.5, 0.9), ImageCache(kind, 1)
    plain = epoch(build_loader(Images(paths, None, views), 2, 0, CPU))
    workers = {None: 0, "fork": 2, "spawn": 1}[context]
    loader = build_loader(Images(paths, None, views, read=cache.read), 2, workers, CPU)
    if context:
        loader.multiprocessing_context = context
    assert torch.equal(epoch(loader), plain)  # the images are not larger than min_side
    for file in files:
        corrupt(file)
    assert torch.equal(epoch(loader), plain)


def test_large_images_are_kept_small(files):
    cache = ImageCache("disk", 1)
    first = cache.read(files[0], 20)
    assert first.size == (30, 20)
    assert np.array_equal(first, cache.read(files[0], 20)) and np.array_equal(first, shrink(read_image(files[0]), 20))
    assert cache.read(files[0]).size == (60, 40)  # another side is another entry


def test_changed_and_damaged_entries_are_read_anew(files):
    cache = ImageCache("disk", 1)
    cache.read(files[0])
    photo(50, 40, 9).save(files[0])
    assert cache.read(files[0]).size == (50, 40)
    for entry in cache.folder.iterdir():
        entry.write_bytes(entry.read_bytes()[:100])
    assert cache.read(files[0]).size == (50, 40)


def test_limit(files, caplog):
    cache = ImageCache("disk", 2.5 * 16384 / 1e9)  # an image takes 7232 bytes, one block
    for _ in range(2):
        for file in files:
            assert np.array_equal(cache.read(file), read_image(file))
    assert len([entry for entry in cache.folder.iterdir() if entry.name != "tally"]) == 2
    (said,) = caplog.messages
    assert "limit" in said and "DATALOADER.CACHE_GB" in said


@pytest.mark.parametrize("workers", [0, 2])
def test_full_disk_costs_one_warning(workers, files, monkeypatch, capfd):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_cache, "atomic", full)
    monkeypatch.setattr(log, "handlers", [Console()])  # caplog does not see what workers say
    monkeypatch.setattr("fairclip.views.loading.cores", lambda: 2)
    paths, views, cache = list(map(str, files)), Views(40), ImageCache("disk", 1)
    loader = build_loader(Images(paths, None, views, read=cache.read), 1, workers, CPU)
    plain = epoch(build_loader(Images(paths, None, views), 1, 0, CPU))
    for _ in range(2):
        assert torch.equal(epoch(loader), plain)
    assert capfd.readouterr().out.count("No space left") == 1


def test_memory_is_freed_by_the_last(files, memory):
    first, second = ImageCache("ram", 1), ImageCache("ram", 1)
    folder = first.folder
    first.read(files[0])
    del first
    assert len(list(folder.iterdir())) == 2  # an image and the tally
    del second
    assert not folder.exists()
    folder.mkdir()
    (folder / "left by a killed run").touch()
    cache = ImageCache("ram", 1)
    assert not list(cache.folder.iterdir())


def test_cache_settings(monkeypatch, tmp_path):
    for settings, message in ((("gpu", 1), "choose one of"), (("ram", 0), "above 0")):
        with pytest.raises(UserError, match=message):
            check_cache(*settings)
    monkeypatch.setattr(image_cache, "SHM", tmp_path / "missing")
    with pytest.raises(UserError, match="disk or none"):
        check_cache("ram", 1)


def test_runs_with_and_without_a_cache_are_equal(data, backbone, tmp_path, memory):
    for kind in ("none", "ram", "disk"):
        toys.run("FAIR", data, backbone, tmp_path / kind, "DATALOADER.CACHE", kind)
    none, ram, disk = (toys.checkpoint(tmp_path / kind, "FAIR") for kind in ("none", "ram", "disk"))
    assert none["config_hash"] == ram["config_hash"] == disk["config_hash"]
    assert toys.same(none["state_dict"], ram["state_dict"]) and toys.same(none["state_dict"], disk["state_dict"])


def leave_while_a_batch_is_handed_over() -> None:
    """To the thread of a worker that hands over memory, as a main process does that is stopped just then."""
    handed, other = os.pipe()
    handle = DupFd(handed)
    address, _ = handle._id
    for _ in range(3):
        with socket.socket(socket.AF_UNIX) as reader:
            reader.connect(address)
    os.close(handle.detach())  # served after those before it, so that they are done with
    os.close(handed)
    os.close(other)


def test_a_worker_is_silent_when_its_reader_leaves(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, *rest: told.append(kind))
    leave_while_a_batch_is_handed_over()
    assert told and issubclass(told[0], (EOFError, OSError))
    told.clear()
    silence_stopped_reader(0)
    leave_while_a_batch_is_handed_over()
    assert not told
    sys.excepthook(ValueError, ValueError("of anything else it tells"), None)
    assert told == [ValueError]
