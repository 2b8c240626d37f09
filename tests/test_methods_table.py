"""configs/methods.txt and tables in its form."""

from pathlib import Path

import pytest

from fairclip.compare import methods
from fairclip.compare.methods import Method, find_method, find_table, of_trainer, read_methods, rows_beside
from fairclip.core.errors import UserError
from fairclip.core.places import CONFIGS
from fairclip.core.plugins import import_plugins
from fairclip.run import config, launch

ROOT = Path(__file__).resolve().parents[1]
METHODS = {m.key: m for m in read_methods(methods.USUAL)}
FOLDERS = sorted(path.parent.name for path in ROOT.glob("scripts/*/main.sh"))


def test_every_method_has_its_script():
    asked = "fair zsclip cupl wca upl lafter dpa must transclip coop linear_probe"
    assert set(FOLDERS) == set(asked.split()) <= METHODS.keys()
    folders = [(m.trainer, m.variant) for m in METHODS.values()]
    assert len(set(folders)) == len(folders) and len({m.name for m in METHODS.values()}) == len(METHODS)


def test_what_a_row_says():
    assert METHODS["fair"] == Method("fair", "FAIR", "", False, "FAIR")
    assert METHODS["zsclip"] == Method("zsclip", "ZeroshotCLIP", "", True, "Zero-shot, class names", True)
    assert METHODS["linear_probe"].once and not METHODS["linear_probe"].zero_shot
    assert METHODS["plain"].variant == "plain"
    assert METHODS["plain"].options[:4] == ("TRAINER.FAIR.N_CROPS", "0", "TRAINER.FAIR.LABEL_MEMORY", "0.0")
    inductive = METHODS["transclip_inductive"]
    assert (inductive.variant, inductive.options) == ("inductive", ("TRAINER.TRANSCLIP.INDUCTIVE", "True"))
    assert METHODS["zlap_transductive"].options == ("TRAINER.ZLAP.SETUP", "transductive")
    assert [METHODS[key].once for key in ("zlap", "stata", "tda")] == [True, True, False]


@pytest.mark.parametrize("file", ["methods", "ablation"])
def test_options_of_all_rows_fit_the_config(file):
    modules, _ = import_plugins("trainers", "datasets")
    rows = read_methods(find_table(file))
    assert len(rows) > 10
    for row in rows:
        path = str(CONFIGS / f"trainers/{row.trainer}/tiny.yaml")
        config.build_cfg(launch.parse_args(["--config-file", path, *row.options]), modules)


def test_rows_that_a_method_is_measured_by():
    def beside(key: str) -> list[str]:
        return [row.key for row in rows_beside(METHODS[key], list(METHODS.values()))]

    assert beside("fair") == ["zsclip", "cupl", "plain", "plain_aligned", "fair"]
    assert beside("zsclip") == ["zsclip", "zsclip2", "cupl"]
    assert beside("upl") == ["upl"]
    assert [row.key for row in rows_beside(METHODS["fair"], [METHODS["fair"], METHODS["upl"]])] == ["fair"]


def test_a_trainer_by_itself():
    known = list(METHODS.values())
    assert of_trainer("FAIR", known) == METHODS["fair"]
    assert of_trainer("TransCLIP", known).once and of_trainer("TransCLIP", known).options == ()
    assert of_trainer("Theirs", known) == Method("Theirs", "Theirs", "", False, "Theirs")


def test_tables_are_found_by_name_path_or_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("METHODS_FILE", raising=False)
    assert find_table() == CONFIGS / "methods.txt" and find_table("ablation") == CONFIGS / "ablation.txt"
    own = tmp_path / "own.txt"
    own.write_text("# mine\n\nmine | FAIR | mine | seeds | Mine | A.KEY 1\n")
    monkeypatch.setenv("METHODS_FILE", str(own))
    assert find_table() == own and find_table("ablation") == CONFIGS / "ablation.txt"
    assert read_methods() == [Method("mine", "FAIR", "mine", False, "Mine", False, ("A.KEY", "1"))]
    with pytest.raises(UserError, match="no table of methods 'nope'. It is one of ablation, methods"):
        find_table("nope")


@pytest.mark.parametrize(
    "row, message",
    [
        ("mine | FAIR | seeds", "5 or 6 columns, this one 3"),
        ("mine | FAIR | x | often | Mine", "'often' must be one of zero-shot, once, seeds"),
        ("mine | FAIR | x | seeds | Mine | A.KEY", "in pairs"),
        ("mine | FAIR | ../../x | seeds | Mine", "'../../x' is no name"),
        ("mine | ../FAIR | x | seeds | Mine", "'../FAIR' is no name"),
        (" | FAIR | x | seeds | Mine", "'' is no name"),
    ],
)
def test_rows_of_another_form_are_refused(tmp_path, row, message):
    own = tmp_path / "own.txt"
    own.write_text(f"# mine\n{row}\n")
    with pytest.raises(UserError, match="own.txt, line 2: ") as caught:
        read_methods(own)
    assert message in str(caught.value)


def test_an_unknown_method_is_told_what_there_is():
    with pytest.raises(UserError, match="Unknown method 'lafte'. Choose from: zsclip zsclip2"):
        find_method("lafte", list(METHODS.values()))
