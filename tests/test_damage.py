"""Some damage of each kind in every suite; any amount of it by `python tests/damage.py --cases N`."""

import os
import re

import pytest
from damage import campaign
from damage_kinds import KINDS, Kind, writes

CASES = 20


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_damage_is_said_or_does_no_harm(kind):
    assert not campaign(kind, CASES // 3 if kind.slow else CASES)


@pytest.mark.parametrize(
    "read, exact, what",
    [
        (lambda folder: {"a": 1}[(folder / "file").read_text()], False, "KeyError|UnicodeDecodeError"),
        (lambda folder: (folder / "file").read_bytes(), True, "another result"),
        (lambda folder: (folder.parent / "elsewhere").touch(), False, "outside the folder: {'elsewhere'}"),
        (lambda folder: os._exit(3) if (folder / "file").read_bytes() != b"a" else None, False, "status 768"),
        (lambda folder: bytearray(2**34), False, "MemoryError"),
    ],
)
def test_the_campaign_sees_what_is_wrong(read, exact, what):
    failures = campaign(Kind("wrong", writes("file", "a"), read, exact), 5)
    assert failures and all(re.search(what, str(failure)) for failure in failures)
