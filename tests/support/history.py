"""What happened in a simulated cluster, and the invariants that every history has to satisfy.

C1 accepted and lost = 0. C2 no run of a task that was never submitted, or was cancelled before it. C3 every extra run
is explained. C4 never early. C6 fences grow, no result under an old one. C7 one owner a shard, and only it fires.
C8 terminal is final. Each check names the task and what is wrong with it.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from actors.core.changes import STEPS
from actors.core.events import Change, Verdict
from actors.core.inherited import OVERRUN_MS
from actors.core.task import TERMINAL, State
from storage.memory import MemoryDatabase
from storage.memory.rows import Row
from tests.support.scripted import Run

DEADLINE_MS = 10_000
"""Of every attempt in a simulation."""
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
        self._history.ends[task_id].append(End(self._history.now_ms(), row.state, row.rev, row.result))


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
    runs: list[tuple[Run, Verdict]] = field(default_factory=list)
    ends: dict[str, list[End]] = field(default_factory=lambda: defaultdict(list))
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database.finished = Finished(self)

    def now_ms(self) -> float:
        """The primary's clock."""
        return self.database.clock_ms()

    def ran(self, run: Run, verdict: Verdict, boot: str, shard: int) -> None:
        """An attempt's request goes out: only the shard's owner may do that (C7)."""
        row = self.database.shards[shard]
        if (row.owner, row.epoch) != (boot, run.epoch):
            raise Broken(f"C7: {run} was fired by {boot}, but shard {shard} is {row}")
        self.runs.append((run, verdict))

    def check(self) -> None:
        """Raises Broken."""
        by_task: dict[str, list[tuple[Run, Verdict]]] = defaultdict(list)
        for run, verdict in self.runs:
            by_task[run.id].append((run, verdict))
        self.nothing_is_lost()
        for key, ids in self.keys.items():
            if len(ids) > 1:
                raise Broken(f"C2: key {key} stands for {ids}")
        for task_id, runs in by_task.items():
            self._runs_are_due(task_id, runs)
            self._runs_are_explained(task_id, runs)
        for task_id, ends in self.ends.items():
            self._ends_are_final(task_id, ends, by_task[task_id])
        self._what_was_published_was_committed()

    def nothing_is_lost(self) -> None:
        """C1, once everything has had its time."""
        for task_id, payload in self.accepted.items():
            if task_id not in self.database.finished:
                raise Broken(f"C1: {task_id} ({payload!r}) never ended: {self.database.row(task_id)}")
        if left := list(self.database.live.all()):
            raise Broken(f"C1: never ended: {left}")

    def _runs_are_due(self, task_id: str, runs: list[tuple[Run, Verdict]]) -> None:
        cancelled_ms = float("inf") if task_id in self.redriven else self.cancelled_ms.get(task_id, float("inf"))
        for run, _ in runs:
            if run.payload not in self.submitted:
                raise Broken(f"C2: {run} was never submitted")
            if run.at_ms > cancelled_ms:
                raise Broken(f"C2: {run} after its cancel was answered at {cancelled_ms}")
            if run.at_ms < run.schedule_ms and task_id not in self.hurried:
                raise Broken(f"C4: {run} is early by {run.schedule_ms - run.at_ms} ms")

    def _runs_are_explained(self, task_id: str, runs: list[tuple[Run, Verdict]]) -> None:
        for (before, verdict), (after, _) in pairwise(runs):
            if before.fence >= after.fence:
                raise Broken(f"C6: {after} after {before}")
            timed_out = after.started_ms - before.started_ms >= DEADLINE_MS + OVERRUN_MS
            explained = before.epoch < after.epoch or verdict in RERUN or timed_out or task_id in self.redriven
            if not explained:
                raise Broken(f"C3: {after} although {before} ended with {verdict.name}")

    def _ends_are_final(self, task_id: str, ends: list[End], runs: list[tuple[Run, Verdict]]) -> None:
        if task_id in self.redriven:
            return
        if len(ends) > 1:
            raise Broken(f"C8: {task_id} ended more than once: {ends}")
        (end,) = ends
        for run, _ in runs:
            if run.at_ms > end.at_ms:
                raise Broken(f"C8: {run} after {end}")
        if end.state is State.SUCCEEDED and (not runs or end.result != runs[-1][0].fence.encode()):
            raise Broken(f"C6: {task_id} ended with the result of {end.result!r}, its runs are {runs}")

    def _what_was_published_was_committed(self) -> None:
        committed = {(task_id, end.state, end.rev) for task_id, ends in self.ends.items() for end in ends}
        for change in self.changes:
            if change.state in TERMINAL and (change.id, change.state, change.version // STEPS) not in committed:
                raise Broken(f"C8: {change} was published, but never committed")
