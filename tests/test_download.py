"""The downloader, against a local server that refuses, lies and breaks off."""

import errno
import hashlib
import os

import pytest
from server import Server

from fairclip.core import download as module
from fairclip.core.download import download
from fairclip.core.errors import UserError


@pytest.fixture
def server(serve) -> Server:
    return serve(bytes(range(256)) * 4000)


def test_download(server, tmp_path):
    target = tmp_path / "cache" / "weights.pt"
    assert download(server.url, target, server.sha256) == target
    assert target.read_bytes() == server.body
    assert os.listdir(target.parent) == ["weights.pt"]
    download(server.url, target, server.sha256)
    assert len(server.ranges) == 1  # the second call asked nobody


def test_damaged_target_is_replaced(server, tmp_path, caplog):
    target = tmp_path / "weights.pt"
    target.write_bytes(server.body[:100])
    download(server.url, target, server.sha256)
    assert target.read_bytes() == server.body
    assert "damaged" in caplog.text


def test_wrong_hash_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match="wrong SHA-256") as error:
        download(server.url, tmp_path / "weights.pt", "0" * 64)
    assert server.url in str(error.value)
    assert not list(tmp_path.iterdir())


def test_cut_connection_goes_on(server, tmp_path):
    server.cuts = [300_000, 200_000]
    download(server.url, tmp_path / "weights.pt", server.sha256)
    assert (tmp_path / "weights.pt").read_bytes() == server.body
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_cut_too_often_then_run_again(server, tmp_path):
    server.cuts = [1000] * module.ATTEMPTS
    with pytest.raises(UserError, match="run again"):
        download(server.url, tmp_path / "weights.pt", server.sha256)
    assert os.listdir(tmp_path) == ["weights.pt.part"]
    download(server.url, tmp_path / "weights.pt", server.sha256)
    assert server.ranges[-1] == f"bytes={1000 * module.ATTEMPTS}-"
    assert (tmp_path / "weights.pt").read_bytes() == server.body
    assert os.listdir(tmp_path) == ["weights.pt"]


def test_server_without_ranges_starts_over(server, tmp_path):
    server.knows_ranges, server.cuts = False, [300_000]
    download(server.url, tmp_path / "weights.pt", server.sha256)
    assert (tmp_path / "weights.pt").read_bytes() == server.body


@pytest.mark.parametrize("extra, good", [(b"", True), (b"x", False)], ids=["whole", "too long"])
def test_part_with_nothing_left_to_ask_for(server, tmp_path, extra, good):
    """Killed between the last byte and the rename; or a part of some other file."""
    (tmp_path / "weights.pt.part").write_bytes(server.body + extra)
    if good:
        download(server.url, tmp_path / "weights.pt", server.sha256)
        assert (tmp_path / "weights.pt").read_bytes() == server.body
    else:
        with pytest.raises(UserError, match="wrong SHA-256"):
            download(server.url, tmp_path / "weights.pt", server.sha256)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status, requests", [(404, 1), (503, module.ATTEMPTS)])
def test_refusals(server, tmp_path, status, requests):
    server.status = status
    with pytest.raises(UserError, match=str(status)):
        download(server.url, tmp_path / "weights.pt", server.sha256)
    assert len(server.ranges) == requests
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to .*file.*FAIR_CACHE"):
        download(server.url, tmp_path / "file" / "weights.pt", server.sha256)
    assert not server.ranges


def test_md5_where_that_is_published(server, tmp_path):
    md5 = hashlib.md5(server.body).hexdigest()
    download(server.url, tmp_path / "weights.pt", md5)
    assert (tmp_path / "weights.pt").read_bytes() == server.body
    with pytest.raises(UserError, match="wrong MD5"):
        download(server.url, tmp_path / "other.pt", "0" * 32)
    assert os.listdir(tmp_path) == ["weights.pt"]


def test_full_disk(server, tmp_path, monkeypatch):
    def refuse(url, part):
        part.write_bytes(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_append", refuse)
    with pytest.raises(UserError, match="disk is full.*weights.pt.part"):
        download(server.url, tmp_path / "weights.pt", server.sha256)
