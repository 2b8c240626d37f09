"""The script of the report page in node, and the page in a browser: on a screen, on a phone, on paper."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up_runs import finish
from test_report import METHODS, build, rich  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("console")

ROOT = Path(__file__).resolve().parents[1]

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
    hint: getComputedStyle(document.querySelector(".scroll")).backgroundAttachment,
    images: [...document.images].every((image) => image.complete && image.naturalWidth > 0),
  }));
});
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
@pytest.mark.parametrize("size, dark", [("1280,900", False), ("390,844", True), ("703,900", False)])
def test_page_in_a_browser(rich, tmp_path, size, dark):  # noqa: F811
    """On a screen, on a phone, and as wide as the print on A4, where nothing scrolls: nothing may stick out."""
    for method in METHODS.values():
        folder = "tiny" + (f"_{method.variant}" if method.variant else "")
        for name in ("synth_cars_s2", "a_data_set_with_a_long_name"):
            if not (place := rich / name / method.trainer / folder / "seed1").exists():
                finish(place, 40 + (method.key == "fair"), predictions=[("a class with a long name", "another")])
    text = build(rich, images=0)
    if size == "703,900":
        text = text.replace("@media print {", "@media all {")
    file = tmp_path / "page.html"
    file.write_text(text.replace("</body>", PROBE), encoding="utf-8")
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
    assert seen["order"][0] == "FAIR" and seen["said"].startswith("Sorted by a_data_set_with_a_long_name, descending")
    assert not seen["wide"] and seen["images"] and seen["dark"] == dark
    assert seen["hint"] == ("scroll" if size == "703,900" else "local, scroll")  # shadow and cover
    assert seen["paper"] == ("rgb(24, 25, 27)" if dark else "rgb(255, 255, 255)")


def tags(text: str) -> list[tuple[str, dict]]:
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: found.append((tag, dict(attrs)))
    parser.feed(text)
    return found
