"""Which split counts for a copy of a data set: a split file, CoOp's fetched, the official one, or one that we make."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fairclip.core.errors import UserError, few, require
from fairclip.data.classes import class_list, match_classes
from fairclip.data.copies import Copy, TreeCopy
from fairclip.data.facts import Facts
from fairclip.data.messages import tell_once, warn_once
from fairclip.data.split_store import US, fetch_split, keep_split, split_places, verify_split
from fairclip.data.splits import (
    PARTS,
    Items,
    Split,
    check_labels,
    label_names,
    load_split,
    split_all,
    split_trainval,
)

MADE = "built by the CoOp rule"


@dataclass
class Found:
    """What was read of a data set.

    Args:
        copy: where it was.
        source: where the split is from: "zhou file", "built by the CoOp rule", "official" or "folders".
        names: class names in label order.
        items: part -> (key, label); `completeness.find_images` turns keys into paths.
        split_file: the split file, if there is one.
        warnings: what differs from the full data set.
    """

    copy: Copy
    source: str
    names: list[str]
    items: Items
    split_file: Path | None = None
    warnings: list[str] = field(default_factory=list)


def check_split_name(dataset: type[Facts], copy: Copy, asked: str) -> None:
    """Raises UserError unless the data set has the split that DATASET.SPLIT asks for."""
    known = {
        "zhou": bool(dataset.split_file),
        "official": "official" in dataset.counts or isinstance(copy, TreeCopy),
    }
    choices = " and ".join(name for name, there in known.items() if there)
    require(not asked or known.get(asked), f"DATASET.SPLIT is '{asked}'; {dataset.__name__} has {choices}")


def choose_split(dataset: type[Facts], copy: Copy, asked: str, download: bool, keep: bool) -> Found:
    """The split of a copy.

    Args:
        dataset: its facts.
        copy: the copy.
        asked: "zhou", "official", or "": zhou where the data set has one. See `check_split_name`.
        download: whether CoOp's split file may be fetched.
        keep: whether a split that had to be made is written to a file.

    Raises:
        UserError: what the split needs is missing or damaged.
    """
    if isinstance(copy, TreeCopy):
        check_tree(dataset, copy, official_labels(dataset, copy), "the official lists")
    if not dataset.split_file or asked == "official":
        return _official(dataset, copy)
    unused = []
    for file in _split_files(dataset, copy, download):
        if found := _from_file(dataset, copy, file):
            return found
        unused.append(file)
    # A tree is a split of its own. The rule may take a val out of its train, as CoOp does with official ones, but
    # deals all images out anew only if it is told to.
    if isinstance(copy, TreeCopy) and (copy.items.get("val") or dataset.rule == "all") and not asked:
        return _official(dataset, copy)
    return _made(dataset, copy, keep, unused)


def _split_files(dataset: type[Facts], copy: Copy, download: bool) -> Iterator[Path]:
    """The split files that may be about this copy: those that are there, then CoOp's, fetched when it is asked for."""
    for file in split_places(copy.home, dataset.split_file, copy.notes):
        if file.is_file():
            yield file
    if download and dataset.drive_id and copy.coop_keys:
        fetched = fetch_split(dataset.drive_id, copy.home, dataset.split_file)
        if fetched:
            yield fetched


# -- Does a tree agree with lists? -------------------------------------------------------------------------------------


def official_labels(dataset: type[Facts], copy: Copy) -> dict[str, int]:
    """The label of every image by the official annotations, where they are there; {} where not."""
    classes, rows = class_list(dataset.dataset_dir), []
    for read in (dataset.official, dataset.all_images):
        try:
            found = read(copy)
        except (ValueError, LookupError, TypeError):  # a tree can do without them, whatever state they are in
            continue
        rows += [row for part in found.values() for row in part] if isinstance(found, dict) else found
    labels = match_classes({source for _, source in rows}, classes)
    return {key: labels[source] for key, source in rows if source in labels}


def check_tree(dataset: type[Facts], copy: TreeCopy, said: Mapping[str, int], source: str) -> list[str]:
    """The keys of the images that lie in folders of other classes than `source` says.

    Args:
        said: key -> label.
        source: what says so, for the message.

    Raises:
        UserError: these are most of the images that both name; the message shows both readings of three.
    """
    both = [key for key in said if key in copy.labels]
    wrong = [key for key in both if copy.labels[key] != said[key]]
    if 2 * len(wrong) <= len(both):
        return wrong
    names = [name for name, _ in class_list(dataset.dataset_dir)]
    readings = "".join(
        f"\n  {copy.files[key]}: {names[copy.labels[key]]} by its folder, {names[said[key]]} by the list"
        for key in wrong[:3]
        if said[key] < len(names)
    )
    raise UserError(
        f"{len(wrong)} of {len(both)} images lie in folders of other classes than {source} says:{readings}\n"
        "Is it the folders that are numbered or named otherwise, rename them. If the list is of other images, remove it"
        + (" (and give --no-download)." if dataset.drive_id else ".")
    )


# -- From a file -------------------------------------------------------------------------------------------------------


def _from_file(dataset: type[Facts], copy: Copy, file: Path) -> Found | None:
    """What a split file says; None, and a line that says why, if it is not about these images."""
    verify_split(file)
    split = load_split(file)
    names, labels = _classes_of(file, split, class_list(dataset.dataset_dir))
    items = {part: [(key, labels[label]) for key, label, _ in split[part]] for part in PARTS}
    flat = [item for part in PARTS for item in items[part]]
    unused = f"{dataset.__name__}: {file} is not used"
    if not any(copy.find(key) for key, _ in flat):
        tell_once(f"{unused}: none of the images it names is there")
        return None
    if isinstance(copy, TreeCopy):
        wrong = check_tree(dataset, copy, dict(flat), str(file))
        if wrong:
            tell_once(f"{unused}: the folders put other images into its classes ({few(wrong)})")
            return None
    if split.made_by and (new := _came_later(dataset, copy, names, flat)):
        tell_once(f"{unused}: it was made when {new} of the images that are here now were not")
        return None
    return Found(copy, MADE if split.made_by else "zhou file", names, items, file)


def _came_later(dataset: type[Facts], copy: Copy, names: Sequence[str], flat: Sequence[tuple[str, int]]) -> int:
    """How many images the rule would deal out that a split which it made does not name."""
    try:
        made = _by_the_rule(dataset, copy, names)
    except UserError:  # what the rule needs has gone since, and the file takes its place
        return 0
    there = {key for part in PARTS for key, _ in made[part] if copy.find(key)}
    return len(there - {key for key, _ in flat})


def _classes_of(file: Path, split: Split, classes: Sequence[tuple[str, str]]) -> tuple[list[str], dict[int, int]]:
    """Which classes a split file is about.

    Returns:
        The class names in label order, and the label for each label in the file. The class list decides where the file
        agrees with it or numbers all its classes otherwise; a file of other classes, or some of them numbered anew,
        stands for itself.
    """
    own = label_names(file, split)
    known = match_classes(own.values(), classes)
    strangers = [name for name in own.values() if name not in known]
    if known and all(0 <= label < len(classes) and known.get(name, label) == label for label, name in own.items()):
        if strangers:
            tell_once(f"Note: {file} has class names of its own, which are used: {few(strangers)}")
        names = [own[y] if own.get(y) in strangers else name for y, (name, _) in enumerate(classes)]
        return names, {label: label for label in own}
    if not strangers and len(set(known.values())) == len(own) == len(classes):
        tell_once(f"Note: {file} numbers the classes otherwise; their usual labels are used")
        return [name for name, _ in classes], {label: known[name] for label, name in own.items()}
    check_labels(file, split)
    warn_once(f"{file} has its own {len(own)} classes or numbers them its own way; it is taken as it is")
    return [own[label] for label in sorted(own)], {label: label for label in own}


# -- Official, or made by the rule -------------------------------------------------------------------------------------


def _official(dataset: type[Facts], copy: Copy) -> Found:
    names = [name for name, _ in class_list(dataset.dataset_dir)]
    if isinstance(copy, TreeCopy):
        return Found(copy, "folders", names, {part: copy.items.get(part, []) for part in PARTS})
    items = {part: _with_labels(dataset, rows) for part, rows in dataset.official(copy).items()}
    return Found(copy, "official", names, {part: items.get(part, []) for part in PARTS})


def _made(dataset: type[Facts], copy: Copy, keep: bool, unused: Sequence[Path]) -> Found:
    names = [name for name, _ in class_list(dataset.dataset_dir)]
    try:
        items = _by_the_rule(dataset, copy, names)
    except UserError as error:
        lacking = f"{few(list(map(str, unused)))} cannot be used" if unused else f"there is no {dataset.split_file}"
        raise UserError(f"{lacking}, and a split cannot be made: {error}") from None
    if not keep:
        return Found(copy, MADE, names, items)
    rows = {part: [(key, label, names[label]) for key, label in items[part]] for part in PARTS}
    file = keep_split(rows, copy.home, dataset.split_file, made_by=f"{US}, by CoOp's rule '{dataset.rule}'")
    whose = "its training and validation images are" if dataset.rule == "trainval" else "its images are"
    tell_once(
        f"{dataset.__name__}: made the split by CoOp's rule"
        + (f", kept in {file}" if file else ", though it could not be kept")
        + (f"; {whose} drawn at random, so they are not CoOp's very own" if dataset.drive_id else "")
    )
    return Found(copy, MADE, names, items, file)


def _by_the_rule(dataset: type[Facts], copy: Copy, names: Sequence[str]) -> Items:
    if dataset.rule == "trainval":
        official = _official(dataset, copy).items
        made = split_trainval(dataset.dataset_dir, official["train"] + official["val"], names)
        return made | {"test": official["test"]}
    if isinstance(copy, TreeCopy):
        return split_all(dataset.dataset_dir, copy.labels.items(), names)
    return split_all(dataset.dataset_dir, _with_labels(dataset, dataset.all_images(copy)), names)


def _with_labels(dataset: type[Facts], rows: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
    """(key, source name) -> (key, label), by label and key."""
    labels = match_classes({source for _, source in rows}, class_list(dataset.dataset_dir))
    strangers = sorted({source for _, source in rows} - set(labels))
    if len(strangers) > len(labels):
        raise UserError(f"the annotations name classes that are not those of {dataset.__name__}: {few(strangers)}")
    if strangers:
        warn_once(f"{dataset.__name__} has no class of the name of {few(strangers)}: left out")
    return sorted(((key, labels[s]) for key, s in rows if s in labels), key=lambda item: (item[1], item[0]))
