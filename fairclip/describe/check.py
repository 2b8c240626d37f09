"""Hold description files against the rules, and show what breaks them. Exit status: 1 if anything does.

    fair describe check                                                      all that come with FAIR
    fair describe check stanford_cars --file mine.json
    fair describe check --file mine.json --classes classes.txt --kind bird   classes of your own

docs/descriptions.md says why these rules. They are what a program can see; whether a sentence is true, it cannot.
"""

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import yaml

from fairclip.backbones.openai import clip_module
from fairclip.core.errors import UserError, few
from fairclip.core.invocation import fair_command
from fairclip.data.classes import class_list
from fairclip.describe.birds import build
from fairclip.text.descriptions import DESCRIPTIONS, match_names, read_table

SENTENCES = 4, 8  # of a class
TOKENS = 60  # of a sentence, fewer than this: CLIP reads 77 with its two marks
ALIKE = 0.6  # share of words that two classes may have in common
# The same for two sentences of one class. One that says another again adds to that one's weight in the class's anchor
# and nothing to what the anchor knows. In our files the closest ones, on two sexes of one bird, have 0.5 in common.
REPEATED = 0.6
WORDS = yaml.safe_load((DESCRIPTIONS / "words.yaml").read_text(encoding="utf-8"))
BANNED = re.compile(rf"(?:[$€£]|\b(?:1[89]|20)\d\ds?\b|\b(?:{'|'.join(WORDS['banned'])})\b)", re.IGNORECASE)
LITTLE = set(WORDS["little"].split())


@dataclass(frozen=True)
class Kind:
    """What sentences of a data set may call its classes, and their parts. Empty: anything will do."""

    folder: str = ""  # the stem of its class list
    kinds: frozenset[str] = field(default_factory=frozenset)
    parts: frozenset[str] = field(default_factory=frozenset)


KINDS = {
    name: Kind(facts.get("classes", name), frozenset(facts["kinds"].split()), frozenset(facts["parts"].split()))
    for name, facts in WORDS["datasets"].items()
}


def problems(table: Mapping[str, Sequence[str]], classes: Sequence[str], kind: Kind) -> Iterator[str]:
    """Everything that is wrong with the descriptions of these classes, as sentences."""
    if lacking := [name for name in classes if not table.get(name)]:
        yield f"no descriptions for {few(lacking, 10)}"
    if extra := [key for key in table if key not in classes]:
        yield f"no class of this data set: {few(extra, 10)}"
    described = {name: table[name] for name in classes if table.get(name)}
    seen: dict[str, str] = {}
    for name, sentences in described.items():
        if not SENTENCES[0] <= len(sentences) <= SENTENCES[1]:
            yield f"{name}: {len(sentences)} sentences, should be {SENTENCES[0]} to {SENTENCES[1]}"
        if kind.parts and not any(kind.parts & _words(sentence) for sentence in sentences):
            yield f"{name}: no sentence speaks of a local part"
        for sentence in sentences:
            for problem in sentence_problems(sentence, name, kind):
                yield f"{name}: {problem}: {sentence}"
            form = " ".join(re.findall(r"\w+", sentence.lower()))
            if form in seen:
                yield f"{name}: the same sentence as for {seen[form]}: {sentence}"
            seen[form] = name
        yield from _repeated(name, sentences)
    yield from _alike(described)


def sentence_problems(sentence: str, name: str, kind: Kind) -> Iterator[str]:
    """What is wrong with one sentence about the class `name`."""
    length = len(clip_module()._tokenizer.encode(sentence))
    if length >= TOKENS:
        yield f"{length} tokens, should be fewer than {TOKENS}"
    own = _words(name)
    bare = re.sub(r"\w+", lambda word: "" if word[0].lower() in own else word[0], sentence)
    if found := BANNED.search(bare):
        yield f"'{found[0]}' cannot be seen in a picture, or says nothing"
    if kind.kinds and not (kind.kinds | {word for word in own if len(word) > 2}) & _words(sentence):
        yield "names neither the class nor its kind"


def _words(text: str) -> set[str]:
    """Lower-case words, each with and without a plural s."""
    words = set(re.findall(r"[^\W_]+", text.lower()))
    return words | {word.removesuffix("s") for word in words} | {word.removesuffix("es") for word in words}


def _repeated(name: str, sentences: Sequence[str]) -> Iterator[str]:
    """Pairs of sentences of one class that have nearly the same words."""
    for one, other in combinations(sentences, 2):
        share = _share(_bag(one, name), _bag(other, name))
        if share > REPEATED and one.lower() != other.lower():
            yield f"{name}: two sentences in nearly the same words ({share:.0%}): {one} | {other}"


def _bag(text: str, name: str) -> set[str]:
    """Words without those of the name and little ones."""
    return set(re.findall(r"[^\W_]+", text.lower())) - LITTLE - _words(name)


def _share(first: set[str], second: set[str]) -> float:
    return len(first & second) / max(1, len(first | second))


def _alike(described: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Pairs of classes whose descriptions have nearly the same words, their names and little words apart."""
    bags = {name: _bag(" ".join(sentences), name) for name, sentences in described.items()}
    for (one, first), (other, second) in combinations(bags.items(), 2):
        share = _share(first, second)
        if share > ALIKE:
            yield f"{one} and {other} are described with nearly the same words ({share:.0%})"


# -- The command -------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fair describe check`."""
    parser.add_argument("names", nargs="*", metavar="DATASET", help="default: all that come with FAIR")
    parser.add_argument("--file", type=Path, help="another file of descriptions for this one data set")
    parser.add_argument("--classes", type=Path, help="a text file, a class a line: --file is for these classes")
    parser.add_argument(
        "--kind", default="", help="with --classes: what they are (bird, car, ...): sentences name it or the class"
    )


def main(args: argparse.Namespace) -> int:
    """Exit status: 0, or 1 if something is wrong."""
    status = 0
    for title, path, classes, kind in _chosen(args):
        table = read_table(path)
        if args.file:  # ours have the names to the letter, others are read as a run would read them
            means = {key: name for name, key in match_names(classes, table).items()}
            table = {means.get(key, key): sentences for key, sentences in table.items()}
        found = list(problems(table, classes, kind))
        if path.parent == DESCRIPTIONS and path.stem in build() and build()[path.stem] != table:
            found.append(f"differs from birds.json, which it is made of: {fair_command()} describe birds")
        count = sum(map(len, table.values()))
        print(f"{title}: {len(classes)} classes, {count} sentences, {number_of_problems(found)}")
        for problem in found:
            print(f"  {problem}")
        status = status or bool(found)
    return int(status)


def number_of_problems(found: Sequence[str]) -> str:
    return "no problem" if not found else f"{len(found)} problem{'s' * (len(found) > 1)}"


def _chosen(args: argparse.Namespace) -> Iterator[tuple[str, Path, list[str], Kind]]:
    """(title, file, classes, kind) of each file to check."""
    if args.classes:
        if not args.file or args.names:
            raise UserError("--classes goes with --file alone: check --file mine.json --classes mine.txt")
        yield str(args.file), args.file, read_classes(args.classes), kind_named(args.kind)
        return
    if args.kind:
        raise UserError("--kind goes with --classes: data sets of ours have their own")
    if args.file and len(args.names) != 1:
        raise UserError("--file goes with one data set: check stanford_cars --file mine.json (or with --classes)")
    for name in args.names or KINDS:
        kind = kind_of(name)
        path = args.file or DESCRIPTIONS / f"{name}.json"
        yield name if not args.file else f"{path}, {name}", path, [c for c, _ in class_list(kind.folder)], kind


def kind_named(word: str) -> Kind:
    """The kind of classes of one's own, which sentences may call by this word (or, if none is given, not at all)."""
    return Kind(kinds=frozenset(_words(word)))


def kind_of(name: str) -> Kind:
    """The kind of a data set of ours."""
    if name not in KINDS:
        raise UserError(
            f"these rules are not for the descriptions of '{name}' (those of synth_cars are drawn with it). Choose "
            f"from: {', '.join(KINDS)}"
        )
    return KINDS[name]


def read_classes(path: Path) -> list[str]:
    """The class names in a text file: a class a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}, which should be a text file with a class a line: {error}") from error
    classes = [line.strip() for line in lines if line.strip()]
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise UserError(f"{path} names a class twice: {few(twice)}")
    if not classes:
        raise UserError(f"{path} is empty. It should have a class a line.")
    return classes
