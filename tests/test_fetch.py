"""Fetching data sets: from local servers into CoOp's layout, whole or not at all, and never outside the folder."""

import argparse
import inspect
import io
import logging
import os
import re
import stat
import sys
import tarfile
import types
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fairclip.core.errors import UserError
from fairclip.core.log import log
from fairclip.data import fetch as module
from fairclip.data.archives import unpack
from fairclip.data.benchmark import Benchmark
from fairclip.data.copies import Copy
from fairclip.data.fetch import fetch
from fairclip.data.folders import find_folder
from fairclip.data.known import benchmarks, find
from fairclip.data.sources import Source

SOURCES = {name: cls.sources for name, cls in benchmarks().items() if cls.sources}
FILES = {"toy/images/a/1.jpg": b"one", "toy/images/b/2.jpg": b"two" * 1000, "toy/labels.txt": b"a\nb\n", "junk": b"x"}


def zipped(files: dict[str, bytes], *odd: zipfile.ZipInfo) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for info in odd:
            archive.writestr(info, b"/etc/passwd")
    return content.getvalue()


def tarred(files: dict[str, bytes], *odd: tarfile.TarInfo, mode: str = "w:gz") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o6777
            archive.addfile(info, io.BytesIO(data))
        for info in odd:
            archive.addfile(info)
    return content.getvalue()


def below(folder: Path) -> dict[str, bytes]:
    """All files, by their path below `folder`."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- Archives ----------------------------------------------------------------------------------------------------------

PACKERS = {
    "zip": zipped,
    "tar": lambda files: tarred(files, mode="w"),
    "tar.gz": tarred,
    "tar.xz": lambda files: tarred(files, mode="w:xz"),
}


@pytest.mark.parametrize("kind", PACKERS)
def test_unpack(tmp_path, kind):
    (tmp_path / "archive").write_bytes(PACKERS[kind](FILES | {"./dot.txt": b""}))  # no ending gives its kind away
    unpack(tmp_path / "archive", tmp_path / "new" / "out", 10_000)
    assert below(tmp_path / "new" / "out") == FILES | {"dot.txt": b""}
    mode = (tmp_path / "new" / "out" / "junk").stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


def zip_entry(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    return info


def tar_entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


EVIL = {
    "zip: up": lambda: zipped({"good": b"", "../evil": b"x"}),
    "zip: up later": lambda: zipped({"good/../../evil": b"x"}),
    "zip: absolute": lambda: zipped({"/tmp/evil": b"x"}),
    "zip: backslash": lambda: zipped({"..\\evil": b"x"}),
    "zip: drive": lambda: zipped({"C:evil": b"x"}),
    "zip: link": lambda: zipped({}, zip_entry("evil", stat.S_IFLNK)),
    "zip: pipe": lambda: zipped({}, zip_entry("evil", stat.S_IFIFO)),
    "zip: device": lambda: zipped({}, zip_entry("evil", stat.S_IFBLK)),
    "tar: up": lambda: tarred({"good": b"", "../evil": b"x"}),
    "tar: up later": lambda: tarred({"good/../../evil": b"x"}),
    "tar: absolute": lambda: tarred({"/tmp/evil": b"x"}),
    "tar: folder outside": lambda: tarred({}, tar_entry("../evil", tarfile.DIRTYPE)),
    "tar: link": lambda: tarred({}, tar_entry("evil", tarfile.SYMTYPE, "/etc/passwd")),
    "tar: link inside": lambda: tarred({"good": b""}, tar_entry("evil", tarfile.SYMTYPE, "good")),
    "tar: hard link": lambda: tarred({"good": b""}, tar_entry("evil", tarfile.LNKTYPE, "../../victim")),
    "tar: character device": lambda: tarred({}, tar_entry("evil", tarfile.CHRTYPE)),
    "tar: block device": lambda: tarred({}, tar_entry("evil", tarfile.BLKTYPE)),
    "tar: pipe": lambda: tarred({}, tar_entry("evil", tarfile.FIFOTYPE)),
}


@pytest.mark.parametrize("kind", EVIL)
def test_evil_archives_leave_nothing(tmp_path, kind):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    (tmp_path / "victim").touch()
    (place / "archive").write_bytes(EVIL[kind]())
    with pytest.raises(UserError, match="it is not unpacked") as error:
        unpack(place / "archive", place / "out", 10_000)
    assert "evil" in str(error.value)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "archive", "b", "victim"]
    assert not Path("/tmp/evil").exists()


def test_a_link_of_an_archive_is_not_followed_by_its_next_file(tmp_path):
    """The old trick: first a link to a folder outside, then a file in it."""
    (tmp_path / "outside").mkdir()
    link = tar_entry("way", tarfile.SYMTYPE, str(tmp_path / "outside"))
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("way/evil"))
    (tmp_path / "archive").write_bytes(content.getvalue())
    with pytest.raises(UserError, match="symbolic link"):
        unpack(tmp_path / "archive", tmp_path / "out", 10_000)
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("files", [{"a": b"0" * 20_000}, {str(i): b"" for i in range(40)}], ids=["size", "number"])
def test_what_comes_out_is_bounded(tmp_path, pack, files):
    (tmp_path / "archive").write_bytes(pack(files))
    with pytest.raises(UserError, match="more than 19,999 bytes"):
        unpack(tmp_path / "archive", tmp_path / "out", 19_999)
    assert os.listdir(tmp_path) == ["archive"]
    unpack(tmp_path / "archive", tmp_path / "out", 512 * 40)
    assert below(tmp_path / "out") == files


def lying_zip() -> bytes:
    """Its directory announces 10 bytes for what are 1,000."""
    content = bytearray(zipped({"a": b"0" * 1000}))
    at = content.rindex(b"PK\x01\x02") + 24  # size in the central directory
    content[at : at + 4] = (10).to_bytes(4, "little")
    return bytes(content)


def spoiled_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a", b"original")
    return content.getvalue().replace(b"original", b"spoiled!")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>Not found</html>",
        zipped(FILES)[:-40],
        tarred(FILES)[:-40],
        tarred(FILES, mode="w")[:3000],
        lying_zip(),
        spoiled_zip(),
    ],
    ids=["empty", "page", "cut zip", "cut tar.gz", "cut tar", "lying zip", "spoiled zip"],
)
def test_damaged_archives_leave_nothing(tmp_path, content):
    (tmp_path / "archive").write_bytes(content)
    with pytest.raises(UserError, match=str(tmp_path / "archive")):
        unpack(tmp_path / "archive", tmp_path / "out", 10**6)
    assert os.listdir(tmp_path) == ["archive"]


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "archive").write_bytes(zipped(FILES))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UserError, match="File exists"):
        unpack(tmp_path / "archive", tmp_path / "out", 10_000)
    assert os.listdir(tmp_path / "out") == ["mine"]


# -- Sources -----------------------------------------------------------------------------------------------------------


def test_addresses_and_checksums_are_torchvisions():
    from torchvision import datasets as tv

    ours = {(source.url, source.checksum) for sources in SOURCES.values() for source in sources}
    theirs = {(tv.DTD._URL, tv.DTD._MD5), (tv.Food101._URL, tv.Food101._MD5), *tv.OxfordIIITPet._RESOURCES}
    theirs |= {(tv.Flowers102._download_url_prefix + name, md5) for name, md5 in tv.Flowers102._file_dict.values()}
    assert theirs <= ours and len(theirs) == 7
    assert tv.FGVCAircraft._URL in {url for url, _ in ours}
    assert SOURCES["eurosat"][0].checksum in inspect.getsource(tv.EuroSAT)


def test_sources_are_sound():
    for name, sources in SOURCES.items():
        assert len({source.path for source in sources}) == len(sources)
        assert not sources[-1].needless
        for source in sources:
            drive = source.url.startswith("drive:")
            assert drive or re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}", source.checksum), name
            assert drive or (source.size > 0 and source.url.startswith("http")), name
            assert bool(source.inside) == (not source.path.endswith(".mat")), name


def test_sources_agree_with_what_is_said_about_them():
    known = benchmarks()
    assert len(known) >= 14 and len(SOURCES) >= 9
    for name, sources in SOURCES.items():
        said = set(re.findall(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{64}\b", known[name].how_to_get))
        assert said <= {source.checksum for source in sources}, name
    for name in known.keys() - SOURCES.keys():
        assert known[name].how_to_get.strip(), name


# -- Fetching ----------------------------------------------------------------------------------------------------------


class Toy(Benchmark):
    dataset_dir = "toy-set"
    other_names = ("toys",)

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        images = find_folder(folder, "images")
        return [Copy("images/", folder, (("", images),))] if images else []


class Gone(Toy):
    dataset_dir = "gone"
    other_names = ()
    sources = ()
    how_to_get = "Ask its authors, and put it into {folder}."


@pytest.fixture(autouse=True)
def world(monkeypatch, tmp_path):
    """Two data sets, and no split to fetch."""
    monkeypatch.setattr(module, "benchmarks", lambda: {"Toy": Toy, "Gone": Gone})
    monkeypatch.setenv("FAIR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The messages, one by one."""
    messages: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return True

    log.addFilter(keep)
    yield messages
    log.removeFilter(keep)


@pytest.fixture
def offer(serve, monkeypatch):
    """Puts one archive on the web, as Toy's only source."""

    def start(body: bytes, **facts):
        server = serve(body)
        settings = {"path": "images", "size": len(body), "checksum": server.sha256, "inside": "toy"} | facts
        monkeypatch.setattr(Toy, "sources", [Source(server.url, **settings)])
        return server

    return start


@pytest.fixture
def drive(monkeypatch):
    """A stand-in for gdown. Set `answer`: bytes that it delivers, an exception, or None for nothing."""
    gdown = types.ModuleType("gdown")

    def download(id: str, output: str, resume: bool, timeout: float | None = None) -> None:
        gdown.calls.append(id)
        if isinstance(gdown.answer, Exception):
            raise gdown.answer
        if gdown.answer is not None:
            Path(output).write_bytes(gdown.answer)

    gdown.download, gdown.calls, gdown.answer = download, [], zipped({"images/a/1.jpg": b"one"})
    monkeypatch.setitem(sys.modules, "gdown", gdown)
    monkeypatch.setattr(Toy, "sources", [Source("drive:some-id", "images", inside=".")])
    return gdown


LAYOUT = {name.removeprefix("toy/"): data for name, data in FILES.items() if name != "junk"}


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_becomes_the_layout_once(offer, tmp_path, said, pack):
    server = offer(pack(FILES))
    assert fetch(["Toy"], tmp_path / "data") == []
    assert below(tmp_path / "data" / "toy-set") == LAYOUT
    assert sorted(os.listdir(tmp_path / "data" / "toy-set")) == ["images", "labels.txt"]
    assert said[-1] == f"Toy: complete (images/ in {tmp_path / 'data' / 'toy-set'})"
    assert fetch(["toy_SET", "toy"], tmp_path / "data") == []
    assert len(server.ranges) == 1 and len(said) == 3  # both names mean the same


def test_archive_in_an_archive(offer, tmp_path):
    """Caltech-101's is such; what macOS added stays behind."""
    inner = tarred({"images/a/1.jpg": b"one"})
    offer(
        zipped({"toy/inner.tar.gz": inner, "__MACOSX/toy/._inner.tar.gz": b"x"}), inner="toy/inner.tar.gz", inside="."
    )
    assert fetch(["Toy"], tmp_path) == []
    assert below(tmp_path / "toy-set") == {"images/a/1.jpg": b"one"}


OFFICIAL = {  # what is in the archives, in the order of its sources -> CoOp's folder, and what has to be in it
    "caltech101": (
        [
            lambda: zipped(
                {
                    "caltech-101/101_ObjectCategories.tar.gz": tarred({"101_ObjectCategories/ant/1.jpg": b""}),
                    "caltech-101/Annotations.tar": b"",
                }
            )
        ],
        "caltech-101",
        {"101_ObjectCategories/ant/1.jpg"},
    ),
    "cub200": (
        [
            lambda: tarred(
                {"attributes.txt": b"", "CUB_200_2011/images/001.A/A_1.jpg": b"", "CUB_200_2011/images.txt": b""}
            )
        ],
        "cub200",
        {"images/001.A/A_1.jpg", "images.txt"},
    ),
    "dtd": (
        [lambda: tarred({"dtd/images/banded/1.jpg": b"", "dtd/labels/train1.txt": b"", "dtd/imdb/imdb.mat": b""})],
        "dtd",
        {"images/banded/1.jpg", "labels/train1.txt", "imdb/imdb.mat"},
    ),
    "eurosat": ([lambda: zipped({"2750/Forest/Forest_1.jpg": b""})], "eurosat", {"2750/Forest/Forest_1.jpg"}),
    "fgvc_aircraft": (
        [
            lambda: tarred(
                {
                    "fgvc-aircraft-2013b/README": b"",
                    "fgvc-aircraft-2013b/data/images/1.jpg": b"",
                    "fgvc-aircraft-2013b/data/variants.txt": b"",
                }
            )
        ],
        "fgvc_aircraft",
        {"images/1.jpg", "variants.txt"},
    ),
    "food101": (
        [lambda: tarred({"food-101/images/apple_pie/1.jpg": b"", "food-101/meta/train.txt": b""})],
        "food-101",
        {"images/apple_pie/1.jpg", "meta/train.txt"},
    ),
    "oxford_flowers": (
        [lambda: b"labels", lambda: b"ids", lambda: tarred({"jpg/image_00001.jpg": b""})],
        "oxford_flowers",
        {"jpg/image_00001.jpg", "imagelabels.mat", "setid.mat"},
    ),
    "oxford_pets": (
        [lambda: tarred({"annotations/list.txt": b""}), lambda: tarred({"images/Abyssinian_1.jpg": b""})],
        "oxford_pets",
        {"images/Abyssinian_1.jpg", "annotations/list.txt"},
    ),
    "ucf101": (
        [
            lambda: zipped({"ucfTrainTestlist/classInd.txt": b""}),
            lambda: zipped({"UCF-101-midframes/Apply_Lipstick/v.jpg": b""}),
        ],
        "ucf101",
        {"ucfTrainTestlist/classInd.txt", "UCF-101-midframes/Apply_Lipstick/v.jpg"},
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_official_archives_become_coops_layout(serve, tmp_path, monkeypatch, drive, name):
    archives, folder, expected = OFFICIAL[name]
    sources = []
    for source, make in zip(SOURCES[name], archives, strict=True):
        if source.url.startswith("drive:"):
            drive.answer = make()
        else:
            server = serve(make())
            source = replace(source, url=f"{server.url}/{source.file}", checksum=server.sha256)
        sources.append(source)

    class Loader(Toy):
        dataset_dir = folder

        @classmethod
        def layouts(cls, folder: Path) -> list[Copy]:
            return [Copy("CoOp's", folder, (("", folder),))] if (folder / sources[-1].path).is_dir() else []

    Loader.sources = sources
    monkeypatch.setattr(module, "benchmarks", lambda: {name: Loader})
    assert fetch([name], tmp_path) == []
    assert below(tmp_path / folder).keys() == expected


def test_several_sources_and_what_is_there_already(serve, tmp_path, monkeypatch):
    labels, images = serve(b"new labels"), serve(tarred({"images/a/1.jpg": b"one", "list.txt": b"new"}))
    sources = [
        Source(f"{labels.url}/labels.mat", "labels.mat", 9, labels.sha256),
        Source(images.url, "images", 9, images.sha256, "."),
    ]
    monkeypatch.setattr(Toy, "sources", sources)
    (tmp_path / "toy-set").mkdir()
    (tmp_path / "toy-set" / "list.txt").write_text("mine")
    assert fetch(["Toy"], tmp_path) == []
    assert below(tmp_path / "toy-set") == {"images/a/1.jpg": b"one", "labels.mat": b"new labels", "list.txt": b"mine"}
    os.unlink(tmp_path / "toy-set" / "labels.mat")
    assert fetch(["Toy"], tmp_path) == []
    assert (len(labels.ranges), len(images.ranges)) == (2, 1)


def test_a_wrong_checksum_leaves_nothing(offer, tmp_path, said):
    offer(zipped(FILES), checksum="0" * 32)
    assert fetch(["Toy"], tmp_path) == ["Toy"]
    assert "wrong MD5" in said[-1]
    assert not list((tmp_path / "toy-set").iterdir())


def test_a_cut_connection_goes_on(offer, tmp_path):
    server = offer(zipped(FILES))
    server.cuts = [200]
    assert fetch(["Toy"], tmp_path) == []
    assert server.ranges == [None, "bytes=200-"] and below(tmp_path / "toy-set") == LAYOUT


def test_broken_off_while_unpacking(offer, tmp_path, monkeypatch, capsys):
    server = offer(tarred(FILES))
    args = argparse.Namespace(names=["Toy"], root=str(tmp_path))

    def interrupt(archive, folder, limit):
        unpack(archive, folder, limit)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "unpack", interrupt)
    assert module.main(args) == 130
    assert "goes on from there" in capsys.readouterr().out
    assert os.listdir(tmp_path / "toy-set") == ["weights.pt"]  # the archive; nothing has a final name
    (tmp_path / "toy-set" / ".weights.pt.unpacked" / "outer").mkdir(parents=True)  # as a killed process leaves it
    monkeypatch.setattr(module, "unpack", unpack)
    assert module.main(args) == 0
    assert len(server.ranges) == 1
    assert below(tmp_path / "toy-set").keys() == LAYOUT.keys() | {"weights.pt"}  # not fetched by this call: kept


@pytest.mark.parametrize("kind", ["tar: up", "zip: up later", "tar: link", "zip: link", "tar: hard link"])
def test_an_evil_archive_of_a_known_checksum(offer, tmp_path, said, kind):
    offer(EVIL[kind]())
    assert fetch(["Toy"], tmp_path / "data") == ["Toy"]
    assert "it is not unpacked" in said[-1]
    assert not [p for p in tmp_path.rglob("*") if "evil" in p.name or "unpacked" in p.name or "good" in p.name]


def test_an_archive_of_other_content(offer, tmp_path, said):
    offer(zipped({"toy/pictures/1.jpg": b""}))
    assert fetch(["Toy"], tmp_path) == ["Toy"]
    assert "images is not where it was" in said[-1] and os.listdir(tmp_path / "toy-set") == ["weights.pt"]


def test_a_folder_that_cannot_be_written(offer, tmp_path, said, monkeypatch):
    server = offer(zipped(FILES))
    (tmp_path / "file").touch()
    assert fetch(["Toy"], tmp_path / "file") == ["Toy"]
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # a read-only disk; root may write anywhere else
    assert fetch(["Toy"], tmp_path / "data") == ["Toy"]
    assert all("cannot write to" in text and "--root" in text for text in said) and not server.ranges


def test_a_disk_without_room(offer, tmp_path, said, monkeypatch):
    server = offer(zipped(FILES), size=3 * 10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda path: namedtuple("Usage", "total used free")(9, 0, 5 * 10**9))
    assert fetch(["Toy"], tmp_path) == ["Toy"]
    assert "takes about 6.0 GB" in said[-1] and "5.0 GB free" in said[-1] and not server.ranges


@pytest.mark.parametrize("place", ["toys/images", "toy-set/toy-set/images"])
def test_a_copy_in_another_layout_is_enough(offer, tmp_path, said, place):
    """A second one beside it would only make the data ambiguous."""
    server = offer(zipped(FILES))
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "1.jpg").touch()
    assert fetch(["Toy"], tmp_path) == []
    assert "a copy already" in said[-1] and str(tmp_path / place.split("/")[0]) in said[-1] and not server.ranges


def test_without_a_source_the_other_ways_are_named_and_the_rest_goes_on(offer, tmp_path, said):
    offer(zipped(FILES))
    assert fetch(["gone", "Toy"], tmp_path) == ["Gone"]
    assert f"Ask its authors, and put it into {tmp_path / 'gone'}." in said[0]
    assert not (tmp_path / "gone").exists() and (tmp_path / "toy-set" / "images").is_dir()
    (tmp_path / "gone" / "images").mkdir(parents=True)
    (tmp_path / "gone" / "images" / "1.jpg").touch()
    assert fetch(["gone"], tmp_path) == []


def test_an_unknown_name_ends_it_before_anything_is_downloaded(offer, tmp_path):
    server = offer(zipped(FILES))
    with pytest.raises(UserError, match="no data set 'tos', did you mean Toy"):
        fetch(["Toy", "tos"], tmp_path)
    with pytest.raises(UserError, match="there is no data set 'zzz'. Known: Toy, Gone."):
        module.main(argparse.Namespace(names=["zzz"], root=str(tmp_path)))
    assert not server.ranges and not list(tmp_path.iterdir())


def test_what_is_needless_may_fail(serve, tmp_path, monkeypatch, said):
    images = serve(zipped(FILES))
    sources = [
        Source(images.url, "lists", 9, "0" * 32, ".", needless="nobody reads it"),
        Source(images.url, "images", 9, images.sha256, "toy"),
    ]
    monkeypatch.setattr(Toy, "sources", sources)
    assert fetch(["Toy"], tmp_path) == []
    assert "lists could not be fetched, but nobody reads it" in said[1]


def test_the_split_file_is_fetched_unless_it_is_there(offer, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "fetch_split", lambda *args: asked.append(args))
    monkeypatch.setattr(Toy, "drive_id", "some-id")
    monkeypatch.setattr(Toy, "split_file", "split_zhou_Toy.json")
    offer(zipped(FILES))
    assert fetch(["Toy"], tmp_path) == []  # not a failure: the loader makes a split
    assert asked == [("some-id", tmp_path / "toy-set", "split_zhou_Toy.json")]
    (tmp_path / "toy-set" / "split_zhou_Toy.json").touch()
    fetch(["Toy"], tmp_path)
    assert len(asked) == 1


# -- Google Drive ------------------------------------------------------------------------------------------------------


def test_an_archive_on_drive(drive, tmp_path):
    assert fetch(["Toy"], tmp_path) == []
    assert below(tmp_path / "toy-set") == {"images/a/1.jpg": b"one"} and drive.calls == ["some-id"]


@pytest.mark.parametrize(
    "answer, message",
    [
        (RuntimeError("Too many\naccesses"), "Too many accesses"),
        (None, "did not give images.zip"),
        (b"<html>Sign in</html>", "something else"),
    ],
)
def test_drive_refuses(drive, tmp_path, said, answer, message):
    drive.answer = answer
    assert fetch(["Toy"], tmp_path) == ["Toy"]
    assert message in said[-1] and "https://drive.google.com/file/d/some-id" in said[-1]
    assert str(tmp_path / "toy-set" / "images.zip") in said[-1] and not list((tmp_path / "toy-set").iterdir())


def test_an_archive_that_was_put_there_by_hand(drive, tmp_path):
    (tmp_path / "toy-set").mkdir()
    (tmp_path / "toy-set" / "images.zip").write_bytes(drive.answer)
    assert fetch(["Toy"], tmp_path) == []
    assert below(tmp_path / "toy-set").keys() == {"images/a/1.jpg", "images.zip"} and not drive.calls


# -- Command line ------------------------------------------------------------------------------------------------------


def test_command_line(offer, tmp_path, monkeypatch):
    offer(zipped(FILES))
    monkeypatch.setenv("DATA", str(tmp_path))
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    assert module.main(parser.parse_args(["toy"])) == 0 and (tmp_path / "toy-set" / "images").is_dir()
    assert module.main(parser.parse_args(["toy", "gone", "--root", str(tmp_path)])) == 1


def test_names_in_any_spelling():
    assert [find(name, {"Toy": Toy}) for name in ("Toy", "toy", "TOY-SET", "toy_set", "toyset")] == ["Toy"] * 5
