"""A whole cluster under random faults, seed by seed."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from tests import simulate as program
from tests.support.history import Broken, History
from tests.support.lease_history import LeaseHistory
from tests.support.simulation import Trace, simulate

SEEDS = 200
UNHEARD_SEEDS = 50
WORKERS_SEEDS = 40
BLOCK = 5


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_every_invariant_holds_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + BLOCK):
        assert simulate(seed).tell


@pytest.mark.parametrize("first", range(0, UNHEARD_SEEDS, BLOCK))
def test_every_invariant_holds_for_queues_that_hold_or_wait(first: int) -> None:
    for seed in range(first, first + BLOCK):
        assert simulate(seed, unheard=True).tell


@pytest.mark.parametrize("first", range(0, WORKERS_SEEDS, BLOCK))
def test_every_invariant_holds_for_what_workers_take(first: int) -> None:
    for seed in range(first, first + BLOCK):
        assert simulate(seed, pulled=True).tell


@pytest.mark.parametrize("first", range(0, WORKERS_SEEDS // 2, BLOCK))
def test_every_invariant_holds_for_what_workers_take_from_queues_that_hold_or_wait(first: int) -> None:
    for seed in range(first, first + BLOCK):
        assert simulate(seed, unheard=True, pulled=True).tell


def test_workers_hold_leases_extend_them_and_lose_some() -> None:
    """Else that nothing is wrong would prove nothing."""
    seen: list[LeaseHistory] = []
    check = LeaseHistory.check

    def keep(history: LeaseHistory) -> None:
        seen.append(history)
        check(history)

    with mock.patch.object(LeaseHistory, "check", keep):
        for seed in range(5):
            simulate(seed, pulled=True)
    held = [one for history in seen for some in history.held.values() for one in some]
    assert len(held) > 100
    assert sum(history.extended for history in seen) > 100
    assert len({one.node for one in held}) >= 3
    assert sum(one.claimed and one.recorded for one in held) > 10
    assert sum(len(some) > 1 for history in seen for some in history.held.values()) > 10


@pytest.mark.parametrize("pulled", [False, True])
def test_a_seed_tells_the_same_story_every_time(pulled: bool) -> None:
    first, second = Trace(), Trace()
    for trace in (first, second):
        simulate(3, trace, pulled=pulled)
    assert len(first.lines) > 100
    assert first.lines == second.lines


@pytest.mark.parametrize("more", [[], ["--workers"]])
def test_a_seed_tells_the_same_story_in_every_process(more: list[str]) -> None:
    """Whatever the order of its sets."""
    told = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulate", "--seed", "5", *more],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1
    assert b"give" in told.pop(), "shards move"


def test_to_be_told_changes_nothing() -> None:
    histories: list[History] = []
    check = History.check

    def keep(history: History) -> None:
        histories.append(history)
        check(history)

    with mock.patch.object(History, "check", keep):
        simulate(4)
        simulate(4, Trace())
    silent, told = histories
    assert silent.runs == told.runs
    assert silent.accepted == told.accepted
    assert [change.version for change in silent.changes] == [change.version for change in told.changes]


def test_the_program_names_the_seed_of_a_violation(capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.object(History, "check", side_effect=Broken("C0: made up")):
        figures, broken = program.run_block(range(7, 9))
        assert not program.tell(8)
    assert figures == []
    assert broken == ["seed 7: C0: made up", "seed 8: C0: made up"]
    told = capsys.readouterr().out
    assert "accepted: " in told
    assert told.endswith("seed 8: C0: made up\n")


def test_the_program_runs_seeds_on_several_processes(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.run_all(range(2), 2)
    assert capsys.readouterr().out.startswith("2 seeds in ")
