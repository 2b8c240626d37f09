"""Whether a data set holds what it should: known counts, and an image for every line of the split."""

from fairclip.core.errors import UserError, few
from fairclip.core.rgb import is_pointer
from fairclip.data.choose_split import Found
from fairclip.data.facts import Facts
from fairclip.data.splits import PARTS

SAMPLES = 20  # images of a part whose files are looked into


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
        UserError: of the classes that are there, most images of a part are missing (the message ends with `hint`), or
            images are pointers of Git LFS.
    """
    gone: list[str] = []
    there = {label for part in PARTS for key, label in found.items[part] if found.copy.find(key)}
    for part in PARTS:
        placed = [(found.copy.find(key), key, label) for key, label in found.items[part]]
        missing = [found.copy.expected(key) for path, key, _ in placed if not path]
        # A copy of a few classes can be used; of the classes that are there, most images must be.
        counted = [path for path, _, label in placed if label in there or not there]
        if counted.count(None) > len(counted) / 2:
            raise UserError(
                f"{dataset.__name__}: {len(missing)} of the {len(placed)} {part} images are missing, "
                f"the first is {missing[0]} (split: {found.split_file or found.source})\n{hint}"
            )
        gone += missing
        found.items[part] = [(path, label) for path, _, label in placed if path]
    _check_fetched(found)
    if gone:
        found.warnings.append(f"{len(gone)} images of the split are missing, the first is {gone[0]}")
    trained = {label for _, label in found.items["train"]}
    empty = [name for label, name in enumerate(found.names) if label not in trained]
    if empty:
        found.warnings.append(f"{len(empty)} classes have no training image (they keep their labels): {few(empty)}")


def _check_fetched(found: Found) -> None:
    """Raises UserError if images are pointers of Git LFS: a few of each part are looked at."""
    for part in PARTS:
        paths = [path for path, _ in found.items[part]]
        pointers = [path for path in paths[:: len(paths) // SAMPLES + 1] if is_pointer(path)]
        if pointers:
            raise UserError(
                f"{pointers[0]} is a pointer of Git LFS, and so are others: the images have not been fetched. Run "
                f"git lfs pull in {found.copy.home}"
            )


def in_figures(count: tuple[int, ...] | int) -> str:
    """Numbers of train, val and test images, or their sum, as text: "6,509 / 1,635 / 8,041"."""
    return f"{count:,} in all" if isinstance(count, int) else " / ".join(f"{n:,}" for n in count)
