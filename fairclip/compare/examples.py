"""Test images with the crops that a finished FAIR run selects, as in `fair draw-crops`."""

import base64
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from fairclip.compare.comparison import Comparison
from fairclip.compare.runs import Column, Run
from fairclip.core.errors import UserError

if TYPE_CHECKING:
    from fairclip.predict.explanation import Example

TOP = 3  # classes listed


@dataclass(frozen=True)
class Missing:
    """Why there are no pictures."""

    reason: str


def examples_part(comparison: Comparison, column: Column, data: Path | None, count: int) -> str:
    """The part of the page on one data set. Arguments as for ``examples``."""
    title = "<h3>What FAIR looks at</h3>"
    fair = next((m for m in comparison.methods if m.key == "fair"), None)
    runs = list(comparison.cell(fair, column).runs.values()) if fair else []
    if count < 1 or not runs:
        return f"{title}<p>{'No example images were asked for.' if runs else 'There is no finished run of FAIR.'}</p>"
    found = examples(runs[0], data, count)
    if isinstance(found, Missing):
        return f"{title}<p>No example images: {escape(found.reason)}.</p>"
    figures, rule = found
    return (
        f'{title}<p class="note">By the run of seed {runs[0].seed}. {escape(rule)} Boxes: the crops of most weight, '
        "numbered by their relevance r to the whole image; the thicker the line, the greater the weight w.</p>"
        f'<div class="examples">{"".join(figures)}</div>'
    )


def examples(run: Run, data: Path | None, count: int) -> tuple[list[str], str] | Missing:
    """HTML figures of test images, and the rule by which they were chosen.

    Args:
        data: the folder with all data sets; None: where the run found them.
    """
    if run.results.get("trainer") != "FAIR":
        return Missing("no FAIR run is finished")
    root = data or (Path(run.settings["DATASET.ROOT"]).expanduser() if run.settings else None)
    if root is None or not run.predictions:
        return Missing(f"{run.folder} has no config.yaml or predictions.csv to say where the images are")
    if absent := next((image for image, _, _ in run.predictions if not (root / image).is_file()), None):
        return Missing(f"the images are not in {root} (no {absent})")  # nothing is downloaded or drawn for a report
    images = [(str(root / image), label) for image, label, _ in run.predictions]
    try:
        # What loading says belongs neither into the page nor on a screen that the page is printed on.
        with contextlib.redirect_stdout(io.StringIO()):
            from fairclip.predict.examples import telling_examples  # torch takes seconds
            from fairclip.predict.predictor import Predictor

            predictor = Predictor.load(run.folder)
            settings = run.settings or {}
            upright = settings.get("DATASET.NAME") == "ImageFolder" and settings.get("DATASET.UPRIGHT", False)
            chosen = telling_examples(predictor, images, count, upright)
            return [_figure(example, predictor.classnames) for example in chosen.examples], chosen.rule
    except (UserError, OSError, RuntimeError, ValueError) as error:
        return Missing(str(error))


def data_uri(image: Image.Image, photo: bool) -> str:
    """JPEG for photographs, PNG for what must keep each pixel."""
    stream, kind = io.BytesIO(), "jpeg" if photo else "png"
    image.convert("RGB").save(stream, format=kind, **({"quality": 85} if photo else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _figure(example: "Example", names: Sequence[str]) -> str:
    from fairclip.predict.draw import SHOWN, draw_boxes

    truth = example.caption if example.truth is None else names[example.truth]
    picture = draw_boxes(example)
    crops = "".join(
        f'<li><img src="{data_uri(crop, photo=False)}" width="{crop.width}" height="{crop.height}" '
        f'alt="Crop {rank}">{rank}: w {weight:.2f}</li>'
        for rank, (crop, weight) in enumerate(zip(example.crops[:SHOWN], example.weights[:SHOWN], strict=True), start=1)
    )
    lists = []
    for title, probabilities in (("By the selected crops", example.local), ("By the whole image", example.whole)):
        rows = []
        for p, label in zip(*(t.tolist() for t in probabilities.topk(min(TOP, len(names)))), strict=True):
            true = label == example.truth
            rows.append(
                f"<dt{' class=true' if true else ''}>{escape(names[label])}{' (true)' if true else ''}</dt>"
                f"<dd>{100 * p:.0f} %</dd>"
            )
        lists.append(f'<p class="note">{title}</p><dl>{"".join(rows)}</dl>')
    shown = min(SHOWN, len(example.crops))
    alt = f"A test image of {truth} with the {shown} crops of most weight as boxes, in colour and numbered"
    return (
        f'<figure class="example"><img src="{data_uri(picture, photo=True)}" width="{picture.width}" '
        f'height="{picture.height}" alt="{escape(alt)}"><figcaption>True class: {escape(truth)}. '
        f"<strong>{escape(example.effect)}.</strong></figcaption>"
        f'<ul class="crops">{crops}</ul>{"".join(lists)}</figure>'
    )
