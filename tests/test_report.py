"""The HTML report: classes, curves, the page and its script."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_runs import finish, load
from test_draw_crops import data, train_fair  # noqa: F401 (a fixture)

from fairclip.compare import classes, curves, page, published, runs, tables
from fairclip.compare.methods import read_methods

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
    looks = [curves.look_classes(i) for i in range(len(METHODS))]
    assert len(set(looks)) == len(looks)


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
    assert len(found.all("caption")) == len(found.all("table")) == 4
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for attributes in found.all("th"))
    assert all(attributes.get("alt") for attributes in found.all("img"))
    assert all(a.get("role") == "img" or a.get("aria-hidden") for a in found.all("svg"))
    assert "prefers-color-scheme: dark" in text and "color-scheme: light dark" in text
    # Wide tables scroll by themselves, with the keyboard too, and not the page.
    regions = [a for a in found.all("div") if a.get("role") == "region" and a.get("tabindex") == "0"]
    assert len(regions) == len(found.all("table")) and all(a["aria-label"] for a in regions)


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
        for name, least, on in [*texts, *((f"c{i}", 3, "paper") for i in range(curves.COLOURS))]:
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
    svgs = [attributes for attributes in found.all("svg") if attributes.get("role") == "img"]
    assert len(svgs) == 4  # two measures on two data sets


def test_page_without_curves_or_classes(tmp_path):
    finish(tmp_path / "synth_cars/CuPL/tiny/seed1", epochs=[])
    text = " ".join(Page(build(tmp_path)).text)
    assert "None of the runs trains in epochs" in text and "There is no finished run of FAIR" in text


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


# The script of the page


# A page of two tables' worth of objects that answer as the browser's would.
NODE_TEST = r"""
const assert = require("assert");
const { compareCells, sortedIndices, nextDirection, enhance } = require(process.argv[2]);
const number = (n) => ({ number: n, text: "" }), text = (t) => ({ number: null, text: t });

assert(compareCells(number(9), number(10), false) < 0 && compareCells(number(9), number(10), true) > 0);
assert(compareCells(number(-1), number(null), false) < 0 && compareCells(number(-1), number(null), true) < 0);
assert(compareCells(text("b"), text("a"), false) > 0 && compareCells(text("seed 9"), text("seed 10"), false) < 0);
assert(compareCells(text(""), text("a"), false) > 0 && compareCells(text(""), text("a"), true) > 0);
assert.deepEqual(sortedIndices([[number(1)], [number(3)], [number(null)], [number(3)]], 0, true), [1, 3, 0, 2]);
assert.deepEqual(["descending", "ascending"], [nextDirection(null, true), nextDirection(null, false)]);

class Element {
  constructor(textContent, attributes = {}) { Object.assign(this, { textContent, attributes, classes: [] }); }
  getAttribute(name) { return name in this.attributes ? this.attributes[name] : null; }
  hasAttribute(name) { return name in this.attributes; }
  setAttribute(name, value) { this.attributes[name] = value; }
  removeAttribute(name) { delete this.attributes[name]; }
  addEventListener(kind, action) { this["on" + kind] = action; }
  replaceChildren(child) { this.child = child; }
  get classList() { return { contains: (name) => this.classes.includes(name) }; }
}
const cell = (n) => new Element(String(n), { "data-number": "", "data-sort": n === null ? "" : String(n) });
const row = (name, n) => Object.assign(new Element(""), { cells: [new Element(name), cell(n)] });
const body = (rows) => ({ rows, appendChild(r) { this.rows.splice(this.rows.indexOf(r), 1); this.rows.push(r); } });
const group = Object.assign(new Element("group"), { cells: [], classes: ["group"] });
const first = body([group, row("b", 60.5), row("a", null), row("c", 71)]), second = body([row("z", 99), row("y", 5)]);
const heads = [new Element("Method"), new Element("Accuracy")];
const table = { tHead: { rows: [{ cells: heads }] }, tBodies: [first, second] };
const status = new Element("");
enhance({ getElementById: () => status, querySelectorAll: () => [table], createElement: () => new Element("") });

const names = (b) => b.rows.filter((r) => r !== group).map((r) => r.cells[0].textContent).join("");
heads[1].child.onclick();
assert.equal(names(first) + names(second), "cbazy");
assert.equal(first.rows[0], group);
assert.equal(heads[1].getAttribute("aria-sort"), "descending");
assert.equal(status.textContent, "Sorted by Accuracy, descending.");
heads[1].child.onclick();
assert.equal(names(first) + names(second), "bcayz");
heads[0].child.onclick();
assert.equal(names(first) + names(second), "abcyz");
assert.equal(heads[1].getAttribute("aria-sort"), null);
console.log("fine");
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_sorting_in_node(tmp_path):
    (tmp_path / "test.js").write_text(NODE_TEST)
    done = subprocess.run(
        ["node", str(tmp_path / "test.js"), str(ROOT / "fairclip/compare/page.js")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# Runs in the page: sorts as a reader would, and leaves what came of it in an attribute.
PROBE = """<script>
addEventListener("load", () => {
  const buttons = [...document.querySelectorAll("#table th button")];
  buttons[1].click();
  const rows = [...document.querySelectorAll("#table tbody tr:not(.group)")];
  document.body.setAttribute("data-probe", JSON.stringify({
    order: rows.map((row) => row.cells[0].textContent), said: document.getElementById("status").textContent,
    wide: document.documentElement.scrollWidth > innerWidth + 1,
    dark: matchMedia("(prefers-color-scheme: dark)").matches, paper: getComputedStyle(document.body).backgroundColor,
    images: [...document.images].every((image) => image.complete && image.naturalWidth > 0),
  }));
});
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
@pytest.mark.parametrize("size, dark", [("1280,900", False), ("390,844", True)])
def test_page_in_a_browser(rich, tmp_path, size, dark):
    file = tmp_path / "page.html"
    file.write_text(build(rich).replace("</body>", PROBE), encoding="utf-8")
    command = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={size}",
        "--virtual-time-budget=5000",
        *(["--force-dark-mode"] if dark else []),
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    seen = json.loads(next(attributes for tag, attributes in tags(done.stdout) if tag == "body")["data-probe"])
    assert seen["order"][0] == "FAIR" and seen["said"].startswith("Sorted by synth_cars, descending")
    assert not seen["wide"] and seen["images"] and seen["dark"] == dark
    assert seen["paper"] == ("rgb(24, 25, 27)" if dark else "rgb(255, 255, 255)")


def tags(text: str) -> list[tuple[str, dict]]:
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append((tag, dict(attrs)))
    parser.feed(text)
    return found
