"""What our data sets share: from whatever copy is on disk to labelled images, few-shot sampling, base/new class halves.

A data set is a subclass of `Benchmark` that states facts (folder names, split file, counts, how to get it) and how its
images and annotations are arranged; `food101.py` is a short example.
"""

import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from dassl.data.datasets import DatasetBase, Datum

from fairclip.core.errors import UserError, few
from fairclip.core.places import CLASSES
from fairclip.data.images import check_images
from fairclip.data.layouts import (
    Copy,
    TreeCopy,
    class_folders,
    folders_in,
    has_images,
    match_names,
    part_folders,
    wrapped,
)
from fairclip.data.splits import (
    PARTS,
    Items,
    check_labels,
    fetch_split,
    keep_split,
    label_names,
    load_split,
    read_split,
    split_all,
    split_places,
    split_trainval,
    verify_split,
)

ELSEWHERE = (
    "If the data is elsewhere, name the parent of {name}/: DATA=/path for the scripts, --root /path for train.py."
)


def extend_cfg(cfg) -> None:
    """The keys that the benchmark data sets share. CoOp's train.py does not call this, so none may be relied on."""
    cfg.DATASET.SPLIT = ""  # zhou (CoOp's protocol) | official; "": zhou where there is one
    cfg.DATASET.STRICT = False  # missing images, and other counts than the known ones, are errors
    cfg.DATASET.SKIP_CORRUPT = False  # go on without the images that cannot be decoded
    cfg.DATASET.DOWNLOAD = True  # fetch CoOp's split file where it is missing (--no-download)
    cfg.DATASET.CHECK_IMAGES = False  # decode all images again, though that is on record (--check-images)


def data_root(cfg) -> Path:
    """DATASET.ROOT as an absolute path; an empty one is a UserError rather than the current folder."""
    if not cfg.DATASET.ROOT:
        raise UserError("no data folder given: pass --root FOLDER (or set DATASET.ROOT), the parent of all data sets")
    return Path(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT)))


def class_list(dataset_dir: str) -> list[tuple[str, str]]:
    """(class name, source name) of every class of a data set, in label order.

    The source name is what the official annotations or folders call the class. The lists are the files
    `classes/<dataset_dir>.txt`: a class a line, the source name behind a tab where it differs, comments behind #.
    """
    lines = (CLASSES / f"{dataset_dir}.txt").read_text(encoding="utf-8").splitlines()
    classes = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")]
    return [(names[0], names[-1]) for names in classes]


@cache  # a trainer may build its data set twice
def say(message: str) -> None:
    """Prints a message, once."""
    print(message)


# -- From labelled images to Dassl -------------------------------------------------------------------------------------


class LabelledDataset(DatasetBase):
    """Labelled images with CoOp's DATASET.NUM_SHOTS and DATASET.SUBSAMPLE_CLASSES.

    Args:
        cfg: the whole Dassl config.
        items: train, val and test -> (path, label).
        names: all class names in label order. A class keeps its label though it has no training image.
    """

    def __init__(self, cfg, items: Items, names: Sequence[str]) -> None:
        if not items["train"]:
            raise UserError(f"{type(self).__name__} has no training images")
        train, val, test = (
            [Datum(impath=path, label=label, classname=names[label]) for path, label in items[part]] for part in PARTS
        )
        shots = cfg.DATASET.NUM_SHOTS
        if shots >= 1:
            train = few_shot(train, shots, cfg.SEED)
            val = few_shot(val, min(shots, 4), cfg.SEED)  # CoOp: at most four validation images a class
        # The key is CoOp's, not Dassl's, so it may be absent.
        subset = cfg.DATASET.get("SUBSAMPLE_CLASSES", "all")
        train, val, test = subsample_classes(train, val, test, subsample=subset, classes=len(names))
        self._all_names = [names[label] for label in class_half(range(len(names)), subset)]
        super().__init__(train_x=train, val=val, test=test)

    # Dassl reads the classes off the training images, and a class that lost all of them (dead links) would shift the
    # names behind it. Here the class list decides.

    def get_num_classes(self, data_source) -> int:
        return len(self._all_names)

    def get_lab2cname(self, data_source) -> tuple[dict[int, str], list[str]]:
        return dict(enumerate(self._all_names)), list(self._all_names)


class SplitDataset(LabelledDataset):
    """A data set whose split file and images are all there.

    Args:
        cfg: the whole Dassl config.
        split: the split file.
        image_root: what the paths in the split file are relative to.
        layout: text that ends the error for missing files: what belongs where and how to get it.

    Raises:
        UserError: for missing or inconsistent files.
    """

    def __init__(self, cfg, split: Path, image_root: Path, layout: str = "") -> None:
        parts = read_split(split, image_root, layout)
        names = {d.label: d.classname for d in parts[0]}
        items = {part: [(d.impath, d.label) for d in data] for part, data in zip(PARTS, parts, strict=True)}
        super().__init__(cfg, items, [names[label] for label in sorted(names)])


def drop_corrupt(cfg, name: str, items: Items) -> Items:
    """`items` (of paths) without the images that cannot be decoded; those end the run unless DATASET.SKIP_CORRUPT.

    Raises:
        UserError: some cannot be decoded; lists all of them.
    """
    paths = [path for part in PARTS for path, _ in items[part]]
    bad = dict(check_images(paths, name, again=cfg.DATASET.get("CHECK_IMAGES", False)))
    if not bad:
        return items
    message = f"{name}: {len(bad)} of {len(paths)} images cannot be decoded:\n" + "\n".join(
        f"  {path}: {reason}" for path, reason in bad.items()
    )
    if not cfg.DATASET.get("SKIP_CORRUPT", False):
        raise UserError(f"{message}\nReplace them, or go on without them: DATASET.SKIP_CORRUPT True")
    say(f"Warning: {message}\nThey are left out (DATASET.SKIP_CORRUPT).")
    return {part: [item for item in items[part] if item[0] not in bad] for part in PARTS}


# -- From a copy on disk to labelled images ----------------------------------------------------------------------------


class NotThere(UserError):
    """There is nothing of a data set, as opposed to something that cannot be used."""


@dataclass
class Found:
    """What was read of a data set.

    `source` is where the split is from: "zhou file", "built by the CoOp rule", "official" or "folders"; `items` holds
    (path, label); `warnings` what differs from the full data set.
    """

    copy: Copy
    source: str
    names: list[str]
    items: Items
    split_file: Path | None = None
    warnings: list[str] = field(default_factory=list)


class Benchmark(LabelledDataset):
    """A data set that people have in several layouts. A subclass sets the attributes and writes the class methods.

    Raises:
        UserError: no copy or more than one, no split to be had, most images missing, images that cannot be decoded;
            with DATASET.STRICT any difference from the full data set.
    """

    dataset_dir = ""  # CoOp's folder below DATASET.ROOT; names the class list, too
    other_names: Sequence[str] = ()  # other names of that folder, and of folders that archives unpack to
    split_file = ""  # name of the split file called zhou; "" for none
    drive_id = ""  # of that file on Google Drive; "": it is always made by the rule
    rule = ""  # how CoOp made it: "trainval" (val from the official train) or "all" (all images dealt out anew)
    counts: dict[str, tuple[int, int, int] | int] = {}  # "zhou", "official" -> train, val, test images, or their sum
    how_to_get = ""  # the expected tree, where to get it, other layouts that are read; {folder} is filled in

    @classmethod
    def layouts(cls, folder: Path) -> list[Copy]:
        """The copies that `folder` holds in layouts other than train/test trees (those are found without this)."""
        return []

    @classmethod
    def official(cls, copy: Copy) -> dict[str, list[tuple[str, str]]]:
        """The official split: train (and val) and test -> (key, source name of the class).

        Raises UserError for missing annotation files (as `copy.note` does), naming them and where to get them.
        """
        raise UserError(f"{cls.__name__} has no official split")

    @classmethod
    def all_images(cls, copy: Copy) -> list[tuple[str, str]]:
        """(key, source name of the class) of all images, for the rule "all". As it stands: class/file keys."""
        return [(key, os.path.dirname(key)) for key in copy.files]

    @classmethod
    def tree_key(cls, part: str, source: str) -> str:
        """How the keys of the images in a train/test tree start, given the part and the class's source name."""
        return f"{source}/"

    def __init__(self, cfg) -> None:
        name = type(self).__name__
        option = cfg.DATASET.get
        found = self.read(data_root(cfg), option("SPLIT", ""), option("DOWNLOAD", True))
        sizes = ", ".join(f"{len(found.items[part]):,} {part}" for part in PARTS)
        place = f"{found.copy.layout} in {found.copy.home}"
        say(f"{name}: {place}, split: {found.source}, {len(found.names)} classes, {sizes}")
        if found.warnings and option("STRICT", False):
            raise UserError("\n".join([f"{name} is not as it should be (DATASET.STRICT):", *found.warnings]))
        for warning in found.warnings:
            say(f"Warning: {name}: {warning}")
        super().__init__(cfg, drop_corrupt(cfg, name, found.items), found.names)

    @classmethod
    def read(cls, root: Path, split: str = "", download: bool = True, keep: bool = True) -> Found:
        """Finds the data set below `root` and reads it.

        Args:
            split: as DATASET.SPLIT.
            download: whether CoOp's split file may be fetched.
            keep: whether a split that had to be made is written to a file.
        """
        copy = cls.locate(root)
        known = {"zhou": bool(cls.split_file), "official": "official" in cls.counts or isinstance(copy, TreeCopy)}
        if split and not known.get(split):
            choices = " and ".join(name for name, there in known.items() if there)
            raise UserError(f"DATASET.SPLIT is '{split}'; {cls.__name__} has {choices}")
        try:
            zhou = cls.split_file and split != "official"
            found = cls._zhou(copy, split, download, keep) if zhou else cls._official(copy)
        except UserError as error:
            raise UserError(f"{cls.__name__} in {copy.home}: {error}\n{cls.help(root)}") from None
        found.warnings += cls._compare(found)
        cls._find_images(found, cls.help(root))
        return found

    # -- Which copy ----------------------------------------------------------------------------------------------------

    @classmethod
    def help(cls, root: Path) -> str:
        """What belongs below `root`, and how to get it."""
        text = cls.how_to_get.strip().format(folder=root / cls.dataset_dir)
        return f"{text}\n{ELSEWHERE.format(name=cls.dataset_dir)}"

    @classmethod
    def locate(cls, root: Path) -> Copy:
        """The one copy below `root`. Raises NotThere if there is none, UserError for more than one or a useless one."""
        names = {name.lower() for name in (cls.dataset_dir, *cls.other_names)}
        homes = [folder for folder in folders_in(root) if folder.name.lower() in names]
        copies = _different([copy for home in homes for copy in cls._copies(home, names)])
        if len(copies) == 1:
            return copies[0]
        if copies:
            places = "\n".join(f"  {copy.layout}: {_place(copy)}" for copy in copies)
            raise UserError(
                f"{cls.__name__} is there {len(copies)} times, and it is for you to say which one counts:\n{places}\n"
                f"Move the others out of {root}."
            )
        state = f"nothing that is known lies in {', '.join(map(str, homes))}" if homes else f"not in {root}"
        kind = UserError if homes else NotThere
        if not homes and any(cls._copies(root, ())):
            state += f" ({root} itself looks like it: give its parent, and name it {cls.dataset_dir})"
            kind = UserError
        raise kind(f"{cls.__name__} was not found: {state}.\n{cls.help(root)}")

    @classmethod
    def _copies(cls, home: Path, names) -> Iterator[Copy]:
        for folder in wrapped(home, names):
            for copy in [*cls.layouts(folder), *cls._tree(folder)]:
                if any(has_images(place) for _, place in copy.images):
                    yield replace(copy, home=home, notes=(copy.home, *copy.notes))

    @classmethod
    def tree_names(cls) -> list[tuple[str, str]]:
        """The two names that the folder of a class may have in a train/test tree, in label order."""
        return class_list(cls.dataset_dir)

    @classmethod
    def _tree(cls, folder: Path) -> list[Copy]:
        parts = part_folders(folder)
        classes = class_list(cls.dataset_dir) if parts else []
        rows = [
            (part, place / name, label, cls.tree_key(part, classes[label][1]))
            for part, place in parts.items()
            for name, label in class_folders(place, cls.tree_names()).items()
        ]
        if not any(row[0] == "train" for row in rows):
            return []
        rest = [str(f) for place in parts.values() for f in folders_in(place) if f not in {row[1] for row in rows}]
        if rest:
            say(f"Warning: {cls.__name__} has no class of the name of {few(rest)}: left out")
        layout = " and ".join(f"{place.name}/" for place in parts.values()) + " class folders"
        images = tuple((start, place) for _, place, _, start in rows)
        return [TreeCopy(layout, folder, images, folders=tuple(rows))]

    # -- Which split ---------------------------------------------------------------------------------------------------

    @classmethod
    def _zhou(cls, copy: Copy, asked: str, download: bool, keep: bool) -> Found:
        for file in split_places(copy.home, cls.split_file, copy.notes):
            if file.is_file() and (found := cls._from_file(copy, file)):
                return found
        if download and cls.drive_id and copy.coop_keys:
            file = fetch_split(cls.drive_id, copy.home, cls.split_file)
            if file and (found := cls._from_file(copy, file)):
                return found
        # A tree is a split of its own. The rule may take a val out of its train, as CoOp does with official ones, but
        # deals all images out anew only if it is told to.
        if isinstance(copy, TreeCopy) and (copy.items.get("val") or cls.rule == "all") and not asked:
            return cls._official(copy)
        return cls._build(copy, keep)

    @classmethod
    def _from_file(cls, copy: Copy, file: Path) -> Found | None:
        """What a split file says; None, and a line that says why, if it is not about these images."""
        verify_split(file)
        split = load_split(file)
        names, labels = _adopt(file, split, class_list(cls.dataset_dir))
        items = {part: [(key, labels[label]) for key, label, _ in split[part]] for part in PARTS}
        flat = [item for part in PARTS for item in items[part]]
        if not any(copy.find(key) for key, _ in flat):
            say(f"{cls.__name__}: {file} is not used: none of the images it names is there")
            return None
        if isinstance(copy, TreeCopy):
            wrong = [key for key, label in flat if copy.labels.get(key, label) != label]
            if wrong:
                say(f"{cls.__name__}: {file} is not used: the folders put other images into its classes ({few(wrong)})")
                return None
        return Found(copy, "built by the CoOp rule" if split.made_by else "zhou file", names, items, file)

    @classmethod
    def _official(cls, copy: Copy) -> Found:
        names = [name for name, _ in class_list(cls.dataset_dir)]
        if isinstance(copy, TreeCopy):
            return Found(copy, "folders", names, {part: copy.items.get(part, []) for part in PARTS})
        items = {part: cls._label(rows) for part, rows in cls.official(copy).items()}
        return Found(copy, "official", names, {part: items.get(part, []) for part in PARTS})

    @classmethod
    def _build(cls, copy: Copy, keep: bool) -> Found:
        names = [name for name, _ in class_list(cls.dataset_dir)]
        try:
            if cls.rule == "trainval":
                official = cls._official(copy).items
                items = split_trainval(cls.dataset_dir, official["train"] + official["val"], names)
                items["test"] = official["test"]
            elif isinstance(copy, TreeCopy):
                items = split_all(cls.dataset_dir, copy.labels.items(), names)
            else:
                items = split_all(cls.dataset_dir, cls._label(cls.all_images(copy)), names)
        except UserError as error:
            raise UserError(f"there is no {cls.split_file}, and it cannot be made: {error}") from None
        if not keep:
            return Found(copy, "built by the CoOp rule", names, items)
        rows = {part: [(key, label, names[label]) for key, label in items[part]] for part in PARTS}
        file = keep_split(rows, copy.home, cls.split_file, made_by=f"FAIR, by CoOp's rule '{cls.rule}'")
        whose = "its training and validation images are" if cls.rule == "trainval" else "its images are"
        say(
            f"{cls.__name__}: made the split by CoOp's rule"
            + (f", kept in {file}" if file else ", though it could not be kept")
            + (f"; {whose} drawn at random, so they are not CoOp's very own" if cls.drive_id else "")
        )
        return Found(copy, "built by the CoOp rule", names, items, file)

    @classmethod
    def _label(cls, rows: Sequence[tuple[str, str]]) -> list[tuple[str, int]]:
        """(key, source name) -> (key, label), by label and key."""
        labels = match_names({source for _, source in rows}, class_list(cls.dataset_dir))
        strangers = sorted({source for _, source in rows} - set(labels))
        if len(strangers) > len(labels):
            raise UserError(f"the annotations name classes that are not those of {cls.__name__}: {few(strangers)}")
        if strangers:
            say(f"Warning: {cls.__name__} has no class of the name of {few(strangers)}: left out")
        return sorted(((key, labels[s]) for key, s in rows if s in labels), key=lambda item: (item[1], item[0]))

    # -- Does it hold what it should -----------------------------------------------------------------------------------

    @classmethod
    def _compare(cls, found: Found) -> list[str]:
        have = tuple(len(found.items[part]) for part in PARTS)
        kinds = {"official": ["official"], "folders": ["official", "zhou"]}.get(found.source, ["zhou"])
        known = {kind: cls.counts[kind] for kind in kinds if kind in cls.counts}
        if not known or any(have == count or sum(have) == count for count in known.values()):
            return []
        expected = " or ".join(f"{in_figures(count)} ({name})" for name, count in known.items())
        return [f"the split has {in_figures(have)} train / val / test images, the full data set {expected}"]

    @classmethod
    def _find_images(cls, found: Found, hint: str) -> None:
        """Turns keys into paths and drops the images that are not there. Most of a part missing is a UserError."""
        gone: list[str] = []
        for part in PARTS:
            placed = [(found.copy.find(key), key, label) for key, label in found.items[part]]
            missing = [found.copy.expected(key) for path, key, _ in placed if not path]
            if len(missing) > len(placed) / 2:
                raise UserError(
                    f"{cls.__name__}: {len(missing)} of the {len(placed)} {part} images are missing, "
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
    """Numbers of train, val and test images, or their sum, as text."""
    return f"{count:,} in all" if isinstance(count, int) else " / ".join(f"{n:,}" for n in count)


def _place(copy: Copy) -> str:
    """The folder of a copy's images."""
    return os.path.commonpath([folder for _, folder in copy.images])


def _different(copies: Sequence[Copy]) -> list[Copy]:
    """The copies whose files are not all in one before."""
    kept: dict[frozenset[str], Copy] = {}
    for copy in copies:
        kept.setdefault(frozenset(os.path.realpath(folder) for _, folder in copy.images), copy)
    if len(kept) < 2:
        return list(kept.values())
    different: list[tuple[Copy, set[str]]] = []  # folders of links to the images of another folder are not
    for copy in kept.values():
        files = {os.path.realpath(path) for path in copy.files.values()}
        if not any(files <= others for _, others in different):
            different.append((copy, files))
    return [copy for copy, _ in different]


def _adopt(file: Path, split, classes: Sequence[tuple[str, str]]) -> tuple[list[str], dict[int, int]]:
    """Which classes a split file is about.

    Returns:
        The class names in label order, and the label for each label in the file. The class list decides where the file
        agrees with it or numbers all its classes otherwise; a file of other classes, or some of them numbered anew,
        stands for itself.
    """
    own = label_names(file, split)
    known = match_names(own.values(), classes)
    strangers = [name for name in own.values() if name not in known]
    if known and all(0 <= label < len(classes) and known.get(name, label) == label for label, name in own.items()):
        if strangers:
            say(f"Note: {file} has class names of its own, which are used: {few(strangers)}")
        names = [own[y] if own.get(y) in strangers else name for y, (name, _) in enumerate(classes)]
        return names, {label: label for label in own}
    if not strangers and len(set(known.values())) == len(own) == len(classes):
        say(f"Note: {file} numbers the classes otherwise; their usual labels are used")
        return [name for name, _ in classes], {label: known[name] for label, name in own.items()}
    check_labels(file, split)
    say(f"Warning: {file} has its own {len(own)} classes or numbers them its own way; it is taken as it is")
    return [own[label] for label in sorted(own)], {label: label for label in own}


# -- Few shots and class halves ----------------------------------------------------------------------------------------


def few_shot(items: list[Datum], shots: int, seed: int) -> list[Datum]:
    """Draws `shots` items of each class (all where there are fewer), in order of label.

    The draw of a class is a function of the seed and the label alone, and k shots are the first k of any larger
    number. So it needs no file to remember it (CoOp pickles its draws, with absolute paths, into the data folder).
    """
    by_label: dict[int, list[Datum]] = defaultdict(list)
    for item in items:
        by_label[item.label].append(item)
    drawn = []
    for label in sorted(by_label):
        group = by_label[label]
        drawn += random.Random(f"{seed} {label}").sample(group, len(group))[:shots]
    return drawn


def class_half(labels: Sequence[int], subsample: str) -> list[int]:
    """All labels, the first half of them ("base", the larger one) or the second ("new"), as CoOp does."""
    if subsample not in ("all", "base", "new"):
        raise UserError(f"DATASET.SUBSAMPLE_CLASSES is '{subsample}'; choose all, base or new")
    half = (len(labels) + 1) // 2
    return list(labels if subsample == "all" else labels[:half] if subsample == "base" else labels[half:])


def subsample_classes(*parts: list[Datum], subsample: str = "all", classes: int | None = None) -> tuple[list, ...]:
    """Keeps the items of `class_half`, with labels numbered anew from 0.

    Args:
        classes: how many there are, if not all have items in the first part.
    """
    labels = range(classes) if classes is not None else sorted({item.label for item in parts[0]})
    kept = class_half(labels, subsample)
    if subsample == "all":
        return parts
    renumber = {label: index for index, label in enumerate(kept)}
    return tuple(
        [
            Datum(impath=d.impath, label=renumber[d.label], domain=d.domain, classname=d.classname)
            for d in part
            if d.label in renumber
        ]
        for part in parts
    )
