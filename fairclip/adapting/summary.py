"""What an adaptation changed: the classes of the same images before and after."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fairclip.core.reading import read_json, reading

SHOWN = 3  # classes that are named


class Answer(NamedTuple):
    """Of one image."""

    image: str
    label: str
    probability: float
    before: str  # by the backbone as it was, from the same names and descriptions


def summarize(answers: Sequence[Answer], agreement: float) -> dict[str, Any]:
    """How many images got another class, which classes grew and shrank, and how sure the model is.

    Args: agreement, the share of training images whose crops and whole image said the same in the last epoch.
    """
    after, before = (Counter(getattr(answer, name) for answer in answers) for name in ("label", "before"))
    change = {name: after[name] - before[name] for name in sorted({*after, *before})}
    ordered = sorted(change.items(), key=lambda item: -item[1])
    return {
        "images": len(answers),
        "changed": sum(answer.label != answer.before for answer in answers),
        "grew": {name: count for name, count in ordered[:SHOWN] if count > 0},
        "shrank": {name: count for name, count in ordered[::-1][:SHOWN] if count < 0},
        "empty": sum(after[name] == 0 for name in change),
        "mean_probability": sum(answer.probability for answer in answers) / len(answers),
        "agreement": agreement,
    }


def in_words(summary: dict[str, Any]) -> list[str]:
    """The summary as lines for people."""
    images, changed = summary["images"], summary["changed"]
    lines = [f"{changed:,} of {images:,} images got another class than before ({100 * changed / images:.0f} %)"]
    for word in ("grew", "shrank"):
        if summary[word]:
            lines.append(f"{word}: " + ", ".join(f"{name} {count:+d}" for name, count in summary[word].items()))
    lines.append(
        f"mean probability of the likeliest class {summary['mean_probability']:.2f}; crops and whole image agreed on "
        f"{100 * summary['agreement']:.0f} % of the images"
    )
    lines.append("how many are right is not known, as the images have no labels: look at some of those that changed")
    return lines


def read_words(file: Path) -> list[str]:
    """What a summary that was written says, as ``in_words``.

    Raises:
        UserError: it is damaged.
    """
    what, advice = "the summary of an adaptation", "Remove the file to have it made again"
    summary = read_json(file, what, advice)
    with reading(file, what, advice):
        return in_words(summary)
