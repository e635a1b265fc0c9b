"""A whole cluster under random faults, seed by seed; and what happens to it when a guard is taken away."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest import mock

import pytest

from actors import clock, membership, probe
from actors.core.errors import Unavailable
from actors.core.events import Record
from actors.ledger import Ledger
from storage.memory import MemoryDatabase
from tests.support.history import Broken, History
from tests.support.simulation import simulate

SEEDS = 80
BLOCK = 10
TRIES = 250
"""Seeds within which a missing guard has to show; the rarest, the fence, shows in one of 30."""


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_invariant_holds_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + BLOCK):
        simulate(seed)


def test_a_seed_tells_the_same_story_every_time() -> None:
    stories: list[History] = []
    check = History.check

    def keep(history: History) -> None:
        stories.append(history)
        check(history)

    with mock.patch.object(History, "check", keep):
        for _ in range(2):
            simulate(3)
    first, second = stories
    assert first.runs == second.runs
    assert first.accepted == second.accepted
    assert [change.version for change in first.changes] == [change.version for change in second.changes]


async def send_once(ledger: Ledger, batch: list[Record]) -> None:
    """As the ledger does it, but an unknown outcome is taken for a success."""
    try:
        await ledger._store.write(ledger._boot(), batch)
    except Unavailable:
        pass
    ledger._tell(batch, {})


WITHOUT: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "the end of a lease": lambda: mock.patch.object(membership, "T_STOP_MS", 1_000_000),
    "the allowance for drift": lambda: mock.patch.object(clock, "DRIFT", 0.0),
    "the probe": lambda: mock.patch.object(probe, "PROBE_LATE_MS", 1_000_000_000),
    "the fence": lambda: mock.patch.object(MemoryDatabase, "owns", return_value=True),
    "looking refusals up": lambda: mock.patch.object(Ledger, "_flush", send_once),
}


@pytest.mark.parametrize("guard", WITHOUT)
def test_without(guard: str) -> None:
    with WITHOUT[guard](), pytest.raises(Broken):
        simulate_all(TRIES)


def simulate_all(seeds: int) -> None:
    for seed in range(seeds):
        simulate(seed)
