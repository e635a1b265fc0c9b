"""Each guard of the protocol, taken away: the simulation notices, within a bounded number of seeds.

The seed that the table knows comes first, so that the test is fast. Whatever changes the timing of the service makes
other histories of all seeds; then the search goes on. `python -m tests.simulate --without GUARD --seeds 0..199` names
the seeds to put down then.
"""

import itertools
from pathlib import Path

import pytest

from tests.support.guards import CAUGHT, LEASED, PATCHES, UNHEARD
from tests.support.history import Broken
from tests.support.simulation import simulate

TRIES = 600
DOCUMENT = Path(__file__).parents[2] / "docs" / "simulation.md"


@pytest.mark.parametrize("guard", CAUGHT)
def test_without(guard: str) -> None:
    with PATCHES[guard]():
        assert any(map(is_broken, itertools.chain([CAUGHT[guard]], range(TRIES))))


@pytest.mark.parametrize("guard", UNHEARD)
def test_without_for_ends_that_nobody_knows(guard: str) -> None:
    with UNHEARD[guard]():
        assert any(is_broken(seed, unheard=True) for seed in range(TRIES))


@pytest.mark.parametrize("guard", LEASED)
def test_without_for_leases(guard: str) -> None:
    with LEASED[guard]():
        assert any(is_broken(seed, pulled=True) for seed in range(TRIES))


def is_broken(seed: int, *, unheard: bool = False, pulled: bool = False) -> bool:
    try:
        simulate(seed, unheard=unheard, pulled=pulled)
    except Broken:
        return True
    return False


def test_the_document_shows_what_is_caught() -> None:
    text = DOCUMENT.read_text()
    assert [guard for guard in [*CAUGHT, *UNHEARD, *LEASED] if f"| {guard} | " not in text] == []


def test_the_document_names_the_guards_that_no_seed_is_known_for() -> None:
    text = DOCUMENT.read_text()
    assert [guard for guard in PATCHES.keys() - CAUGHT.keys() if f"| {guard} |" not in text] == []
