"""Each guard of the protocol, taken away: the simulation notices, by a seed that was searched for.

The seeds are of those that hold with the guard in place (`test_simulation.py`). When the simulation has changed, find
others with `python -m tests.simulate --without GUARD --seeds 0..199`.
"""

from pathlib import Path

import pytest

from tests.actors.test_simulation import SEEDS
from tests.support.guards import CAUGHT, PATCHES
from tests.support.history import Broken
from tests.support.simulation import simulate

DOCUMENT = Path(__file__).parents[2] / "docs" / "simulation.md"


@pytest.mark.parametrize("guard", CAUGHT)
def test_without(guard: str) -> None:
    seed, invariant = CAUGHT[guard]
    assert seed < SEEDS, "it is known to hold with the guard"
    with PATCHES[guard](), pytest.raises(Broken, match=f"^seed {seed}: {invariant}: "):
        simulate(seed)


def test_the_document_shows_what_is_caught_and_by_which_seed() -> None:
    text = DOCUMENT.read_text()
    rows = [f"| {guard} | {seed} | {invariant} |" for guard, (seed, invariant) in CAUGHT.items()]
    assert [row for row in rows if row not in text] == []


def test_the_document_names_the_guards_that_no_seed_is_known_for() -> None:
    text = DOCUMENT.read_text()
    assert [guard for guard in PATCHES.keys() - CAUGHT.keys() if f"| {guard} |" not in text] == []
