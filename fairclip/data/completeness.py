"""Whether a data set holds what it should: known counts, and an image for every line of the split."""

from fairclip.core.errors import UserError, few
from fairclip.data.choose_split import Found
from fairclip.data.facts import Facts
from fairclip.data.splits import PARTS


def compare_counts(dataset: type[Facts], found: Found) -> list[str]:
    """What differs from the known numbers of images: nothing, or one sentence."""
    have = tuple(len(found.items[part]) for part in PARTS)
    kinds = {"official": ["official"], "folders": ["official", "zhou"]}.get(found.source, ["zhou"])
    known = {kind: dataset.counts[kind] for kind in kinds if kind in dataset.counts}
    if not known or any(have == count or sum(have) == count for count in known.values()):
        return []
    expected = " or ".join(f"{in_figures(count)} ({name})" for name, count in known.items())
    return [f"the split has {in_figures(have)} train / val / test images, the full data set {expected}"]


def find_images(dataset: type[Facts], found: Found, hint: str) -> None:
    """Turn keys into paths and drop the images that are not there, with a warning in `found`.

    Raises:
        UserError: most images of a part are missing; the message ends with `hint`.
    """
    gone: list[str] = []
    for part in PARTS:
        placed = [(found.copy.find(key), key, label) for key, label in found.items[part]]
        missing = [found.copy.expected(key) for path, key, _ in placed if not path]
        if len(missing) > len(placed) / 2:
            raise UserError(
                f"{dataset.__name__}: {len(missing)} of the {len(placed)} {part} images are missing, "
                f"the first is {missing[0]} (split: {found.split_file or found.source})\n{hint}"
            )
        gone += missing
        found.items[part] = [(path, label) for path, _, label in placed if path]
    if gone:
        found.warnings.append(f"{len(gone)} images of the split are missing, the first is {gone[0]}")
    trained = {label for _, label in found.items["train"]}
    empty = [name for label, name in enumerate(found.names) if label not in trained]
    if empty:
        found.warnings.append(f"{len(empty)} classes have no training image (they keep their labels): {few(empty)}")


def in_figures(count: tuple[int, ...] | int) -> str:
    """Numbers of train, val and test images, or their sum, as text: "6,509 / 1,635 / 8,041"."""
    return f"{count:,} in all" if isinstance(count, int) else " / ".join(f"{n:,}" for n in count)
