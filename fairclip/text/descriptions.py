"""Description files: which file is a data set's, and which key of it means which class."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fairclip.core.errors import UserError, few
from fairclip.core.log import log
from fairclip.core.places import DESCRIPTIONS
from fairclip.core.reading import parse_json, read_text, reading

LONGEST = 10_000  # characters of a sentence: CLIP reads the first few hundred
ALIASES = {"DescribableTextures": "dtd"}  # data sets better known by another name than their registry's

# Names of one class that no rule connects: ours first, then those of OpenAI's CLIP (data/prompts.md in its repository),
# which CuPL's files have too, of folders, and of bird lists.
SPELLINGS = (
    ("ball moss", "air plant"),
    ("pink-yellow dahlia", "pink and yellow dahlia"),
    ("barbeton daisy", "barberton daisy"),
    ("face", "centered face", "faces", "faces easy"),
    ("leopard", "leopards"),
    ("motorbike", "motorbikes"),
    ("airplane", "airplanes"),
    ("car side", "side of a car"),
    ("cougar body", "body of a cougar cat"),
    ("cougar face", "face of a cougar cat"),
    ("crocodile head", "head of a crocodile"),
    ("flamingo head", "head of a flamingo"),
    ("snoopy", "snoopy (cartoon beagle)"),
    ("yin yang", "yin and yang symbol"),
    ("Annual Crop Land", "AnnualCrop"),
    ("Permanent Crop Land", "PermanentCrop"),
    ("Pasture Land", "Pasture"),
    ("Herbaceous Vegetation Land", "HerbaceousVegetation", "brushland or shrubland"),
    ("Highway or Road", "Highway"),
    ("Industrial Buildings", "Industrial", "industrial buildings or commercial buildings"),
    ("Residential Buildings", "Residential", "residential buildings or homes or apartments"),
    ("Sea or Lake", "SeaLake"),
    ("Artic Tern", "Arctic Tern"),
    ("Cardinal", "Northern Cardinal"),
    ("Florida Jay", "Florida Scrub Jay"),
    ("Frigatebird", "Magnificent Frigatebird"),
    ("Geococcyx", "Greater Roadrunner"),
    ("Mockingbird", "Northern Mockingbird"),
    ("Nelson Sharp tailed Sparrow", "Nelsons Sparrow"),
    ("Nighthawk", "Common Nighthawk"),
    ("Tree Sparrow", "American Tree Sparrow"),
    ("White Pelican", "American White Pelican"),
)


def find_descriptions(path: str, dataset: Any) -> Path | None:
    """The description file of a Dassl data set object.

    In this order: `path` if given, the data set's attribute `descriptions_file`, the file in `descriptions/` named like
    the data set (`stanford_cars.json` for `StanfordCars`), or None.

    Raises:
        UserError: `path` or the attribute names a file that does not exist.
    """
    if given := path or getattr(dataset, "descriptions_file", None):
        file = Path(given).expanduser()
        if not file.is_file():
            raise UserError(f"the description file {file} does not exist")
        return file
    name = type(dataset).__name__
    wanted = letters(ALIASES.get(name, name))
    return next((file for file in sorted(DESCRIPTIONS.glob("*.json")) if letters(file.stem) == wanted), None)


def load_descriptions(path: str | Path, classnames: Sequence[str]) -> list[list[str]]:
    """Read a JSON file {class: [sentence, ...]} and return the sentences of each class, in the order of `classnames`.

    The files of CuPL (arXiv 2209.03320) and LaFTer (arXiv 2305.18287) are read as they are: `match_names` says which
    class a key means, their order does not matter. Classes without descriptions get an empty list and, like keys
    without a class, one warning.

    Raises:
        UserError: unreadable file, another structure, or fewer than half of the classes found.
    """
    table = read_table(Path(path))
    keys = match_names(classnames, table)
    lists = [table[keys[name]] if name in keys else [] for name in classnames]
    lacking = [name for name, sentences in zip(classnames, lists, strict=True) if not sentences]
    if 2 * len(lacking) > len(classnames):
        raise UserError(
            f"{path} has descriptions for {len(classnames) - len(lacking)} of {len(classnames)} classes. "
            f"Without: {few(lacking, 10)}. Its keys: {few(list(table), 5)}. "
            "Is it the file of another data set? If not, name its keys like the classes."
        )
    if lacking:
        log.warning(f"no descriptions for {few(lacking, 10)} in {path}: their name prompts are used alone")
    if extra := [key for key in table if key not in keys.values()]:
        log.warning(f"{path} describes what is no class of this data set: {few(extra, 3)}")
    return lists


def read_table(path: Path) -> dict[str, list[str]]:
    """The content of a description file. Empty strings, as in a file yet to be filled in, are left out.

    Raises:
        UserError: unreadable file, or another structure.
    """
    text = read_text(path, "a description file")
    with reading(path, "a description file"):
        pairs = parse_json(text, list)
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise UserError(f"the description file {path} must be an object {{class: [sentence, ...]}}")
    table = dict(pairs)
    if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
        raise UserError(f"the description file {path} names a class twice: {few(twice)}")
    for key, sentences in table.items():
        if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
            raise UserError(f"the description file {path} must give '{key}' a list of sentences")
        if any(len(sentence) > LONGEST for sentence in (key, *sentences)):
            raise UserError(f"the description file {path} has texts of more than {LONGEST:,} characters ({key[:40]!r})")
    return {key: [s for s in sentences if s.strip()] for key, sentences in table.items()}


# -- Which key means which class ---------------------------------------------------------------------------------------


def match_names(names: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """Pair each name with the one key that means it, if there is one.

    That is the key of the same name; failing that, the same but for case, spaces and punctuation; of the same words in
    another order ("Audi S4 2012" and "2012 Audi S4"), slashes within them aside ("C/V" and "CV"); the same but for
    plural and possessive endings; of another spelling that is known (`SPELLINGS`); the same but for accents. A match
    that is not unique is none.
    """
    names, keys = set(names), set(keys)
    pairs: dict[str, str] = {}
    for form in (str, letters, _words, _closed_words, _stems, _common_spelling, bare_letters):
        left, right = _group(names - pairs.keys(), form), _group(keys - set(pairs.values()), form)
        pairs |= {left[f][0]: right[f][0] for f in left if f and len(left[f]) == len(right.get(f, ())) == 1}
    return pairs


def _group(names: Iterable[str], form: Callable[[str], Hashable]) -> dict[Hashable, list[str]]:
    groups = defaultdict(list)
    for name in names:
        groups[form(name)].append(name)
    return groups


def letters(name: str) -> str:
    """A name without case, spaces and punctuation, in Unicode's form C: however a disk or a list writes "Café"."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", name).casefold())


def bare_letters(name: str) -> str:
    """The same without accents: "skodaoctavia" for "Škoda Octavia"."""
    return "".join(c for c in unicodedata.normalize("NFD", letters(name)) if not unicodedata.combining(c))


def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(re.findall(r"[^\W_]+", unicodedata.normalize("NFC", name).casefold())))


def _closed_words(name: str) -> tuple[str, ...]:
    """Words without the slashes and full stops in them: "Ram C/V Cargo Van" has "cv"."""
    return _words(re.sub(r"(?<=\w)[/.](?=\w)", "", name))


def _stems(name: str) -> tuple[str, ...]:
    """ "Brewer's Blackbird", "Brewers Blackbird" and "Brewer Blackbird" are one; so are grey and gray."""
    return _words(re.sub(r"s+\b", "", re.sub(r"['’]", "", name.casefold().replace("_", " ")).replace("grey", "gray")))


def _common_spelling(name: str) -> str:
    return _COMMON_SPELLING.get(letters(name), letters(name))


_COMMON_SPELLING = {letters(name): letters(group[0]) for group in SPELLINGS for name in group}
