"""What happened, held against what was promised: the invariants C1 to C8, from what clients were told, what the target
saw, and what the tables say in the end.

    C1 no accepted task is lost, and each ends as its script says    C5 lateness is within the test's bound
    C2 nothing runs that was not submitted, or was cancelled         C6 no write under an old fence; fences only grow
    C3 every further run has a recorded reason                       C7 one owner a shard at a time
    C4 nothing runs early                                            C8 what is over stays over, and is recorded once

All of it ran on one machine: the target's clock and that of the tables are the same, but for what a node's estimate of
the server's clock is wrong by (CLOCK_MS).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg

from actors.core.ids import shard_of
from bench.report import percentile
from bench.scripted import Call
from bench.work import SHARDS

CLOCK_MS = 20.0
OVERLAP_MS = 1_000.0
"""What an owner has begun when it gives its shard away goes on, and may still have to open its connection."""
EXAMPLES = 5
STATES = {2: "succeeded", 3: "dead", 4: "expired", 5: "cancelled"}
ENDS = {"dead": ("dead",), "cancel": ("succeeded", "cancelled")}
"""Script -> how its tasks may end; others succeed."""


class Ended(NamedTuple):
    """A row of `finished`."""

    task_id: str
    state: str
    schedule_ms: int
    finish_ms: int
    epoch: int
    attempt: int


@dataclass(slots=True)
class Tables:
    """What the tables say once nothing is left to do."""

    ended: list[Ended]
    recorded: set[tuple[str, str]]
    """(id, fence) of the attempts that failed or were slow."""


@dataclass(slots=True)
class Verdict:
    """Counts; all that are named in BROKEN must be 0."""

    accepted: int = 0
    lost: int = 0
    otherwise: int = 0
    """Ended otherwise than scripted."""
    strange: int = 0
    """Ran or ended, but nobody was told that they were accepted."""
    cancelled_ran: int = 0
    unexplained: int = 0
    explained: int = 0
    """Ran again after a change of owner."""
    early: int = 0
    stale: int = 0
    """A result was recorded under an older fence than one that had been handed out."""
    backwards: int = 0
    """Fences of a task that did not grow from call to call."""
    two_owners: int = 0
    """Calls under an older epoch than that of an earlier call for the same shard, more than OVERLAP_MS before."""
    overlap_ms: float = 0.0
    """The longest time between two such calls, of `overlaps`; `overlap` tells of it."""
    overlaps: int = 0
    overlap: str = ""
    after_end: int = 0
    """Calls after the task's recorded end, other than that which ended it."""
    twice: int = 0
    """Records of an end beyond the first."""
    lateness_ms: list[float] = field(default_factory=list)
    latest: str = ""
    """What happened to the task whose first call came latest."""
    examples: list[str] = field(default_factory=list)
    """What happened to the first EXAMPLES tasks with which something is wrong."""

    @property
    def broken(self) -> int:
        """How often a promise was broken."""
        return sum(int(getattr(self, name)) for name in BROKEN)

    def late_ms(self, percent: float) -> float:
        """A percentile of the lateness of first calls."""
        return percentile(self.lateness_ms, percent) if self.lateness_ms else 0.0


BROKEN = {
    "lost": "C1 accepted and lost",
    "otherwise": "C1 ended otherwise than scripted",
    "strange": "C2 ran or ended, never accepted",
    "cancelled_ran": "C2 ran after it was cancelled",
    "unexplained": "C3 ran again without a recorded reason",
    "early": "C4 early",
    "stale": "C6 recorded under an old fence",
    "backwards": "C6 fences that did not grow",
    "two_owners": "C7 calls of a former owner after its successor's",
    "after_end": "C8 calls after the recorded end",
    "twice": "C8 recorded twice",
}


def judge(
    accepted: Mapping[str, str],
    cancelled: Mapping[str, float],
    calls: Mapping[str, Sequence[Call]],
    tables: Tables,
) -> Verdict:
    """The verdict. `accepted`: id -> script; `cancelled`: id -> since when a client knew it (ms since 1970)."""
    verdict = Verdict(accepted=len(accepted))
    latest_ms = 0.0
    ended = {row.task_id: row for row in tables.ended}
    verdict.twice = len(tables.ended) - len(ended)
    verdict.strange = len((ended.keys() | calls.keys()) - accepted.keys())
    for task_id, script in accepted.items():
        row, some, before = ended.get(task_id), calls.get(task_id, ()), verdict.broken
        if row is None:
            verdict.lost += 1
        else:
            _end(verdict, script, row, cancelled.get(task_id))
            _runs(verdict, row, some, cancelled.get(task_id), tables.recorded)
            if some and verdict.lateness_ms[-1] > latest_ms:
                latest_ms = verdict.lateness_ms[-1]
                verdict.latest = _story(task_id, script, row, some, cancelled.get(task_id))
        if verdict.broken > before and len(verdict.examples) < EXAMPLES:
            verdict.examples.append(_story(task_id, script, row, some, cancelled.get(task_id)))
    late = overlaps(calls)
    verdict.two_owners = sum(overlap_ms > OVERLAP_MS for overlap_ms, _ in late)
    verdict.overlaps = len(late)
    if late:
        verdict.overlap_ms, task_id = max(late)
        row = ended.get(task_id)
        verdict.overlap = _story(task_id, accepted.get(task_id, "?"), row, calls[task_id], cancelled.get(task_id))
    return verdict


def _story(task_id: str, script: str, row: Ended | None, calls: Sequence[Call], cancelled_ms: float | None) -> str:
    """All that is known of a task, in ms after it was due."""
    if row is None:
        return f"{task_id} {script}: no end; {len(calls)} calls: {', '.join(call.fence for call in calls)}"
    told = "" if cancelled_ms is None else f"; cancelled {cancelled_ms - row.schedule_ms:.0f}"
    seen = ", ".join(f"{call.fence} {call.arrived_ms - row.schedule_ms:.0f}" for call in calls)
    end = f"{row.state} {row.epoch}.{row.attempt} {row.finish_ms - row.schedule_ms}"
    return f"{task_id} {script}: {end}; calls {seen}{told}"


def _end(verdict: Verdict, script: str, row: Ended, cancelled_ms: float | None) -> None:
    wanted = ENDS.get(script, ("succeeded",)) if cancelled_ms is None else ("cancelled",)
    verdict.otherwise += row.state not in wanted


def _runs(
    verdict: Verdict,
    row: Ended,
    calls: Sequence[Call],
    cancelled_ms: float | None,
    recorded: set[tuple[str, str]],
) -> None:
    verdict.early += sum(call.arrived_ms < row.schedule_ms for call in calls)
    if cancelled_ms is not None:
        verdict.cancelled_ran += sum(call.arrived_ms > cancelled_ms for call in calls)
    if calls:
        verdict.lateness_ms.append(calls[0].arrived_ms - row.schedule_ms)
    for before, after in itertools.pairwise(calls):
        verdict.backwards += before.fence >= after.fence
        if (row.task_id, before.fence) in recorded:
            continue
        if epoch_of(before.fence) < epoch_of(after.fence):
            verdict.explained += 1
        else:
            verdict.unexplained += 1
    verdict.stale += any(epoch_of(c.fence) > row.epoch and c.arrived_ms < row.finish_ms - CLOCK_MS for c in calls)
    others = (call for call in calls if (epoch_of(call.fence), call.attempt) != (row.epoch, row.attempt))
    verdict.after_end += sum(call.arrived_ms > row.finish_ms + CLOCK_MS for call in others)


def overlaps(calls: Mapping[str, Sequence[Call]]) -> list[tuple[float, str]]:
    """Of calls that came under an older epoch than one before them in the same shard: ms after that one, and whose."""
    newest: dict[int, tuple[int, float]] = {}
    found = []
    for at_ms, shard, epoch, task_id in history(calls):
        other, since_ms = newest.get(shard, (0, 0.0))
        if epoch < other:
            found.append((at_ms - since_ms, task_id))
        elif epoch > other:
            newest[shard] = epoch, at_ms
    return found


def history(calls: Mapping[str, Sequence[Call]]) -> list[tuple[float, int, int, str]]:
    """All calls in order: when (ms), shard, epoch, task."""
    return sorted(
        (call.arrived_ms, shard_of(task_id, SHARDS), epoch_of(call.fence), task_id)
        for task_id, some in calls.items()
        for call in some
    )


def epoch_of(fence: str) -> int:
    """The epoch in `<timeline>.<epoch>.<attempt>`."""
    return int(fence.split(".", 2)[1])


async def read_tables(dsn: str) -> Tables:
    """What they say now. Raises what asyncpg raises."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        rows = await connection.fetch("SELECT id::text, state, schedule_ms, finish_ms, epoch, attempt FROM finished")
        attempts = await connection.fetch("SELECT id::text, fence FROM attempts")
    finally:
        await connection.close()
    ended = [Ended(row[0], STATES[row[1]], row[2], row[3], row[4], row[5]) for row in rows]
    return Tables(ended, {(row[0], row[1]) for row in attempts})
