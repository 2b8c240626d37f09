"""Chat endpoints that fail, lie or mean harm: one message, no key in it, and nothing lost."""

import json

import pytest
from commands import describe

from fairclip.core.errors import UserError
from fairclip.describe import endpoint as module
from fairclip.describe import generate
from fairclip.describe.endpoint import Endpoint, seconds_to_wait

KEY = 'sk-"se/cret'


def reply(body: bytes, status: str = "200 OK", head: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


def content(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.mark.parametrize(
    "answer, message",
    [
        (reply(f"bad key {KEY} \x1b[31m\x9b \u202e".encode(), "401 No"), r"bad key <key> \\x1b\[31m\\x9b \\u202e"),
        (reply(json.dumps({"error": f"Bearer {KEY}"}).encode(), "400 No"), "answered 400: .*Bearer <key>"),
        (reply(b"[" * 10**5), "does not answer like a chat endpoint"),
        (reply(b'{"choices": [{"message": {"content": null}}]}'), "does not answer like a chat endpoint"),
        (reply(b'{"choices": {}}'), "does not answer like a chat endpoint"),
        (reply(b"\xff\xfe"), "does not answer like a chat endpoint"),
        (reply(content("x" * 200_000)), "200,000 characters"),
        (reply(bytes(5_000_000)), "longer than 4,194,304 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5_000_000), "longer than 4,194,304 bytes"),
        (reply(b"x", head="Content-Encoding: gzip\r\n"), "it is compressed"),
        (reply(b"", "307 Elsewhere", "Location: http://127.0.0.1:9/\r\n"), "answered 307: .*Is the base URL right"),
        (reply(b"", "429 Busy", "Retry-After: 100000\r\n"), "asks to wait for 100,000 seconds"),
        (reply(b"", "503 Busy", "Retry-After: Fri, 01 Jan 2100 00:00:00 GMT\r\n"), "asks to wait"),
        (reply(b"", "503 Busy", "Retry-After: soon\r\n"), "answered 503"),
        (b"HTTP/1.1 2000 x\r\n\r\n", "no answer from"),
        (b"", "no answer from"),
    ],
)
def test_answers_that_are_wrong(raw, answer, message):
    with pytest.raises(UserError, match=message) as error:
        Endpoint(raw(answer), "m", KEY).ask([])
    text = str(error.value)
    assert text.isprintable() and "se/cret" not in text and len(text) < 700


def test_an_endless_answer(raw, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with pytest.raises(UserError, match="it took too long"):
        Endpoint(raw(b"HTTP/1.1 200 OK\r\n\r\n", drip=True), "m", KEY).ask([])


@pytest.mark.parametrize(
    "url, key", [("ftp://a/v1", ""), ("http://me:pass@a/v1", ""), ("http://a", "two words"), ("http://a", "se\ncret")]
)
def test_addresses_and_keys_that_are_wrong(url, key):
    with pytest.raises(UserError) as error:
        Endpoint(url, "m", key)
    assert not {"pass@", "cret", "words"} & set(str(error.value).split())


def test_seconds_to_wait():
    assert [seconds_to_wait(text) for text in ("7", "-1", "x", None, "9" * 400)] == [7, 0, None, None, None]
    assert seconds_to_wait("Fri, 01 Jan 2100 00:00:00 GMT") > 10**9


def test_one_bad_answer_is_one_class_that_is_missing(tmp_path, capsys, monkeypatch):
    def ask(self: Endpoint, messages: list) -> str:
        if "Class: b\n" in messages[1]["content"]:
            raise RuntimeError(f"\x1b {KEY}")
        return json.dumps([f"Sentence {n} \x1b]0;x\x07 \ud800." for n in range(4)])

    monkeypatch.setattr(Endpoint, "ask", ask)
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    arguments = ["generate", str(tmp_path / "names.txt"), "--out", str(tmp_path / "made.json")]
    assert describe([*arguments, "--base-url", "http://127.0.0.1:9", "--model", "m", "--key", KEY]) == 1
    table, said = json.loads((tmp_path / "made.json").read_text()), capsys.readouterr().out
    assert table["a"] == table["c"] == [f"Sentence {n} ]0;x ." for n in range(4)] and "b" not in table
    assert "not described: b" in said and "<key>" in said and "cret" not in said and "\x1b" not in said


def test_lists_without_end():
    assert generate.parse("[" * 10**5) == [] == generate.parse(json.dumps(["a"] * 100)) == generate.parse('["\\u0007"]')
