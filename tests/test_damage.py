"""Some damage of each kind in every suite; any amount of it by `python tests/damage.py --cases N`."""

import pytest
from damage import campaign
from damage_kinds import KINDS

CASES = 20


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.name) for kind in KINDS])
def test_damage_is_said_or_does_no_harm(kind):
    assert not campaign(kind, CASES)
