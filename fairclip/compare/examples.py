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

from fairclip.compare.runs import Run
from fairclip.core.errors import UserError

if TYPE_CHECKING:
    from fairclip.predict.explanation import Example

TOP = 3  # classes listed


@dataclass(frozen=True)
class Missing:
    """Why there are no pictures."""

    reason: str


def examples(run: Run, data: Path | None, count: int) -> list[str] | Missing:
    """HTML figures of the first test images of evenly spaced classes: what the model makes of them plays no part.

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
            from fairclip.predict.examples import choose_images, explain_examples  # torch takes seconds
            from fairclip.predict.predictor import Predictor

            predictor = Predictor.load(run.folder)
            chosen = choose_images(images, predictor.classnames, count)
            settings = run.settings or {}
            upright = settings.get("DATASET.NAME") == "ImageFolder" and settings.get("DATASET.UPRIGHT", False)
            explained = explain_examples(predictor, chosen, upright)
            return [_figure(example, predictor.classnames) for example in explained]
    except (UserError, OSError, RuntimeError, ValueError) as error:
        return Missing(str(error))


def data_uri(image: Image.Image, photo: bool) -> str:
    """JPEG for photographs, PNG for what must keep each pixel."""
    stream, kind = io.BytesIO(), "jpeg" if photo else "png"
    image.convert("RGB").save(stream, format=kind, **({"quality": 85} if photo else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _figure(example: "Example", names: Sequence[str]) -> str:
    from fairclip.predict.draw import draw_boxes

    truth = example.caption if example.truth is None else names[example.truth]
    picture = draw_boxes(example)
    crops = "".join(
        f'<li><img src="{data_uri(crop, photo=False)}" width="{crop.width}" height="{crop.height}" '
        f'alt="Crop {rank}">{rank}: w {weight:.2f}</li>'
        for rank, (crop, weight) in enumerate(zip(example.crops, example.weights, strict=True), start=1)
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
    alt = (
        f"A test image of {truth} with {len(example.boxes)} crops as boxes, the {len(example.crops)} most relevant "
        "in colour and numbered"
    )
    return (
        f'<figure class="example"><img src="{data_uri(picture, photo=True)}" width="{picture.width}" '
        f'height="{picture.height}" alt="{escape(alt)}"><figcaption>True class: {escape(truth)}</figcaption>'
        f'<ul class="crops">{crops}</ul>{"".join(lists)}</figure>'
    )
