"""Trainer files that were written for another repository, dropped into trainers/: what they lack here is said."""

import sys
from pathlib import Path

import pytest
import toys
from clip import clip

import trainers

FILE = """\
from clip import clip
{imports}
from dassl.engine import TRAINER_REGISTRY, TrainerX
@TRAINER_REGISTRY.register()
class {name}(TrainerX):
    def check_cfg(self, cfg):
        {step}
"""
CONFIG = "def extend_cfg(cfg):\n    cfg.TRAINER.ITS = type(cfg)({'DEPTH': 1})\n"
DEPTH = "cfg.TRAINER.ITS.DEPTH"
DECLARE = ". Declare it in a function extend_cfg(cfg) of that file"
ANOTHER_CLIP = f"written for another clip package than {Path(clip.__file__).parent} "
CASES = {
    "a key is read": (
        {"step": DEPTH},
        "trainer {name}: nobody declares TRAINER.ITS, which {file} reads in line 7" + DECLARE,
    ),
    "a key beside others is read": (
        {"step": "cfg.TRAINER.ITS.WIDTH", "config": CONFIG},
        "trainer {name}: nobody declares TRAINER.ITS.WIDTH, which {file} reads in line 7" + DECLARE,
    ),
    "a key is given": (
        {"step": DEPTH, "opts": ["TRAINER.ITS.DEPTH", "2"]},
        "the command line: nobody declares TRAINER.ITS, which {file} reads" + DECLARE,
    ),
    "build_model takes more": (
        {"step": "clip.build_model({}, {'trainer': 'MaPLe'})"},
        ANOTHER_CLIP + "(build_model() takes 1 positional argument but 2 were given). Copy the clip/ folder",
    ),
    "a class takes more": (
        {"imports": "from clip.model import CLIP", "step": "CLIP(depth=3)"},
        ANOTHER_CLIP + "(CLIP.__init__() ",
    ),
    "a function is absent": (
        {"step": "clip.load_with_prompts()"},
        ANOTHER_CLIP + "(module 'clip.clip' has no attribute 'load_with_prompts')",
    ),
    "an import fails": (
        {"step": "pass", "imports": "from clip.model import Adapted"},
        "failed to import: it was " + ANOTHER_CLIP + "(cannot import name 'Adapted'",
    ),
}


def drop_in(folder: Path, monkeypatch, name: str, step: str, imports: str = "", config: str = "") -> Path:
    file = folder / f"{name.lower()}.py"
    file.write_text(FILE.format(name=name, step=step, imports=imports) + config)
    monkeypatch.setattr(trainers, "__path__", [*trainers.__path__, str(folder)])
    return file


def arguments(name: str, folder: Path, *opts: str) -> list[str]:
    return ["--trainer", name, "--output-dir", str(folder / "out"), "DATASET.NAME", "Toy", *opts]


@pytest.mark.parametrize("case", CASES)
def test_what_it_lacks_is_said(case, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    parts, message = dict(CASES[case][0]), CASES[case][1]
    name = f"Its{list(CASES).index(case)}"  # a registry takes a name once
    opts = parts.pop("opts", [])
    file = drop_in(tmp_path, monkeypatch, name, **parts)
    toys.check_refused(arguments(name, tmp_path, *opts), message.format(name=name, file=file), capsys)


@pytest.mark.parametrize(
    "step, error",
    [("raise TypeError('build_models() takes none')", TypeError), ("self.no_such_name", AttributeError)],
)
def test_its_own_mistakes_stay_tracebacks(step, error, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    name = f"Own{error.__name__}"
    drop_in(tmp_path, monkeypatch, name, step)
    with pytest.raises(error):
        toys.train(arguments(name, tmp_path))
    assert "Traceback" in (tmp_path / "out/log.txt").read_text()
