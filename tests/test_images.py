"""Finding images that cannot be decoded: odd but whole files pass, broken ones are named, and once is enough."""

import io
import json
import os
import signal
import time
import warnings
import zlib
from pathlib import Path

import pytest
from forked import Forked
from PIL import Image

from fairclip.core.errors import UserError
from fairclip.data import images
from fairclip.data.images import check_images
from fairclip.predict.images import read_image

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    """An empty cache folder, and no memory of earlier tests."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FAIR_CACHE", str(folder))
    monkeypatch.setattr(images, "_seen", {})
    return folder


def photo(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    """An image with enough detail that its file has some length."""
    return Image.effect_noise(size, 60).convert(mode)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def transparent_palette() -> bytes:
    image = photo().quantize(8)
    image.info["transparency"] = bytes(range(8))
    return encoded(image, "PNG")


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    side = (40_000).to_bytes(4, "big")
    header = chunk(b"IHDR", side + side + b"\x08\x00\x00\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


WHOLE = {
    "rgb": lambda: encoded(photo(), "JPEG"),
    "progressive": lambda: encoded(photo(), "JPEG", progressive=True),
    "gray": lambda: encoded(photo("L"), "JPEG"),
    "cmyk": lambda: encoded(photo("CMYK"), "JPEG"),
    "png": lambda: encoded(photo(), "PNG"),
    "rgba": lambda: encoded(photo("RGBA"), "PNG"),
    "gray and alpha": lambda: encoded(photo("LA"), "PNG"),
    "palette": lambda: encoded(photo().quantize(16), "PNG"),
    "transparent palette": transparent_palette,
    "16 bit": lambda: encoded(photo("I;16"), "PNG"),
    "bilevel": lambda: encoded(photo("1"), "PNG"),
    "gif": lambda: encoded(photo("P"), "GIF"),
    "animated gif": lambda: encoded(photo("P"), "GIF", save_all=True, append_images=[photo("P")]),
    "bmp": lambda: encoded(photo(), "BMP"),
    "webp": lambda: encoded(photo(), "WEBP"),
    "one pixel": lambda: encoded(photo(size=(1, 1)), "JPEG"),
}

BROKEN = {
    "empty": (lambda: b"", "empty file"),
    "text": (lambda: b"<html>404 not found</html>", "not an image"),
    "jpeg, its header only": (lambda: encoded(photo(), "JPEG")[:300], "truncated"),
    "jpeg, half": (lambda: encoded(photo(), "JPEG")[: len(encoded(photo(), "JPEG")) // 2], "truncated"),
    "jpeg, all but a little": (lambda: encoded(photo(), "JPEG")[:-100], "truncated"),
    "progressive jpeg, half": (lambda: encoded(photo(), "JPEG", progressive=True)[:900], "truncated"),
    "png, half": (lambda: encoded(photo(), "PNG")[:1000], ""),
    "gif, half": (lambda: encoded(photo("P"), "GIF")[:1500], ""),
    "tiff, half": (lambda: encoded(photo(), "TIFF", compression="tiff_lzw")[:1500], ""),
    "bomb": (bomb, "decompression bomb"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_odd_images_are_fine(tmp_path, kind, capfd):
    """All of them named .jpg, as the data sets have it."""
    (tmp_path / "a.jpg").write_bytes(WHOLE[kind]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_images([str(tmp_path / "a.jpg")], "Odd") == []
    assert capfd.readouterr().err.replace("\n", "") == ""


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_images_are_found_and_nothing_is_said(tmp_path, kind, capfd):
    content, reason = BROKEN[kind]
    path = str(tmp_path / "a.jpg")
    Path(path).write_bytes(content())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((found, said),) = check_images([path], "Broken")
    assert found == path and reason in said.lower() and said and "\n" not in said and path not in said
    assert capfd.readouterr() == ("", "")


def test_absent_file(tmp_path):
    path = str(tmp_path / "a.jpg")
    assert check_images([path], "Absent") == [(path, "No such file or directory")]
    Path(path).write_bytes(WHOLE["rgb"]())
    assert check_images([path], "Absent") == []


def write_many(folder: Path, count: int) -> tuple[list[str], list[str]]:
    """Paths of `count` images and, among them, of those that are broken."""
    good, bad = WHOLE["rgb"](), WHOLE["rgb"]()[:-100]
    paths = [folder / f"{i:04}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(bad if i % 100 == 7 else good)
    return [str(path) for path in paths], [str(path) for path in paths[7::100]]


def test_many_images_are_checked_by_processes(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(images, "_cpus", lambda: 2)
    paths, broken = write_many(tmp_path, 2 * images.FEW)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bad = check_images(paths[::-1], "Many")  # whatever the order
    assert [path for path, _ in bad] == broken
    assert all("truncated" in reason for _, reason in bad)
    out, err = capfd.readouterr()
    assert out == "Checking the 400 images of Many with 2 processes, this once\n" and err == ""


def test_a_killed_process_is_a_message(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_cpus", lambda: 2)
    monkeypatch.setattr(images, "decode_error", kill)
    paths, _ = write_many(tmp_path, 2 * images.FEW)
    with pytest.raises(images.UserError, match="was killed.*memory"):
        check_images(paths, "Killed")


def kill(path: str) -> str:
    os.kill(os.getpid(), 9)
    return ""


# -- The record --------------------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The paths that are really decoded."""
    seen, plain = [], images.decode_error

    def decode_error(path: str) -> str:
        seen.append(path)
        return plain(path)

    monkeypatch.setattr(images, "decode_error", decode_error)
    return seen


def forget() -> None:
    """What a new process knows."""
    images._seen.clear()


def test_files_are_decoded_once(tmp_path, cache, decoded):
    paths, broken = write_many(tmp_path, 20)
    first = check_images(paths, "Some set")
    assert [path for path, _ in first] == broken and len(decoded) == 20
    assert check_images(paths, "Some set") == first and len(decoded) == 20
    forget()
    assert check_images(paths, "Some set") == first and len(decoded) == 20
    (record,) = (cache / "checked").iterdir()
    assert record.name.startswith("Some_set-") and json.loads(record.read_text())["images"] == 20
    forget()
    assert check_images(paths, "Some set", again=True) == first and len(decoded) == 40
    assert check_images(paths, "Some set", again=True) == first and len(decoded) == 40  # not twice in one process


def test_a_changed_file_is_decoded_again(tmp_path, decoded):
    paths, broken = write_many(tmp_path, 20)
    check_images(paths, "Set")
    Path(broken[0]).write_bytes(WHOLE["rgb"]())
    assert check_images(paths, "Set") == []
    status = os.stat(paths[0])
    os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    decoded.clear()
    check_images(paths, "Set")
    check_images(paths[:-1], "Set")
    assert len(decoded) == 20 + 19


@pytest.mark.parametrize("content", ["", "[]", '{"bad": 3}', '{"bad": [["a"]]}', "\x00"])
def test_a_damaged_record_is_no_record(tmp_path, cache, content):
    paths, broken = write_many(tmp_path, 20)
    check_images(paths, "Set")
    (record,) = (cache / "checked").iterdir()
    record.write_text(content)
    forget()
    assert [path for path, _ in check_images(paths, "Set")] == broken


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch, decoded):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FAIR_CACHE", str(tmp_path / "file"))
    paths, broken = write_many(tmp_path, 20)
    assert [path for path, _ in check_images(paths, "Set")] == broken
    check_images(paths, "Set")
    assert len(decoded) == 20  # this process remembers


def test_a_photo_of_a_phone_that_is_called_jpg(tmp_path):
    photo = tmp_path / "IMG_0001.JPG"
    photo.write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(1000))
    ((_, why),) = check_images([str(photo)], "Set")
    assert why.startswith("a HEIC photo, which Pillow cannot read: convert HEIC photos to JPEG first")
    photo.write_bytes(b"\0\0\0\x24ftypmp42" + bytes(1000))
    with pytest.raises(UserError, match="not an image$"):
        read_image(photo)


def test_breaking_off_leaves_no_record_and_no_noise(cache, tmp_path):
    """Ctrl-C reaches the workers too: they neither print nor live on."""

    def slow(path):
        print("decoding", flush=True)
        time.sleep(60)

    def work() -> int:
        images._cpus = lambda: 2
        images.decode_error = slow
        try:
            check_images([str(i) for i in range(2 * images.FEW)], "Set")
        except KeyboardInterrupt:
            return 3
        return 0

    process = Forked(work, tmp_path)
    try:
        process.until(lambda: "decoding" in process.said()[0])
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 3 and process.said()[1] == ""
        assert not (cache / "checked").exists()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        process.kill()
