"""Digests, leftovers of killed runs, and files of ours that somebody has changed."""

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from fairclip.compare.methods import read_methods
from fairclip.compare.suites import read_suites
from fairclip.core import files
from fairclip.core.cache import cached, keep_record, kept_record
from fairclip.core.csv_files import as_csv, harmless, original, read_csv
from fairclip.core.errors import UserError
from fairclip.core.files import atomic, sweep, work_folder
from fairclip.core.reading import parse_yaml
from fairclip.core.tensor_files import digest_of, read_tensors, save_tensors
from fairclip.run import checkpoints
from fairclip.run.results import read_predictions, write_predictions
from fairclip.run.saved import Saved

# -- Tensors -----------------------------------------------------------------------------------------------------------

CONTENT = {"state_dict": {"a": torch.arange(64.0), "b": torch.ones(3, dtype=torch.bfloat16)}, "epoch": 1, "n": [0.1]}


def rewritten(file: Path, change) -> None:
    """The same zip file with other bytes in its largest entry, and the checksums of those."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    largest = max((name for name in entries if "/data/" in name), key=lambda name: len(entries[name]))
    entries[largest] = change(entries[largest])
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_a_digest_sees_every_value(tmp_path):
    file = tmp_path / "a.pt"
    save_tensors(CONTENT, file)
    assert read_tensors(file, "a test")["epoch"] == 1
    rewritten(file, lambda content: content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"a.pt cannot be read as a test: it is damaged, since .* SHA-256"):
        read_tensors(file, "a test")
    torch.save(CONTENT, file)  # from before there were digests
    assert torch.equal(read_tensors(file, "a test")["state_dict"]["a"], CONTENT["state_dict"]["a"])
    content = bytearray(file.read_bytes())
    place = content.index(np.arange(64, dtype=np.float32).tobytes())
    content[place + 40 : place + 104] = bytes(64)
    file.write_bytes(content)
    with pytest.raises(UserError, match="it is damaged"):
        read_tensors(file, "a test")


def test_what_would_fill_the_memory_is_not_unpacked(tmp_path):
    torch.save({"a": torch.zeros(10**7)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive, zipfile.ZipFile(tmp_path / "b.pt", "w", 8) as other:
        for entry in archive.infolist():
            other.writestr(entry.filename, archive.read(entry))
    with pytest.raises(UserError, match="it is compressed"):
        read_tensors(tmp_path / "b.pt", "a test")


def test_digests_of_many_tensors():
    many = {"a": [torch.arange(10**6).float() + n for n in range(5)], "b": 1}
    assert digest_of(many) == digest_of(many | {}) != digest_of(many | {"a": many["a"][::-1]})
    assert digest_of([1, 2]) != digest_of((1, 2)) and digest_of({"a": 1}) != digest_of({"a": 1.0})


def test_a_checkpoint_belongs_to_its_tower():
    run = SimpleNamespace(tower_hash="a", text_hash="c", cfg=CfgNode({"MODEL": {"BACKBONE": {"NAME": "/my/clip.pt"}}}))
    Saved.check_tower(run, {"tower_hash": "a"}, Path("c"))
    Saved.check_tower(run, {"tower_hash": "a", "text_hash": "c"}, Path("c"))
    with pytest.raises(UserError, match="c was trained with another image tower than /my/clip.pt has now"):
        Saved.check_tower(run, {"tower_hash": "b"}, Path("c"))
    with pytest.raises(UserError, match="c was trained with another text tower than /my/clip.pt has now"):
        Saved.check_tower(run, {"tower_hash": "a", "text_hash": "d"}, Path("c"))


@pytest.mark.parametrize("name", ["../model.pth.tar-1", "", "model.pth.tar-²", b"\xff", "model.pth.tar-1.bak"])
def test_the_name_of_the_newest_checkpoint(tmp_path, name):
    (tmp_path / "checkpoint").write_bytes(name if isinstance(name, bytes) else name.encode())
    with pytest.raises(UserError, match="checkpoint .*the name of the newest file beside it"):
        checkpoints.find_checkpoint(tmp_path)


def test_strange_names_beside_checkpoints(tmp_path):
    for name in ("model.pth.tar-1.bak", "model.pth.tar-²", "model.pth.tar-"):
        (tmp_path / name).touch()
    (tmp_path / "model.pth.tar-7").mkdir()
    for epoch in (1, 2):
        checkpoints.write_checkpoint(tmp_path, {"epoch": epoch})
    assert len(list(tmp_path.iterdir())) == 6


# -- Caches ------------------------------------------------------------------------------------------------------------


def test_a_damaged_cache_is_made_anew_with_a_line(cache, caplog):
    def features() -> torch.Tensor:
        return cached("features", "key", 2, lambda: torch.ones(2, 3))[0]

    features()
    assert cached("features", "key", 2, lambda: pytest.fail("is there"))[0].sum() == 6 and not caplog.text
    file = cache / "features/key.npy"
    whole = file.read_bytes()
    for content in (whole[:140] + b"\1" + whole[141:], whole[:-1], b"", whole[:-32]):
        file.write_bytes(content)
        caplog.clear()
        assert features().sum() == 6 and caplog.text.count("is damaged, or of an earlier version") == 1
        assert file.read_bytes()[:150] == whole[:150]


def test_records_have_digests(tmp_path, caplog):
    file = tmp_path / "record.json"
    assert kept_record(file) is None
    keep_record(file, {"bad": [["a", "b"]]})
    assert kept_record(file) == {"bad": [["a", "b"]]} and not caplog.text
    file.write_text(file.read_text().replace('"a"', '"c"'))
    assert kept_record(file) is None and "made anew" in caplog.text


# -- Leftovers ---------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from fairclip.core.files import atomic, work_folder
with atomic(sys.argv[1]) as file, work_folder(sys.argv[2]) as folder:
    (folder / "half").touch()
    print("ready", flush=True)
    sys.stdin.read() or os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leftovers_of_killed_processes_go_and_those_of_living_ones_stay(tmp_path):
    command = [sys.executable, "-c", KILLED, tmp_path / "results.json", tmp_path / "cars"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        own = [".name.tmp", ".results.json.12-0123456.tmp", "results.json.12-01234567.tmp"]
        for name in own:
            (tmp_path / name).touch()
        sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2 + len(own)
        process.stdin.close()
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(own)


def test_the_first_writing_sweeps(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_swept", set())
    for number in (1, 2):
        (tmp_path / f".results.json.1{number}-01234567.tmp").touch()
        with atomic(tmp_path / "a") as file:
            file.touch()
        with work_folder(tmp_path / "b") as folder:
            assert folder.is_dir()
    assert sorted(os.listdir(tmp_path)) == [".results.json.12-01234567.tmp", "a"]


def test_files_have_the_rights_of_the_umask_whoever_wrote_them(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic(tmp_path / "a") as file:
            file.unlink()
            os.close(os.open(file, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors does
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


# -- Text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: &x [*x]", "stands for nothing, or for what it is in"),
        ("a: {b: &x {c: *x}}", "stands for nothing, or for what it is in"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
        ("a: 1\nb: 2\na: 3", "'a' is there twice"),
        (
            "a0: &a0 [1, 1, 1, 1]\n" + "\n".join(f"a{i + 1}: &a{i + 1} [{f'*a{i}, ' * 9}1]" for i in range(9)),
            "more than",
        ),
    ],
)
def test_yaml_that_never_ends(text, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)
    assert parse_yaml("a: &x [1, {b: 2}]\nb: *x") == {
        "a": [1, {"b": 2}],
        "b": [1, {"b": 2}],
    }


def test_tables_of_methods_and_suites(tmp_path):
    (tmp_path / "methods.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match="methods.txt cannot be read as a table of methods: byte 0 is not UTF-8"):
        read_methods(tmp_path / "methods.txt")
    for content, message in (
        ("a", "holds no settings"),
        ("a: 1", "suite a has to be"),
        ("a: [1]", "suite a"),
        ("[", ""),
    ):
        (tmp_path / "suites.yaml").write_text(content)
        with pytest.raises(UserError, match=f"suites.yaml.*{message}"):
            read_suites(tmp_path / "suites.yaml")


# -- CSV ---------------------------------------------------------------------------------------------------------------


def test_no_cell_is_a_formula(tmp_path):
    names = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", " =1", "'=1", "''=1", "'tis", "-1.5", "+2e-3"]
    names += ["-", "plain", "a\r\nb", "＝1"]
    changed = [name for name in names if harmless(name) != name]
    assert changed == names[:8] + ["-", "＝1"] and all(harmless(name)[0] == "'" for name in changed)
    assert [original(harmless(name)) for name in names] == names
    assert as_csv(["a"], [["=1"], [-1.5], ["-0.5"]]) == "a\n'=1\n-1.5\n-0.5\n"
    write_predictions(tmp_path, "/data", names, [(f"/data/{n}", i, 0, 0.5) for i, n in enumerate("=+-@")])
    assert "\n'=,'=cmd" in (tmp_path / "predictions.csv").read_text()
    assert read_predictions(tmp_path)[0] == ("=", names[0], names[0])


@pytest.mark.parametrize(
    "content, message",
    [
        (b"image,label\na,b\n", "it has no column prediction"),
        (b"", "it has no column image, label, prediction"),
        (b"image,label,prediction\na,b\n", "line 2 has 2 cells, and the head has 3"),
        (b'image,label,prediction\na,b,"c\n', "unexpected end of data"),
        (b"image,label,prediction\na,b,\xff\n", "byte 27 is not UTF-8"),
    ],
)
def test_damaged_predictions(tmp_path, content, message):
    (tmp_path / "predictions.csv").write_bytes(content)
    with pytest.raises(UserError, match=f"predictions.csv .*{message}.*Delete it"):
        read_predictions(tmp_path)
    with pytest.raises(UserError):
        read_csv(tmp_path, ["a"], "a table")  # a folder
