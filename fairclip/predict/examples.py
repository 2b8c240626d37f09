"""Examples to look at: which images of a test set, and what a predictor makes of them."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from fairclip.predict.explanation import Example
from fairclip.predict.predictor import Predictor

T = TypeVar("T")


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
