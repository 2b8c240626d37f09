"""Downloading the data sets that are still on the web, into the folders of CoOp's layout.

`SOURCES` says where they are. Sizes and checksums are those that torchvision 0.29 and TensorFlow Datasets 4.9 expect.
Data sets that are not in it have no source that a program could use; their loaders know what people do instead.
"""

import argparse
import difflib
import inspect
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from fairclip.core.download import TIMEOUT, download
from fairclip.core.errors import UserError
from fairclip.core.places import DATA
from fairclip.core.plugins import import_plugins
from fairclip.data.archives import unpack
from fairclip.data.common import Benchmark
from fairclip.data.layouts import Copy, squash
from fairclip.data.splits import fetch_split, split_places

DRIVE = "drive:"
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
CALTECH = "https://data.caltech.edu/records"
MIRROR = "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd"


@dataclass(frozen=True)
class Source:
    """One download.

    Args:
        url: where it is; "drive:<id>" for an archive on Google Drive.
        path: what it gives, below the data set's folder. It gets this name last, so if it is there, all of it is.
        size: bytes to download; 0: unknown.
        checksum: MD5 or SHA-256 of the download in hex; "": none is published.
        inside: for an archive, the folder in it whose content goes to the data set's folder; ".": the archive's own.
        inner: for an archive in an archive, its place in the outer one.
        needless: why the data set can do without it, if it can.
    """

    url: str
    path: str
    size: int = 0
    checksum: str = ""
    inside: str = ""
    inner: str = ""
    needless: str = ""

    @property
    def file(self) -> str:
        """The name of the downloaded file."""
        return f"{self.path}.zip" if self.url.startswith(DRIVE) else self.url.rpartition("/")[2]

    @property
    def page(self) -> str:
        """The address for a browser."""
        return self.url.replace(DRIVE, "https://drive.google.com/file/d/")


# Registry's name -> downloads; the last one is that of the images. Split files are the loaders' business.
SOURCES = {
    "Caltech101": [
        Source(
            f"{CALTECH}/mzrjq-6wc02/files/caltech-101.zip",
            "101_ObjectCategories",
            137_414_764,
            "3138e1922a9193bfa496528edbbc45d0",
            ".",
            "caltech-101/101_ObjectCategories.tar.gz",
        ),
    ],
    "CUB200": [
        Source(
            f"{CALTECH}/65de6-vp158/files/CUB_200_2011.tgz",
            "images",
            1_150_585_339,
            "97eceeb196236b17998738112f37df78",
            "CUB_200_2011",
        ),
    ],
    "DescribableTextures": [
        Source(
            f"{OXFORD}/dtd/download/dtd-r1.0.1.tar.gz", "images", 625_239_812, "fff73e5086ae6bdbea199a49dfb8a4c1", "dtd"
        ),
    ],
    "EuroSAT": [
        Source(f"{MIRROR}/EuroSAT.zip", "2750", 94_280_567, "c8fa014336c82ac7804f0398fcb19387", "."),
    ],
    "FGVCAircraft": [
        Source(
            f"{OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            "images",
            2_753_340_328,
            "d4acdd33327262359767eeaa97a4f732",
            "fgvc-aircraft-2013b/data",
        ),
    ],
    "Food101": [
        Source(
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            "images",
            4_996_278_331,
            "85eeb15f3717b99a5da872d97d918f87",
            "food-101",
        ),
    ],
    "OxfordFlowers": [
        Source(f"{OXFORD}/flowers/102/imagelabels.mat", "imagelabels.mat", 502, "e0620be6f572b9609742df49c70aed4d"),
        Source(f"{OXFORD}/flowers/102/setid.mat", "setid.mat", 14_989, "a5357ecc9cb78c4bef273ce3793fc85c"),
        Source(f"{OXFORD}/flowers/102/102flowers.tgz", "jpg", 344_862_509, "52808999861908f626f3c1f4e79d11fa", "."),
    ],
    "OxfordPets": [
        Source(
            f"{OXFORD}/pets/data/annotations.tar.gz", "annotations", 19_173_078, "95a8c909bbe2e81eed6a22bccdf3f68f", "."
        ),
        Source(f"{OXFORD}/pets/data/images.tar.gz", "images", 791_918_971, "5c4f3ee8e5d25df40f4fd59a7f44e54c", "."),
    ],
    "UCF101": [
        Source(
            "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            "ucfTrainTestlist",
            113_943,
            "5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
            ".",
            needless="CoOp's split file takes its place",
        ),
        Source(f"{DRIVE}10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O", "UCF-101-midframes", inside="."),
    ],
}


# -- Command line ------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fair data fetch`."""
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"data sets; on the web are {', '.join(SOURCES)}")
    add_root(parser)


def add_root(parser: argparse.ArgumentParser) -> None:
    """The argument --root, the same for every command."""
    parser.add_argument(
        "--root",
        default=os.environ.get("DATA") or str(DATA),
        help="the folder that holds the data sets (default: $DATA, else data/ of this repository)",
    )


def main(args: argparse.Namespace) -> int:
    """Returns the exit status: 0, 1 if a data set could not be fetched, 130 after Ctrl-C."""
    try:
        return 1 if fetch(args.names, args.root) else 0
    except KeyboardInterrupt:
        print("Broken off. What has arrived is kept: the same command goes on from there.", file=sys.stderr)
        return 130


# -- Data sets ---------------------------------------------------------------------------------------------------------


def benchmarks() -> dict[str, type[Benchmark]]:
    """The benchmark data sets, by the registry's name."""
    modules, _ = import_plugins("datasets")
    names = {module.__name__ for module in modules}
    found = {name: DATASET_REGISTRY.get(name) for name in sorted(DATASET_REGISTRY.registered_names(), key=str.lower)}
    return {name: cls for name, cls in found.items() if issubclass(cls, Benchmark) and cls.__module__ in names}


def find(name: str, known: dict[str, type[Benchmark]]) -> str:
    """The registry's name of what `name` means: that name or the folder's, in any case and punctuation.

    Raises:
        UserError: there is none.
    """
    table = {squash(text): own for own, cls in known.items() for text in (own, cls.dataset_dir)}
    if squash(name) in table:
        return table[squash(name)]
    close = difflib.get_close_matches(squash(name), table, n=1)
    hint = f", did you mean {table[close[0]]}?" if close else "."
    raise UserError(f"there is no data set '{name}'{hint} Known: {', '.join(known)}.")


# -- Fetching ----------------------------------------------------------------------------------------------------------


def fetch(names: Iterable[str], root: str | Path, out: Callable[[str], None] = print) -> list[str]:
    """Download data sets; what is there already is left alone, what was broken off goes on.

    Args:
        names: see `find`.
        root: the folder that holds the data sets.
        out: takes one message at a time.

    Returns:
        The names of those that are not there afterwards; why has been said.

    Raises:
        UserError: an unknown name; then nothing is downloaded.
    """
    root = Path(os.path.abspath(os.path.expanduser(root)))
    known, failed = benchmarks(), []
    for name in dict.fromkeys(find(name, known) for name in names):
        try:
            _fetch(known[name], root, out)
        except UserError as error:
            out(f"{name}: {error}")
            failed.append(name)
    return failed


def _fetch(cls: type[Benchmark], root: Path, out: Callable[[str], None]) -> None:
    name, folder, sources = cls.__name__, root / cls.dataset_dir, SOURCES.get(cls.__name__, [])
    copy = _copy(cls, root)
    if copy and not (sources and (folder / sources[-1].path).exists()):
        out(f"{name}: there is a copy already ({copy.layout} in {copy.home})")
        return
    if not sources:
        raise UserError(f"there is no source that a program could download it from.\n{cls.help(root)}")
    missing = [source for source in sources if not (folder / source.path).exists()]
    if missing:
        size = sum(source.size for source in missing)
        _check_room(folder, size)
        out(f"{name}: downloading to {folder}" + (f", {size / 1e6:,.1f} MB" if size else ""))
    for source in missing:
        try:
            _get(source, folder)
        except UserError as error:
            if not source.needless:
                raise
            out(f"{name}: {source.path} could not be fetched, but {source.needless}. {error}")
    if cls.drive_id and not any(path.is_file() for path in split_places(folder, cls.split_file)):
        fetch_split(cls.drive_id, folder, cls.split_file)  # says itself how that went; a split can be made, too
    copy = cls.locate(root)
    out(f"{name}: complete ({copy.layout} in {copy.home})")


def _copy(cls: type[Benchmark], root: Path) -> Copy | None:
    """A copy that is there in whatever layout: beside it, another one would make the data ambiguous."""
    try:
        return cls.locate(root) if root.is_dir() else None
    except UserError:
        return None


def _check_room(folder: Path, size: int) -> None:
    """Raises UserError unless `folder` can be made and the disk has room for the archives and what comes out."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise UserError(f"cannot write to {folder}. Name another parent folder: DATA=/path or --root /path.")
    free = shutil.disk_usage(folder).free
    if free < 2 * size:
        raise UserError(f"this takes about {2 * size / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free")


def _get(source: Source, folder: Path) -> None:
    """Put what one source gives into `folder`."""
    file = folder / source.file
    brought = file.exists()  # by hand, so it is not ours to delete
    if not source.url.startswith(DRIVE):
        download(source.url, file, source.checksum)
    elif not brought:
        _get_from_drive(source, file)
    if source.inside:
        _unpack(source, file, folder)
        if not brought:
            file.unlink()


def _get_from_drive(source: Source, file: Path) -> None:
    """A zip from Google Drive; gdown goes on where it was broken off."""
    by_hand = f"Or open {source.page} in a browser and put the file at {file}."
    try:
        import gdown  # imported here: only this needs it

        # Releases before 6 know no timeout.
        patience = {"timeout": TIMEOUT} if "timeout" in inspect.signature(gdown.download).parameters else {}
        gdown.download(id=source.url.removeprefix(DRIVE), output=str(file), resume=True, **patience)
    except Exception as error:  # gdown's own kinds, those of requests, plain ones
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"Google Drive did not give {file.name}: {reason}. {by_hand}") from error
    if not file.is_file():  # some releases of gdown return None instead of raising
        raise UserError(f"Google Drive did not give {file.name}. {by_hand}")
    if not zipfile.is_zipfile(file):
        file.unlink()
        raise UserError(f"Google Drive gave something else than {file.name}, which was removed. {by_hand}")


def _unpack(source: Source, archive: Path, folder: Path) -> None:
    """Unpack beside the destination, and move things there when all of them are out, `source.path` last."""
    place = folder / f".{source.file}.unpacked"
    shutil.rmtree(place, ignore_errors=True)  # of a call that was killed
    try:
        content = place / "outer"
        unpack(archive, content, _limit(archive))
        if source.inner:
            inner, content = content / source.inner, place / "inner"
            if inner.is_file():
                unpack(inner, content, _limit(inner))
        content = content / source.inside
        if not (content / source.path).exists():
            raise UserError(f"{archive} has changed its content: {source.path} is not where it was in it")
        for path in sorted(content.iterdir(), key=lambda path: (path.name == source.path, path.name)):
            if not (folder / path.name).exists():
                os.rename(path, folder / path.name)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _limit(archive: Path) -> int:
    """Bytes that may come out: images hardly shrink, lists of text do."""
    return 3 * archive.stat().st_size + 2**30
