"""`fair config`: what can be set, read from the declarations."""

import math
from pathlib import Path

import pytest
from commands import command

ROOT = Path(__file__).resolve().parents[1]
config = command("config")


def test_the_page_is_what_the_command_says(capsys):
    assert config(["--all"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs/config.md").read_text(encoding="utf-8")


def test_every_key_of_fair_has_its_default_and_a_meaning(capsys):
    from fairclip.run.config_command import declarations, defaults, rows

    declare = declarations()["FAIR"]
    values = {key: value for key, value in defaults(declare).items() if key.startswith("TRAINER.FAIR.")}
    found = {row[0].strip("`"): row[1:] for row in rows(declare, "TRAINER.FAIR")}
    assert found.keys() == values.keys() and all(meaning for _, meaning in found.values())
    assert found["TRAINER.FAIR.ANCHOR_SCALE"][0] == f"`{math.exp(2)!r}`"
    assert config(["FAIR"]) == 0
    assert "`TRAINER.FAIR.TOP_K`" in capsys.readouterr().out


def test_meanings_of_one_line_and_of_more():
    from fairclip.run.config_command import meanings

    def extend_cfg(cfg):
        cfg.TRAINER.TOY = {
            # side of a crop,
            # in pixels
            "SIZE": 1,
            "SHARE": 2,  # from 0 to 1
            "BARE": 3,
        }

    node = "TRAINER.TOY"
    told = [(f"{node}.SIZE", "side of a crop, in pixels"), (f"{node}.SHARE", "from 0 to 1"), (f"{node}.BARE", "")]
    assert [row for row in meanings(extend_cfg, node) if row[0] != node] == told


@pytest.mark.parametrize("name", ["Fair", "CoOp"])
def test_an_unknown_trainer(name, capsys):
    assert config([name]) == 2
    error = capsys.readouterr().err
    assert f"there is no trainer '{name}' with settings of its own. Known: CPL, CuPL, DPA, FAIR" in error
