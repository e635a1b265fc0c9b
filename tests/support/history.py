"""What happened in a simulated cluster, and the invariants that every history has to satisfy.

C1 accepted and lost = 0. C2 no run of a task that was never submitted, or was cancelled before it. C3 every extra run
is explained, as its queue wants it. C4 never early. C5 once all is well, tasks are punctual. C6 fences grow, no result
under an old one. C7 one owner a shard, and only it fires. C8 terminal is final. Each check names the task and what is
wrong with it.

Times are virtual milliseconds since the beginning: no step of the primary's clock moves them.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from actors.core.changes import STEPS
from actors.core.events import Change, Verdict
from actors.core.inherited import OVERRUN_MS
from actors.core.queue import Unheard
from actors.core.task import TERMINAL, State
from actors.membership import T_STOP_MS
from storage.memory import MemoryDatabase
from storage.memory.rows import Row
from tests.support.lease_history import LeaseHistory, Wrong
from tests.support.scripted import Run

DEADLINE_MS = 6_000
"""Of every attempt in a simulation."""
TIMED_OUT_MS = 0.85 * (DEADLINE_MS + OVERRUN_MS) - T_STOP_MS
"""An owner whose clock is being corrected, and whose request went out as late as its lease allows, sees no more of an
attempt's limit.
"""
RERUN = frozenset({Verdict.FAILED, Verdict.LATER, Verdict.LOST})
"""Ends of an attempt after which its task may run again under the same owner."""


class Broken(AssertionError):
    """An invariant does not hold."""


class Finished(dict[str, Row]):
    """The table `finished`, which also remembers when and how each task ended."""

    def __init__(self, history: "History") -> None:
        super().__init__()
        self._history = history

    def __setitem__(self, task_id: str, row: Row) -> None:
        super().__setitem__(task_id, row)
        self._history.ends[task_id].append(End(time_ms(), row.state, row.rev, row.result))


def time_ms() -> float:
    """Now."""
    return asyncio.get_running_loop().time() * 1_000


@dataclass(slots=True, frozen=True)
class Ran:
    """An attempt whose request went out, and how the script lets it end."""

    run: Run
    verdict: Verdict
    at_ms: float
    boot: str
    again: bool
    """The attempt before it is lost: its boot is dead, or its shard's own code failed there."""


@dataclass(slots=True)
class End:
    """A commit that ended a task."""

    at_ms: float
    state: State
    rev: int
    result: bytes | None


@dataclass
class History:
    """Filled while the cluster runs; `check` at the end."""

    database: MemoryDatabase
    leases: LeaseHistory
    submitted: set[bytes] = field(default_factory=set)
    """Payloads: each draft has its own."""
    accepted: dict[str, bytes] = field(default_factory=dict)
    """Id -> payload, of what was answered with a receipt."""
    keys: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Idempotency key -> ids that it was answered with."""
    cancelled_ms: dict[str, float] = field(default_factory=dict)
    """When a cancel was answered."""
    hurried: set[str] = field(default_factory=set)
    """Tasks that may run before their time: somebody asked for it."""
    redriven: set[str] = field(default_factory=set)
    decided: set[tuple[str, str]] = field(default_factory=set)
    """(id, fence) of held attempts of which somebody said that they had failed."""
    runs: list[Ran] = field(default_factory=list)
    crashed: set[str] = field(default_factory=set)
    """Boots on which a shard's own code failed."""
    behind_ms: float = 0.0
    """How far the primary's clock was set back since it was furthest: nodes may not know yet."""
    ends: dict[str, list[End]] = field(default_factory=lambda: defaultdict(list))
    changes: list[Change] = field(default_factory=list)

    _last: dict[str, str] = field(default_factory=dict)
    """Id -> boot of its last run."""

    def __post_init__(self) -> None:
        self.database.finished = Finished(self)

    def ran(self, run: Run, verdict: Verdict, boot: str, shard: int) -> None:
        """An attempt's request goes out: only the shard's owner may do that (C7), and not before its time (C4)."""
        row = self.database.shards[shard]
        if (row.owner, row.epoch) != (boot, run.epoch):
            raise Broken(f"C7: {run} was fired by {boot}, but shard {shard} is {row}")
        early_ms = run.schedule_ms - run.at_ms - self.behind_ms
        if early_ms > 0 and run.id not in self.hurried:
            raise Broken(f"C4: {run} is early by {early_ms} ms")
        before = self._last.get(run.id)
        again = before is not None and (before in self.crashed or not self.database.is_up(before))
        self._last[run.id] = boot
        self.runs.append(Ran(run, verdict, time_ms(), boot, again))

    def check(self) -> None:
        """Raises Broken."""
        by_task: dict[str, list[Ran]] = defaultdict(list)
        for ran in self.runs:
            by_task[ran.run.id].append(ran)
        self.nothing_is_lost()
        for key, ids in self.keys.items():
            if len(ids) > 1:
                raise Broken(f"C2: key {key} stands for {ids}")
        for task_id, runs in by_task.items():
            self._runs_are_wanted(task_id, runs)
            self._runs_are_explained(task_id, runs)
        for task_id, ends in self.ends.items():
            self._ends_are_final(task_id, ends, by_task[task_id])
        self.leases.redriven = self.redriven
        try:
            self.leases.check()
        except Wrong as wrong:
            raise Broken(str(wrong)) from None
        self._what_was_published_was_committed()

    def nothing_is_lost(self) -> None:
        """C1, once everything has had its time."""
        for task_id, payload in self.accepted.items():
            if task_id not in self.database.finished:
                raise Broken(f"C1: {task_id} ({payload!r}) never ended: {self.database.row(task_id)}")
        if left := list(self.database.live.all()):
            raise Broken(f"C1: never ended: {left}")

    def are_punctual(self, ids: set[str], late_ms: float) -> None:
        """C5: each of these tasks first ran, or was given up, within this time; they were due at once."""
        first: dict[str, Run] = {}
        for ran in self.runs:
            first.setdefault(ran.run.id, ran.run)
        for task_id in sorted(ids):
            run = first.get(task_id)
            if run is None or run.at_ms - run.schedule_ms > late_ms:
                raise Broken(f"C5: {task_id} was late although all is well: {run} {self.database.row(task_id)}")

    def _runs_are_wanted(self, task_id: str, runs: list[Ran]) -> None:
        cancelled_ms = float("inf") if task_id in self.redriven else self.cancelled_ms.get(task_id, float("inf"))
        for ran in runs:
            if ran.run.payload not in self.submitted:
                raise Broken(f"C2: {ran} was never submitted")
            if ran.at_ms > cancelled_ms:
                raise Broken(f"C2: {ran} after its cancel was answered at {cancelled_ms}")

    def _runs_are_explained(self, task_id: str, runs: list[Ran]) -> None:
        for before, after in pairwise(runs):
            if before.run.fence >= after.run.fence:
                raise Broken(f"C6: {after} after {before}")
            explained = before.verdict in RERUN or self._may_be_lost(before, after)
            if not explained and task_id not in self.redriven:
                raise Broken(f"C3: {after} although {before} ended with {before.verdict.name}")

    def _may_be_lost(self, before: Ran, after: Ran) -> bool:
        """Whether its task may run again because nobody knew how this attempt ended."""
        row = self.database.row(before.run.id)
        assert row is not None
        timed_out = after.at_ms - before.at_ms >= TIMED_OUT_MS
        match self.database.queues[row.queue_id].unknown:
            case Unheard.HOLD:
                return (before.run.id, before.run.fence) in self.decided
            case Unheard.WAIT_DEADLINE:
                return timed_out
        return after.again or timed_out

    def _ends_are_final(self, task_id: str, ends: list[End], runs: list[Ran]) -> None:
        if task_id in self.redriven:
            return
        if len(ends) > 1:
            raise Broken(f"C8: {task_id} ended more than once: {ends}")
        (end,) = ends
        for ran in runs:
            if ran.at_ms > end.at_ms:
                raise Broken(f"C8: {ran} after {end}")
        if task_id in self.leases.held:
            return
        if end.state is State.SUCCEEDED and (not runs or end.result != runs[-1].run.fence.encode()):
            raise Broken(f"C6: {task_id} ended with the result of {end.result!r}, its runs are {runs}")

    def _what_was_published_was_committed(self) -> None:
        committed = {(task_id, end.state, end.rev) for task_id, ends in self.ends.items() for end in ends}
        for change in self.changes:
            if change.state in TERMINAL and (change.id, change.state, change.version // STEPS) not in committed:
                raise Broken(f"C8: {change} was published, but never committed")
