"""Examples to look at: which images of a test set, and what a predictor makes of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fairclip.predict.explanation import Example
from fairclip.predict.predictor import Predictor

T = TypeVar("T")
LOOKED_AT = 128  # test images at most, among which examples are chosen: with crops each costs N + 1 views


def choose_images(images: Iterable[tuple[str, str]], classnames: Sequence[str], count: int) -> list[tuple[str, str]]:
    """The first image of each of ``count`` evenly spaced classes; of fewer, where fewer have images.

    What a model makes of the images plays no part.

    Args:
        images: path and class name of each image of a test set.
        classnames: all class names, in order.
    """
    first: dict[str, str] = {}
    for path, name in images:
        first.setdefault(name, path)
    names = [name for name in classnames if name in first]
    return [(first[name], name) for name in even(names, count)]


def even(items: Sequence[T], count: int) -> list[T]:
    """So many of them, evenly spaced; all, where there are fewer."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def explain_examples(predictor: Predictor, images: Sequence[tuple[str, str]], upright: bool = False) -> list[Example]:
    """What the predictor makes of images of known classes.

    Args:
        images: path and class name of each.
        upright: how the run read them, see ``as_rgb``.

    Raises:
        UserError: an image that cannot be read, or a model without crops.
    """
    predictor.upright = upright
    explained = predictor.explain([path for path, _ in images])
    return [
        Example(truth=predictor.classnames.index(name), **vars(explanation))
        for explanation, (_, name) in zip(explained, images, strict=True)
    ]


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


@dataclass
class Chosen:
    """Examples, and how usual they are."""

    examples: list[Example]
    looked_at: int  # images
    helped: int  # of them: crops turn a wrong answer right
    harmed: int  # of them: crops turn a right answer wrong

    @property
    def rule(self) -> str:
        """How they were chosen, for those who see them."""
        return (
            f"Of {self.looked_at} test images, evenly spaced, crops turn {self.helped} from wrong to right and "
            f"{self.harmed} from right to wrong. Shown are some of the former, then some of the latter, evenly spaced, "
            "and where there are too few, the first image of evenly spaced classes."
        )


def telling_examples(
    predictor: Predictor, images: Sequence[tuple[str, str]], count: int, upright: bool = False
) -> Chosen:
    """Images on which crops help and, as many, on which they harm; ``Chosen.rule`` says how they are found.

    Arguments and errors as for ``explain_examples``.
    """
    some = even(images, LOOKED_AT)
    outcomes = [
        example.outcome for batch in batches(some, 32) for example in explain_examples(predictor, batch, upright)
    ]
    helped = [image for image, outcome in zip(some, outcomes, strict=True) if outcome == (False, True)]
    harmed = [image for image, outcome in zip(some, outcomes, strict=True) if outcome == (True, False)]
    least = count - min(len(harmed), count // 2)
    picked = even(helped, least)
    picked += even(harmed, count - len(picked))
    rest = [image for image in images if image not in set(picked)]
    picked += choose_images(rest, predictor.classnames, count - len(picked))
    return Chosen(explain_examples(predictor, picked, upright), len(some), len(helped), len(harmed))
