"""The wheel: what it carries, and that it trains and predicts in a folder that knows nothing of the repository."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CODE = ("fairclip", "trainers", "datasets", "configs", "descriptions", "toolbox")
FACTS = ["pyproject.toml", "README.md", "LICENSE", *(path.name for path in ROOT.glob("requirements*.txt"))]


def python(*arguments: str, cwd: Path, **environment: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | environment
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files_of(folder: Path) -> set[str]:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {file.as_posix() for file in files if "__pycache__" not in file.parts}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of installed packages with fairclip alone: checkout -> source archive -> wheel -> installation."""
    work = tmp_path_factory.mktemp("package")
    checkout = work / "checkout"
    for name in CODE:
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FACTS:
        shutil.copy(ROOT / name, checkout)
    python("-c", "from setuptools import build_meta; build_meta.build_sdist('..')", cwd=checkout)
    (archive,) = work.glob("fairclip-*.tar.gz")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", "site"]
    python("-m", "pip", "install", *options, str(archive), cwd=work)
    yield work / "site"
    shutil.rmtree(work)


def test_the_wheel_carries_every_file(site):
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"bin", "fairclip"}
    wanted = files_of(ROOT / "fairclip") | {
        f"share/{name}/{file}" for name in CODE if name != "fairclip" for file in files_of(ROOT / name)
    }
    assert files_of(site / "fairclip") == wanted


def test_the_installed_package_trains_and_predicts_anywhere(site, tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("red", "blue"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{number}.png")
    here = tmp_path / "elsewhere"
    # A package of the name of ours, as from Hugging Face.
    (here / "datasets").mkdir(parents=True)
    (here / "datasets" / "__init__.py").write_text("raise ImportError('not ours')\n")
    environment = {"PYTHONPATH": str(site), "FAIR_CACHE": str(tmp_path / "cache"), "FAIR_DASSL": "bundled"}

    train = ["-m", "fairclip", "train", "--root", str(tmp_path / "images"), "--output-dir", "run", "--seed", "1"]
    train += ["--trainer", "FAIR", "--config-file", "configs/trainers/FAIR/tiny.yaml"]
    train += ["--dataset-config-file", "configs/datasets/folder.yaml", "OPTIM.MAX_EPOCH", "1"]
    train += ["DATALOADER.NUM_WORKERS", "0", "TRAINER.FAIR.N_CROPS", "2", "TRAINER.FAIR.TOP_K", "1"]
    python(*train, cwd=here, **environment)

    code = "import fairclip; p = fairclip.Predictor.load('run'); print(p.classnames, p('0.png').shape, fairclip)"
    code += "; from fairclip import cli; cli.main(['describe', 'check', 'dtd'])"
    shutil.copy(tmp_path / "images" / "test" / "red" / "0.png", here)
    answer = python("-c", code, cwd=here, **environment)
    assert answer.startswith("['blue', 'red'] torch.Size([1, 2])") and str(site) in answer
    assert "dtd: 47 classes" in answer

    assert "train and test one trainer" in python(str(site / "bin" / "fair"), "--help", cwd=here, **environment)
