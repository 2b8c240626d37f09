"""Let a language model write descriptions of your own classes.

    fair describe generate classes.txt --out mine.json --kind bird --model MODEL

Works with any endpoint that speaks OpenAI's chat completions (https://platform.openai.com/docs/api-reference/chat).
Without one, writes a file to be filled in by hand. Classes that the file has already are left alone, so the same
command goes on where it was stopped.
"""

import argparse
import json
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path

from fairclip.core.bars import bar
from fairclip.core.errors import UserError, few
from fairclip.core.files import atomic
from fairclip.core.invocation import fair_command
from fairclip.core.log import log
from fairclip.data.classes import class_list
from fairclip.describe.check import KINDS, SENTENCES, TOKENS, kind_named, problems, read_classes
from fairclip.describe.endpoint import Endpoint
from fairclip.text.descriptions import read_table

OPENAI = "https://api.openai.com/v1"
NEIGHBOURS = 12  # look-alikes, by name, that a prompt lists
MOST, LONG = 50, 2000  # sentences of an answer, and characters of a sentence, that may still be a mistake
BRACKETS = 1000  # of an answer, in which a list is looked for

SYSTEM = """You describe classes of images for a vision-language model. The model compares each sentence with photos and
with close-ups of parts. You are an expert on the subject, and you write only what is true and can be seen."""

PROMPT = """Class: {name}
{kind}It has to be told apart from: {others}.

Write {count} sentences about what a photograph of this class shows.
- What differs from the look-alikes comes first: shape, proportions, parts, colours and patterns and where they are.
- At least two sentences are about parts that a close-up would show.
- Each sentence stands alone, names the class or its kind, and has 8 to 30 words.
- Only what can be seen: no dates, prices, history, origin, sounds, smells or praise.
- Say what is there, not what is missing.
- Leave out what you are not sure of.

Answer with a JSON list of strings and nothing else."""

AGAIN = """That does not fit: {problems}.
Answer with the whole list again, corrected: a JSON list of strings and nothing else."""


def describe(name: str, classes: Sequence[str], endpoint: Endpoint, kind: str, count: int) -> list[str]:
    """Sentences about one class. A list that breaks the rules is sent back once.

    Raises:
        UserError: the endpoint fails, or the second list is not usable either.
    """
    prompt = PROMPT.format(
        name=name.replace("_", " "),
        kind=f"It is a kind of {kind}.\n" if kind else "",
        count=count,
        others=", ".join(neighbours(name, classes)).replace("_", " ") or "everything else",
    )
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
    for last in (False, True):
        answer = endpoint.ask(messages)
        sentences = parse(answer)
        wrong = ["it is no JSON list of strings"]
        if sentences:
            wrong = list(problems({name: sentences}, [name], kind_named(kind)))
        if not wrong or last and sentences:  # what is wrong still, `check` will say
            return sentences
        messages += [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": AGAIN.format(problems="; ".join(wrong))},
        ]
    raise UserError(f"the answer has no list of sentences: {endpoint.shown(answer[:100])!r}")


def parse(answer: str) -> list[str]:
    """The strings of the longest JSON list in an answer; none if there is no such list, or one that is far too long."""
    lists = []
    for start in islice(re.finditer(r"\[", answer), BRACKETS):  # it may think aloud, with brackets, before and after
        try:
            found, _ = json.JSONDecoder().raw_decode(answer, start.start())
        except (ValueError, RecursionError):
            continue
        if found and all(isinstance(sentence, str) for sentence in found):
            lists.append([text for sentence in found if (text := in_words(sentence))])
    longest = max(lists, key=len, default=[])
    return longest if len(longest) <= MOST and all(len(text) <= LONG for text in longest) else []


def in_words(sentence: str) -> str:
    """Without whatever could steer a terminal, and with single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in sentence).split())


def neighbours(name: str, classes: Sequence[str]) -> list[str]:
    """The classes whose names are most like this one's."""
    others = [other for other in classes if other != name]
    return sorted(others, key=lambda other: -SequenceMatcher(None, name, other).ratio())[:NEIGHBOURS]


# -- The command -------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fair describe generate`."""
    parser.add_argument("classes", metavar="CLASSES", help="a text file, a class a line; or a data set of ours")
    parser.add_argument("--out", type=Path, required=True, help="the file to write; classes it has are left alone")
    parser.add_argument("--kind", default="", help="what they are (bird, car, ...): sentences name it or the class")
    parser.add_argument("--count", type=int, default=6, help="sentences a class (default: 6)")
    parser.add_argument("--base-url", default="", help=f"of the endpoint; default $OPENAI_BASE_URL, or {OPENAI}")
    parser.add_argument("--model", default="", help="default $OPENAI_MODEL")
    parser.add_argument("--key", default="", help="default $OPENAI_API_KEY, which keeps it out of the process list")
    parser.add_argument("--jobs", type=int, default=4, help="requests at a time (default: 4)")


def main(args: argparse.Namespace) -> int:
    """Exit status: 0, or 1 if some classes could not be described. What was described is kept."""
    if not SENTENCES[0] <= args.count <= SENTENCES[1]:
        raise UserError(f"--count {args.count}: choose {SENTENCES[0]} to {SENTENCES[1]} sentences")
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: choose 1 or more")
    classes = read_classes(Path(args.classes)) if Path(args.classes).is_file() else _classes_of(args.classes)
    table = read_table(args.out) if args.out.exists() else {}
    key = args.key or os.environ.get("OPENAI_API_KEY", "")
    url = args.base_url or os.environ.get("OPENAI_BASE_URL", "") or (OPENAI if key else "")
    if not url and args.model:
        raise UserError("--model needs an endpoint: set OPENAI_API_KEY, or give --base-url")
    if not url:
        return _write_form(args.out, table, classes, args.count)
    model = args.model or os.environ.get("OPENAI_MODEL", "")
    if not model:
        raise UserError("which model? Give --model or set OPENAI_MODEL.")
    return _generate(args, table, classes, Endpoint(url, model, key))


def _classes_of(name: str) -> list[str]:
    """The class names of a data set of ours."""
    if name not in KINDS:
        raise UserError(f"{name} is neither a text file (a class a line) nor one of our data sets: {', '.join(KINDS)}")
    return [classname for classname, _ in class_list(KINDS[name].folder)]


def _write_form(out: Path, table: dict[str, list[str]], classes: Sequence[str], count: int) -> int:
    """Write a file with blanks to fill in by hand."""
    lacking = [name for name in classes if not table.get(name)]
    _write(out, table | {name: [""] * count for name in lacking}, classes)
    log.info(
        f"No endpoint is given (--base-url or OPENAI_BASE_URL, OPENAI_API_KEY), so fill in {out} by hand:\n"
        f"{count} sentences of fewer than {TOKENS} tokens for each of {len(lacking)} classes, by the rules in\n"
        "docs/descriptions.md. A class that stays blank will be known by its name alone."
    )
    return 0


def _generate(args: argparse.Namespace, table: dict[str, list[str]], classes: Sequence[str], endpoint: Endpoint) -> int:
    lacking = [name for name in classes if not table.get(name)]
    failed: dict[str, str] = {}
    pool = ThreadPoolExecutor(args.jobs)
    try:
        jobs = {pool.submit(describe, name, classes, endpoint, args.kind, args.count): name for name in lacking}
        for job in bar(as_completed(jobs), "describing", "class", total=len(jobs)):
            try:
                table[jobs[job]] = job.result()
            except Exception as error:  # whatever is wrong with this answer, the others count
                failed[jobs[job]] = str(error) if isinstance(error, UserError) else endpoint.shown(repr(error))
                if len(failed) >= args.jobs and not any(table.get(name) for name in lacking):
                    break  # nothing works: do not try all others
                continue
            _write(args.out, table, classes)  # every time: a stop loses what is under way, no more
    finally:
        pool.shutdown(cancel_futures=True)
    done = len([name for name in lacking if name in table and name not in failed])
    log.info(f"{args.out}: {len(table)} of {len(classes)} classes, {done} of them new")
    new = {name: table[name] for name in lacking if table.get(name)}
    if breaks := len(list(problems(new, list(new), kind_named(args.kind)))):
        log.warning(
            f"the new sentences break the rules in {breaks} places: {fair_command()} describe check shows where"
        )
    if failed:
        reason = next(iter(failed.values()))
        missing = [name for name in lacking if not table.get(name)]
        log.warning(f"not described: {few(missing, 10)}. The first because: {reason}\nRun the command again to go on.")
    return int(bool(failed))


def _write(out: Path, table: dict[str, list[str]], classes: Sequence[str]) -> None:
    """The table in the order of the classes, then what else it has."""
    order = [name for name in classes if name in table] + [name for name in table if name not in classes]
    try:
        with atomic(out) as path:
            path.write_text(
                json.dumps({name: table[name] for name in order}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from error
