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


def test_a_message_has_the_hash_once(server, tmp_path):
    """OpenAI's addresses have it in them, others do not."""
    server.status = 404
    for checksum in (server.sha256, "0" * 64):
        with pytest.raises(UserError) as error:
            download(server.url, tmp_path / "weights.pt", checksum)
        assert str(error.value).count(checksum) == 1 and str(tmp_path / "weights.pt") in str(error.value)


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
    def refuse(url, part, largest):
        part.write_bytes(b"begun")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_append", refuse)
    with pytest.raises(UserError, match="disk is full.*weights.pt.part"):
        download(server.url, tmp_path / "weights.pt", server.sha256)


# -- Servers that mean harm --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer, message",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nbody", "wrong SHA-256"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nbody", "wrong SHA-256"),
        (b"HTTP/1.1 416 \x1b[31mNo\r\nContent-Length: 0\r\n\r\n", r"refused .*: 416 \\x1b\[31mNo"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", "more than 1,000 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5000), "more than 1,000 bytes"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "refused .*not allowed"),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/a\r\n\r\n", "an address with ftp:, not http or https"),
        (b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n", "refused .*: 302"),
        (b"nonsense\r\n\r\n", "cannot reach .*nonsense"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "broke off|cannot reach"),
        (b"", "cannot reach"),
    ],
)
def test_answers_that_are_wrong(raw, tmp_path, answer, message):
    with pytest.raises(UserError, match=message):
        download(raw(answer), tmp_path / "weights.pt", "0" * 64, largest=1000)
    assert not list(tmp_path.glob("weights.pt"))


def test_a_server_that_never_ends_its_head(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 0.15)
    with pytest.raises(UserError, match="it took too long"):
        download(raw(b"HTTP/1.1 200 OK\r\n", wait=True), tmp_path / "weights.pt", "0" * 64)


def test_a_server_that_drips(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", 0.05)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with pytest.raises(UserError, match="fewer than 1,000 bytes a second|it took too long"):
        download(raw(b"HTTP/1.1 200 OK\r\n\r\n", drip=True), tmp_path / "weights.pt", "0" * 64)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "nowhere", "http://[", "http://127.0.0.1:99999/", "http:///a"])
def test_addresses_that_are_wrong(tmp_path, url):
    with pytest.raises(UserError, match="cannot reach"):
        download(url, tmp_path / "weights.pt", "0" * 64)
