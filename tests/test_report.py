"""The HTML report: classes, curves, the page and its script."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_runs import finish, load
from test_draw_crops import data, train_fair  # noqa: F401 (a fixture)

from fairclip.compare import classes, curves, looks, page, published, runs, tables
from fairclip.compare.methods import Method, read_methods

pytestmark = pytest.mark.usefixtures("console")

METHODS = {m.key: m for m in read_methods()}
ROOT = Path(__file__).resolve().parents[1]


def test_siblings_and_accuracies_by_class(tmp_path):
    rows = [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b"), ("b", "b"), ("b", "c"), ("c", "c"), ("c", "c")]
    folder = finish(tmp_path / "FAIR/tiny/seed1", predictions=rows)
    more = finish(tmp_path / "FAIR/tiny/seed2", predictions=[(label, label) for label, _ in rows])
    cell = runs.Cell({1: runs.Run(folder, 1, {}), 2: runs.Run(more, 2, {})})
    found = classes.confusions(cell)
    assert (found.accuracy("a"), found.accuracy("b"), found.accuracy("c")) == (75, 75, 100)
    assert found.mixed_up("a", "b") == pytest.approx(100 * 2 / 12)
    assert classes.siblings([found]) == [("a", "b"), ("b", "c")] and classes.siblings([found], 1) == [("a", "b")]
    (more / "predictions.csv").unlink()
    assert classes.confusions(runs.Cell({1: runs.Run(folder, 1, {}), 2: runs.Run(more, 2, {})})) is None


def test_curves():
    curve = curves.Curve("<A>", 3, [{1: 10.0, 2: 20.0, 3: 30.0}, {1: 20.0, 2: 40.0}])
    assert curve.mean == {1: 15.0, 2: 30.0}
    svg = curves.draw("a < b", [curve, curves.Curve("none", 0, [])], {"zero": (25.0, 1)}, "id")
    assert svg.count('class="seed') == 2 and svg.count('class="line') == 1 and svg.count('class="level') == 1
    assert "a &lt; b" in svg and "&lt;A&gt; ends at 30.0" in svg
    # Values and epochs on the picture: the lowest value at the bottom tick, the last epoch at the right edge.
    points = re.search(r'class="line[^"]*" d="M([^"]*)"', svg)[1]
    (x1, y1), (x2, y2) = (map(float, point.split()) for point in points.split("L"))
    assert curves.LEFT == x1 < x2 < curves.WIDTH and y1 > y2
    assert curves.ticks(15, 41) == [10, 20, 30, 40, 50] and len(curves.ticks(70.02, 70.03)) >= 2
    assert curves.ticks(50, 50)[0] <= 50 <= curves.ticks(50, 50)[-1]
    assert "h8" in curves.draw("one epoch", [curves.Curve("A", 0, [{1: 5.0}])], {}, "id")


def test_a_method_looks_the_same_in_every_report():
    known = looks.known_keys()
    assert set(METHODS) <= set(known) and known[0] == "fair"
    shown = [looks.look_classes(i) for i in range(len(known))]
    assert len(set(shown)) == len(known)  # colours with dashes
    assert len({look.split()[0] for look in shown[: looks.COLOURS]}) == looks.COLOURS
    some = [METHODS["upl"], METHODS["fair"]]
    own = Method("mine", "Mine", "", False, "Mine")
    few, many = looks.looks([own, *some]), looks.looks([*METHODS.values(), own])
    assert all(few[m] == many[m] for m in some) and len(set(many.values())) == len(many)


# The page


VOID = {"meta", "img", "br", "link"}
EVIL = '<script>alert("x")</script>&"\''


class Page(HTMLParser):
    """Checks the nesting, and keeps tags, attributes, texts and tables."""

    def __init__(self, text: str):
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert "svg" in self.stack, tag

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag, (self.stack, tag)

    def handle_data(self, text):
        if self.stack and self.stack[-1] not in ("script", "style"):
            self.text.append(text)

    def all(self, *names: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture
def rich(two_sets) -> Path:
    """With predictions, and names that must be escaped."""
    rows = [(EVIL.replace('"', "'").replace(",", ""), "b"), ("b", "b"), ("b", EVIL.replace('"', "'")), ("c", "c")]
    for path in two_sets.glob("synth_cars/*/*/seed*"):
        own = [(a, a) for a, _ in rows] if "FAIR" in path.parts else rows
        finish(
            path,
            json.loads((path / "results.json").read_text())["accuracy"],
            predictions=own,
            backbone=EVIL,
            **{
                k: v
                for k, v in json.loads((path / "results.json").read_text()).items()
                if k in ("uses_labels", "transductive")
            },
        )
    finish(two_sets / "synth_cars" / "Their<i>Trainer" / "tiny" / "seed1", 30)
    return two_sets


def build(folder: Path, **more) -> str:
    comparison = load(folder)
    grids = [tables.comparison_grid(comparison), published.published_grid(comparison, published.read_published())]
    return page.make_page(comparison, grids, **more)


def test_page_is_whole_self_contained_and_escaped(rich):
    text = build(rich)
    found = Page(text)
    scripts = re.findall(r"<script", text)
    assert len(scripts) == 1 and "<i>" not in text and "&lt;script&gt;" in text  # ours alone
    for attributes in (attributes for _, attributes in found.tags):
        for name in ("src", "href", "action", "data", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), attributes
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"(?m)^\s*//.*$", "", text))
    assert "default-src 'none'" in text
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found.tags:
        assert set(attributes.get("aria-labelledby", "").split()) <= set(ids)
        if attributes.get("href", "#") != "#":
            assert attributes["href"].removeprefix("#") in ids
    assert text == build(rich)  # the same results make the same page


def test_page_can_be_read_by_all(rich):
    text = build(rich)
    found = Page(text)
    assert ("html", {"lang": "en"}) in found.tags and 'name="viewport" content="width=device-width' in text
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    assert len(found.all("caption")) == len(found.all("table")) == 5
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for attributes in found.all("th"))
    assert all(attributes.get("alt") for attributes in found.all("img"))
    assert all(a.get("role") == "img" or a.get("aria-hidden") for a in found.all("svg"))
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text
    # Wide tables scroll by themselves, with the keyboard too, and not the page.
    regions = [a for a in found.all("div") if a.get("role") == "region" and a.get("tabindex") == "0"]
    matrices = 2
    assert len(regions) == len(found.all("table")) + matrices and all(a["aria-label"] for a in regions)


def luminance(colour: str) -> float:
    values = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_colours_can_be_told_from_the_paper():
    """WCAG: contrast of 4.5 for text and of 3 for graphics, in both modes."""
    css = (ROOT / "fairclip/compare/page.css").read_text()
    light, dark = (dict(re.findall(r"--([\w]+): (#\w{6})", block)) for block in css.split("@media", 2)[:2])
    for colours in (light, dark):
        texts = [(name, 4.5, on) for name in ("ink", "faint", "link", "up", "down") for on in ("paper", "band")]
        for name, least, on in [*texts, *((f"c{i}", 3, "paper") for i in range(looks.COLOURS))]:
            a, b = sorted((luminance(colours[name]), luminance(colours[on])))
            assert (b + 0.05) / (a + 0.05) >= least, (name, on)


def test_page_shows_the_results(rich):
    found = Page(build(rich))
    text = " ".join(found.text)
    assert "synth_cars: FAIR 62.00 ± 1.73 %; +10.00 [+7.52, +12.48] over Plain self-training" in text
    assert "62.00 ± 1.73  (best)" in text and "Transductive: sees all test images at once" in text
    assert "FAIR is ahead of Zero-shot, descriptions on 2 of 3 classes and behind on 0" in text
    assert "pairs that zero-shot CLIP mixes up most" in text
    assert "No example images: " in text and "The methods have no predictions.csv" in text  # the second data set
    drawn = [title for title in found.text if re.search("accuracy|labels|Confusion|Reliability", title)]
    for title, times in {
        "Pseudo-label accuracy on the training images, synth_cars": 1,
        "Test accuracy, synth_cars_s2": 3,  # by epoch, as dots, and small
        "FAIR and true labels, synth_cars": 1,
        "Confusion matrix of FAIR, synth_cars": 1,
        "Reliability of FAIR, synth_cars": 1,
    }.items():
        assert drawn.count(title) == times, title


def test_the_head_says_what_when_and_on_what(rich):
    newer = rich / "synth_cars/FAIR/tiny/seed1"
    told = json.loads((newer / "results.json").read_text())
    told |= {"hardware": "NVIDIA <H200>", "versions": {"torch": "2.9", "cuda": None}, "commit": "0123456789-dirty"}
    (newer / "results.json").write_text(json.dumps(told))
    found = Page(build(rich, command="fair table 'a b'", date="2026-01-31"))
    terms = [text for text in found.text if text.strip()]
    said = dict(reversed(list(zip(terms, terms[1:], strict=False))))  # the first of each
    assert said["Made"] == "2026-01-31" and said["Command"] == "fair table 'a b'"
    assert said["Hardware"] == "NVIDIA <H200>" and said["Versions"] == "torch 2.9" and said["Commit"] == "0123456-dirty"
    assert said["Test images"] == "synth_cars: 4" and said["Runs"].endswith("methods on 2 data sets")


def test_labels_tests_crops_and_true_labels_are_in_one_picture(two_sets):
    finish(two_sets / "synth_cars/FAIR/tiny_oracle/seed1", 90, uses_labels=True)
    for seed in (1, 2, 10):
        finish(two_sets / f"synth_cars/FAIR/tiny/seed{seed}", 60, crop_accuracy=70 + seed)
    text = " ".join(Page(build(two_sets)).text)
    assert (
        "At the last one: Its labels of the training images: 59.0; Test: 60.0; "
        "Test of FAIR with true labels: 90.0; Test with crops too, last epoch: 74.3." in text
    )


def test_the_matrix_is_a_picture_up_to_sixty_classes(tmp_path):
    for name, number in (("few", 3), ("sixty", 60), ("many", 61)):
        rows = [(f"c{i:02}", f"c{(i + 1) % number:02}" if i % 2 else f"c{i:02}") for i in range(number)]
        for trainer in ("FAIR", "CuPL"):
            finish(tmp_path / f"{name}/{trainer}/tiny/seed1", predictions=rows)
    text = build(tmp_path)
    found = Page(text)
    drawn = [title for title in found.text if title.startswith("Confusion matrix of FAIR, ")]
    assert [title.split()[-1] for title in drawn] == ["few", "sixty"] and "61 classes are too many" in text
    assert "Right: 66.7 %. Most often taken for another: c01 for c02, 1 of 1 images." in text
    cells = re.findall(r'class="(right|wrong) s10" d="([^"]*)"', text)
    assert {(kind, path.count("M")) for kind, path in cells} == {
        *(("right", 2), ("wrong", 1)),
        *(("right", 30), ("wrong", 30)),
    }


def test_page_without_curves_or_classes(tmp_path):
    finish(tmp_path / "synth_cars/CuPL/tiny/seed1", epochs=[])
    text = " ".join(Page(build(tmp_path)).text)
    assert "None of the runs trains in epochs" in text and "There is no finished run of FAIR" in text


def test_a_missing_curve_is_said_below_the_others(tmp_path):
    finish(tmp_path / "synth_cars/FAIR/tiny/seed1", epochs=[{"epoch": e, "pseudo_accuracy": 50.0} for e in (1, 2)])
    panels, below = build(tmp_path, images=0).partition('<div class="panels">')[2].split("</div>", 1)
    assert "No test accuracy by epoch" not in panels
    assert '<p class="note">No test accuracy by epoch' in below


def test_example_images_of_a_real_run(data, backbone, tmp_path):  # noqa: F811
    run = train_fair(data, backbone, tmp_path / "output/synth_cars/FAIR/tiny/seed1", "TRAINER.FAIR.TOP_K", "3")
    text = build(tmp_path / "output", images=2)
    found = Page(text)
    images = found.all("img")
    assert len(images) == 2 * (1 + 3) and all(i["src"].startswith("data:image/") for i in images)
    assert "1: w 0." in " ".join(found.text) and "True class: " in " ".join(found.text)
    assert [i["alt"] for i in images[1:4]] == ["Crop 1", "Crop 2", "Crop 3"]
    missing = " ".join(Page(build(tmp_path / "output", data=tmp_path / "elsewhere")).text)
    assert f"No example images: the images are not in {tmp_path}/elsewhere" in missing
    assert not (tmp_path / "elsewhere").exists()  # nothing is drawn for a report
    (run / "fair/checkpoint").unlink()
    assert f"No example images: {run} has no checkpoint" in " ".join(Page(build(tmp_path / "output")).text)
    assert "No example images were asked for" in " ".join(Page(build(tmp_path / "output", images=0)).text)
