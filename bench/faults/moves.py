"""A node joins and leaves (SIGTERM) again and again, then each node is restarted in turn: planned moves.

The pause of a shard is the time from the last call before it changed its owner to the first by the successor, in shards
that have a pulse (`bench/pulse.py`).
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import time

from actors.core.ids import shard_of
from bench.faults.rows import at_most, ending, some, spread, told, zero
from bench.owners import Owners
from bench.pulse import PROBED, Pulse, pauses_ms
from bench.pulse import RATE_HZ as PULSE_HZ
from bench.report import Options, Row
from bench.scene import Scene, scene
from bench.scripted import WITH_FAULTS, Call
from bench.verdict import Ended
from bench.work import SHARDS

STEADY = "abc"
GUEST = "d"
RATE_HZ = 200.0
SPAN_S = 4
BEFORE_S = 6
PERIOD_S = 5.0
AFTER_S = 15
PAUSE_S = 0.5
LATE_S = 5.0
NEAR_MS = 1_000.0
"""A task that is due so near to the change of owner of its shard may have felt it."""
SHARE = 1.5
UNEVEN = 1.15
NO_GOAL = float("inf")
GOALS: dict[float, float] = {50: NO_GOAL, 99: PAUSE_S, 100: NO_GOAL}


@dataclass(slots=True)
class Seen:
    """What was measured."""

    changes: list[tuple[float, int]] = field(default_factory=list)
    """(when a node was told to join or to leave, how many there are with it)."""
    joins: int = 0
    """Of the guest, and it got shards."""
    left_s: list[float] = field(default_factory=list)
    """From SIGTERM to the end of the process."""
    placed_s: list[float] = field(default_factory=list)
    """From when a restarted node listened to when all shards were where they belong."""
    last_ms: float = 0.0
    """When the last one listened."""

    def change(self, nodes: int) -> float:
        """One begins now."""
        now_ms = time() * 1e3
        self.changes.append((now_ms, nodes))
        return now_ms


async def run(options: Options) -> list[Row]:
    """Measures it."""
    seen, after_s = Seen(), options.size(AFTER_S, 0)
    async with scene(len(STEADY), scripts=WITH_FAULTS, span_s=options.size(SPAN_S, 1)) as here:
        owners = Owners(here.dsn)
        pulse = Pulse(replace(here.traffic.plan, scripts={"ok": 1}, queue="pulse"), here.traffic.ports)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(owners.run())
            await owners.placed(STEADY)
            owners.unowned.clear()
            load = group.create_task(here.traffic.run(options.rate_hz or RATE_HZ, 1 << 40))
            beating = group.create_task(pulse.run(PULSE_HZ, 1 << 40, batch=len(PROBED)))
            await asyncio.sleep(options.size(BEFORE_S, 3))
            await _changes(options, here, owners, seen)
            pulse.over = True
            await asyncio.sleep(max(0.0, seen.last_ms / 1e3 + after_s - time()))
            held, after_ms = Counter(owned.name for owned in owners.shards.values()), time() * 1e3
            await asyncio.sleep(options.size(30, 2))
            until_ms = time() * 1e3
            here.traffic.over = True
            await load
            await beating
            here.traffic.accepted |= pulse.accepted
            await here.settled(LATE_S * 4)
            watching.cancel()
        rows = await ending(here, "moves", LATE_S)
        verdict, tables = await here.judged()
        counted = await here.nodes.counters()
    calls = here.target.calls
    others = {task_id: some for task_id, some in calls.items() if task_id not in pulse.accepted}
    called = _called(others, owners, after_ms, until_ms)
    return [
        some("moves: times that a node came and got shards", seen.joins, "times"),
        zero("moves: extra runs because of a move", verdict.explained, "calls"),
        zero("moves: shards that were seen without an owner", len(owners.unowned), "shards"),
        zero("moves: boots that found themselves dead", counted["ringwheel_rejoins"], "boots"),
        *_pauses([pause_ms / 1e3 for pause_ms in pauses_ms(calls, pulse.accepted)]),
        *spread("moves: lateness of what was due near a move", _late_s(tables.ended, calls, owners, seen), GOALS),
        *_shares(owners, seen, after_ms),
        *spread("moves: from SIGTERM to the end", seen.left_s, {50: NO_GOAL, 100: NO_GOAL}),
        *spread("moves: all shards in place after a restart", seen.placed_s, {100: AFTER_S}),
        at_most("moves: shards, max/mean 15 s after the last change", _uneven(held), UNEVEN, ""),
        at_most("moves: calls, max/mean from then on", _uneven(called), UNEVEN, ""),
        *rows,
    ]


async def _changes(options: Options, here: Scene, owners: Owners, seen: Seen) -> None:
    rounds, restarted = options.size(18, 1), STEADY[: options.size(3, 1)]
    with options.steps("moves", 2 * rounds + len(restarted)) as steps:
        for _ in range(rounds):
            steps.begin("join")
            await _join(here, owners, seen)
            steps.done()
            steps.begin("leave")
            await _leave(here, seen)
            steps.done()
        for name in restarted:
            steps.begin(f"restart {name}")
            await _restart(here, owners, seen, name)
            steps.done()


async def _join(here: Scene, owners: Owners, seen: Seen) -> None:
    begin = asyncio.get_running_loop().time()
    seen.change(len(STEADY) + 1)
    await here.nodes.start(GUEST)
    await _rest(begin)
    seen.joins += GUEST in owners.boots()


async def _leave(here: Scene, seen: Seen) -> None:
    begin = asyncio.get_running_loop().time()
    seen.change(len(STEADY) + 1)
    await here.nodes.leave(GUEST)
    seen.left_s.append(asyncio.get_running_loop().time() - begin)
    await _rest(begin)


async def _restart(here: Scene, owners: Owners, seen: Seen, name: str) -> None:
    """One of the steady nodes; it has its shards then."""
    begin_ms = seen.change(len(STEADY))
    await here.nodes.leave(name)
    seen.left_s.append((time() * 1e3 - begin_ms) / 1e3)
    seen.change(len(STEADY))
    await here.nodes.start(name)
    seen.last_ms = time() * 1e3
    seen.placed_s.append((await owners.placed(STEADY) - seen.last_ms) / 1e3)


async def _rest(begin: float) -> None:
    await asyncio.sleep(max(0.0, begin + PERIOD_S - asyncio.get_running_loop().time()))


def _pauses(pauses_s: Sequence[float]) -> list[Row]:
    return [
        some("moves: pauses measured", len(pauses_s), "pauses"),
        *spread("moves: pause of a shard that moved", pauses_s, GOALS),
    ]


def _shares(owners: Owners, seen: Seen, end_ms: float) -> list[Row]:
    """How many shards each change moved, until the next one."""
    times = [at_ms for at_ms, _ in seen.changes]
    moved = [owners.moved(from_ms, to_ms) for from_ms, to_ms in zip(times, [*times[1:], end_ms], strict=True)]
    worst = max(count * nodes / SHARDS for count, (_, nodes) in zip(moved, seen.changes, strict=True))
    return [
        told("moves: shards moved", sum(moved), "shards"),
        at_most("moves: shards moved by one change / (shards / nodes), worst", worst, SHARE, ""),
    ]


def _late_s(ended: Iterable[Ended], calls: Mapping[str, Sequence[Call]], owners: Owners, seen: Seen) -> list[float]:
    """Lateness of first calls of tasks that were due near a change of owner of their shard."""
    begin_ms = seen.changes[0][0]
    moved = {shard: [at_ms for at_ms, _ in some if at_ms > begin_ms] for shard, some in owners.changes.items()}
    return [
        (calls[row.task_id][0].arrived_ms - row.schedule_ms) / 1e3
        for row in ended
        if row.task_id in calls
        and any(abs(row.schedule_ms - at_ms) < NEAR_MS for at_ms in moved.get(shard_of(row.task_id, SHARDS), ()))
    ]


def _called(calls: Mapping[str, Sequence[Call]], owners: Owners, from_ms: float, to_ms: float) -> Counter[str | None]:
    """First calls in this time by node; no shard moves meanwhile."""
    return Counter(
        owners.shards[shard_of(task_id, SHARDS)].name
        for task_id, some in calls.items()
        if some and from_ms <= some[0].arrived_ms < to_ms
    )


def _uneven(counts: Counter[str | None]) -> float:
    """Max / mean of the steady nodes."""
    return max(counts.values()) * len(STEADY) / counts.total()
