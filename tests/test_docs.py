"""README and docs: what they name is there, and their example of a method trains."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import train
from forked import Forked
from test_house import ALLOWED
from toys import CLASSES, ROOT, make_data, save_clip

import trainers
from fairclip.cli import COMMANDS, build_parser, split_options
from fairclip.core.rules import check
from fairclip.run.results import RULES

ELSEWHERE = ("README.md", "toolbox/README.md", "datasets/classes/README.md")
PAGES = [*map(ROOT.joinpath, ELSEWHERE), *sorted(ROOT.glob("docs/*.md"))]
HOUSE = ROOT / "docs/house.md"
# Paths of this repository begin with one of its folders. Those with a placeholder are left out, and so are folders that
# are made when something runs (data/, output/, dist/).
FOLDERS = "fairclip trainers datasets configs descriptions toolbox scripts tests docs examples .ci".split()
PATH = re.compile(rf"(?<![\w./>-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./<>*…-]*")
# What the reader makes, and what earlier versions had.
OTHERS = {"trainers/mine.py", "configs/trainers/Mine/tiny.yaml", "trainers/two_towers.py"}
OTHERS |= {"trainers/base.py", "trainers/predictor.py", "trainers/modules/"}
# "fair data doctor", also as .venv/bin/fair, python -m fairclip and bash scripts/fair.sh
COMMAND = re.compile(r"(?:(?<![\w./-])fair|/fair|/fair\.sh|-m fairclip) ([a-z][a-z-]*)(?: ([a-z]+))?")

page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def code(page: Path) -> str:
    """What a page has in backticks, a line for each."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    return "\n".join([*blocks, *(" ".join(span.split()) for span in spans)])


def block(page: Path, kind: str) -> str:
    """The first block of code of this kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)[0]


def anchors(page: Path) -> set[str]:
    """The names that links have for the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@page
def test_paths_exist(page):
    found = {path.rstrip(".") for path in PATH.findall(code(page)) if not re.search(r"[<>*…]", path)} - OTHERS
    assert not [path for path in sorted(found) if not (ROOT / path).exists()]


@page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8").replace("\n", "")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file) if file else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@page
def test_commands_exist(page):
    for word, second in COMMAND.findall(code(page)):
        assert word in COMMANDS, word
        group = COMMANDS[word]
        assert not (isinstance(group, dict) and second) or second in group, (word, second)


# -- Every command is done by a test, or it is said why not ------------------------------------------------------------

LIST = ROOT / "tests/doc_commands.txt"
SCRIPTS = {  # what these scripts call
    "scripts/compare.sh": ["compare"],
    "scripts/fair/ablation.sh": ["compare", "--table", "ablation"],
    "scripts/fair/main.sh": ["run", "fair"],
    "scripts/run.sh": ["run", "--trainer"],
}


def commands(page: Path) -> set[str]:
    """The commands of the blocks of bash: each in one line, without its comment."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = (re.sub(r"(^|\s)#.*$", "", line) for block in blocks for line in block.replace("\\\n", "").splitlines())
    return {" ".join(line.split()) for line in lines} - {""}


def listed() -> dict[str, str]:
    """The commands of the list, each with what stands above it: a test, or why there is none."""
    found, above = {}, ""
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            assert line.strip() not in found, f"twice in {LIST.name}: {line.strip()}"
            found[line.strip()] = above
        elif line and not line.startswith("#"):
            above = line
    return found


def test_every_command_is_done_by_a_test_or_it_is_said_why_not():
    said, known = {command for page in PAGES for command in commands(page)}, listed()
    assert not sorted(said - known.keys()), f"in no test: add them to {LIST.name}"
    assert not sorted(known.keys() - said), f"on no page: remove them from {LIST.name}"
    for how in sorted(set(known.values())):
        if how.startswith("not here: "):
            continue
        file, _, name = how.partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), how


def words_of(command: str) -> list[str]:
    """The arguments of `fair` in a command, by the script that calls it too; none in others, or with a placeholder."""
    words = [word for word in shlex.split(command.partition(" > ")[0]) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if re.search(r"[…\[]", command):
        return []
    if words[0] == "bash" and words[1] in SCRIPTS:
        return [*SCRIPTS[words[1]], *words[2:]]
    return words[1:] if words[0] == "fair" and "--help" not in words else []


def test_every_command_of_ours_has_options_that_there_are():
    """Those that no test does, too."""
    checked = [words for words in map(words_of, listed()) if words]
    for words in checked:
        plain, _ = split_options(words)
        build_parser(plain).parse_args(plain)
    assert len(checked) > 50


def test_enough_is_found():
    """Of each kind: otherwise the tests above would pass on pages that they cannot read."""
    text = code(ROOT / "README.md")
    assert {"fairclip/", "scripts/fair/main.sh", ".ci/run"} <= set(PATH.findall(text))
    assert "fair data doctor" in text and "adapt-your-own-photographs" in anchors(ROOT / "README.md")
    assert len(PAGES) >= 17


def test_the_first_page_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150


def test_every_page_is_in_the_index():
    named = set(re.findall(r"\]\(([\w.]+)\)", (ROOT / "docs/README.md").read_text(encoding="utf-8")))
    there = {path.name for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".csv")}
    assert named == there - {"README.md"}


# -- docs/house.md -----------------------------------------------------------------------------------------------------


def rows(page: Path) -> Iterator[list[str]]:
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("| "):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_rooms_may_import_what_the_page_says():
    said = {names(row[0])[0]: names(row[2]) for row in rows(HOUSE) if row[0].startswith("`") and row[0].endswith("/`")}
    said = {room.removeprefix("fairclip/").rstrip("/"): allowed for room, allowed in said.items()}
    assert {room: set(allowed) for room, allowed in said.items()} == {room: set(of) for room, of in ALLOWED.items()}


def defines(file: str, name: str) -> bool:
    """Whether a module has this function, class or constant; of "Class.name", the class and the name."""
    text = (ROOT / file).read_text(encoding="utf-8")
    forms = (rf"^ *(?:def|class) {part}\b|^ *{part}(?:: .*)? = " for part in name.split("."))
    return all(re.search(form, text, re.MULTILINE) for form in forms)


def test_functions_are_where_the_page_says():
    checked = 0
    for _, where, what in (row for row in rows(HOUSE) if len(row) == 3 and not row[0].startswith("`")):
        modules = [name for name in names(where) if name.endswith(".py")]
        for name in names(what):
            assert any(defines(module, name) for module in modules), f"{name} in {where}"
            checked += 1
    assert checked >= 60


# -- docs/runs.md ------------------------------------------------------------------------------------------------------


def test_the_example_of_results_is_one_and_its_fields_are_explained():
    page = ROOT / "docs/runs.md"
    example = json.loads(block(page, "json"))
    check(example, RULES, page)
    explained = {name for row in rows(page) for name in names(row[0])}
    assert set(example) - explained == set() and "crop_accuracy" in example


# -- docs/comparing.md -------------------------------------------------------------------------------------------------


def test_the_example_of_a_method_trains(tmp_path):
    """In a fork: what it registers would stay."""
    guide = ROOT / "docs/comparing.md"
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins/mine.py").write_text(block(guide, "python"), encoding="utf-8")
    (tmp_path / "tiny.yaml").write_text(block(guide, "yaml"), encoding="utf-8")
    data, clip, out = make_data(tmp_path / "data"), save_clip(tmp_path / "clip.pt"), tmp_path / "out"
    words = ["--root", data, "--output-dir", out, "--config-file", tmp_path / "tiny.yaml"]
    words += ["--backbone", clip, *"--trainer Mine --seed 1 DATASET.NAME Toy TRAINER.MINE.SURE 0.0".split()]
    words += "OPTIM.MAX_EPOCH 2 DATALOADER.TRAIN_X.BATCH_SIZE 8 DATALOADER.NUM_WORKERS 0".split()

    def work() -> int:
        trainers.__path__.append(str(tmp_path / "plugins"))
        return train(list(map(str, words)))

    done = Forked(work, tmp_path / "said")
    assert done.wait() == 0, done.said()
    results = json.loads((out / "results.json").read_text())
    assert results["trainer"] == "Mine" and len(results["epochs"]) == 2
    assert results["trainable_parameters"] == 16 * len(CLASSES)  # the prompts, nothing else
