"""Unpacking what was downloaded, as if its author meant harm."""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, NamedTuple

from fairclip.core.bars import bar
from fairclip.core.errors import UserError

BLOCK = 512  # what a member costs at least, so that the limit also bounds how many there are
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    LookupError,
    NotImplementedError,
    ValueError,
)


class Member(NamedTuple):
    """One entry of an archive; `kind` is "file", "folder" or what else it claims to be, `content` a file's."""

    name: str
    kind: str
    size: int
    content: IO[bytes] | None


def unpack(archive: str | Path, folder: str | Path, limit: int) -> None:
    """Unpack a zip or tar archive, whatever its name and compression, into a folder that it creates.

    Plain files and folders come out, with the permissions and times of new ones. Anything else ends it and leaves
    nothing: a name that leads out of the folder, a link, a device, more than `limit` bytes.

    Raises:
        UserError: for those, for a damaged archive, a full disk, or a folder that is there already or cannot be made.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{archive} cannot be unpacked into {folder}: {error.strerror}") from error
    try:
        left = limit
        for member in bar(_members(archive), f"unpacking {archive.name}", "file"):
            target = folder / _inside(member.name, archive)
            left -= max(member.size, BLOCK)
            if left < 0:
                raise UserError(f"{archive} holds more than {limit:,} bytes: it is not what it should be")
            if member.kind == "folder":
                target.mkdir(parents=True, exist_ok=True)
            elif member.kind == "file":
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(member, target, archive)
            else:
                raise UserError(f"{archive} holds a {member.kind} ({member.name}): it is not unpacked")
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, UserError) or not isinstance(error, (*DAMAGED, OSError, RuntimeError)):
            raise
        raise UserError(
            f"{archive} cannot be unpacked into {folder.parent}: {error or type(error).__name__}"
        ) from error


def _write(member: Member, target: Path, archive: Path) -> None:
    """Copy as much as the archive announced: a stream that has more is cut, one that has less is an error."""
    left, content = member.size, member.content
    assert content is not None  # files have one
    with open(target, "wb") as file:
        while left and (chunk := content.read(min(left, 1 << 20))):
            file.write(chunk)
            left -= len(chunk)
        content.read(1)  # a zip file compares its checksum at the end
    if left:
        raise UserError(f"{archive} is damaged: {member.name} breaks off")


def _inside(name: str, archive: Path) -> Path:
    """The member's path below the folder. Read as Windows does, so that both slashes separate and C: is seen."""
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or "\0" in name:
        raise UserError(f"{archive} holds a file that would land outside its folder ({name!r}): it is not unpacked")
    return Path(*path.parts)


def _members(archive: Path) -> Iterator[Member]:
    return _zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            mode = stat.S_IFMT(info.external_attr >> 16)  # Unix mode, where the packer was on Unix
            if info.is_dir():
                yield Member(info.filename, "folder", 0, None)
            elif mode not in (0, stat.S_IFREG):
                kind = "symbolic link" if mode == stat.S_IFLNK else "special file"
                yield Member(info.filename, kind, 0, None)
            else:
                with file.open(info) as content:
                    yield Member(info.filename, "file", info.file_size, content)


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as file:
        for info in file:
            if info.isdir():
                yield Member(info.name, "folder", 0, None)
            elif info.isreg():
                yield Member(info.name, "file", info.size, file.extractfile(info))
            else:
                kind = "symbolic link" if info.issym() else "hard link" if info.islnk() else "device"
                yield Member(info.name, kind, 0, None)
