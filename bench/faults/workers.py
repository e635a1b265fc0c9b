"""Workers pull from three nodes under load. Some are killed (-9), stopped, or close their links for good; some go to
another node with what they hold; nodes are killed, too. Meanwhile others hold long jobs: nothing of it may touch those.
"""

import asyncio
import random
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time

from bench.deliveries import Deliveries, Delivery
from bench.faults.rows import WORDS, at_most, ending, several, some, spread, told, zero
from bench.hands import Hands
from bench.nodes import NAMES
from bench.owners import Owners
from bench.report import Options, Row
from bench.scene import Scene, scene
from bench.traffic import Traffic

NODES = 3
RATE_HZ = 200.0
SPAN_S = 1.0
SCRIPTS = {"ok": 74, "slow": 10, "fail": 6, "late": 4, "cancel": 6}
MORTAL = ("m1", "m2", "m3", "m4", "m5")
STEADY = ("s1", "s2", "s3")
QUEUE, LONG = "trial", "long"
CREDITS = 50
RESTART_S = 1.0
GRACE_S = 3.0
"""A task of a worker whose socket was closed comes again within this time."""
SLACK_S = 1.0
"""One whose lease ran out, within this time after that."""
YOUNG_MS = 1_000.0
"""An attempt that began less than this before a node was killed may not have been written down."""
OWNED_S = 10.0
LATE_S = 15.0
LEASE_S = 10.0
"""Of slow tasks: so long that it does not run out before the worker of one is missed."""
NO_GOAL = float("inf")


@dataclass(slots=True)
class Jobs(Traffic):
    """Tasks for workers, who read in them what to do."""

    lease_s: float = 2.0

    def _item(self, script: str, roll: random.Random) -> dict[str, object]:
        payload = {"script": script, "number": self._number}
        item = Traffic._item(self, script, roll)
        del item["http"]
        return item | {"payload": payload, "dispatch_deadline": LEASE_S if script == "slow" else self.lease_s}


@dataclass(slots=True)
class Struck:
    """When which hands (by full name) were struck, or a node (by its port); ms since 1970."""

    killed: list[tuple[float, Sequence[str]]] = field(default_factory=list)
    left: list[tuple[float, Sequence[str]]] = field(default_factory=list)
    stopped: list[tuple[float, Sequence[str]]] = field(default_factory=list)
    nodes: list[tuple[float, int]] = field(default_factory=list)
    owned_s: list[float] = field(default_factory=list)
    """How long after its restart a node's shards had owners."""


@dataclass(slots=True)
class Strike:
    """What is done, in turns. `number` counts the rounds."""

    here: Scene
    hands: Hands
    owners: Owners
    struck: Struck
    lease_s: float
    roll: random.Random = field(default_factory=lambda: random.Random(7))
    number: int = 0

    async def drop(self) -> None:
        """Kill two hands, have another one close its link for good; new ones come for the dead."""
        *killed, left = self.roll.sample(MORTAL, 3)
        self.struck.left.append(self._signal([left], signal.SIGUSR1))
        self.struck.killed.append(self._signal(killed, signal.SIGKILL))
        await asyncio.sleep(RESTART_S)
        async with asyncio.TaskGroup() as group:
            for name in killed:
                group.create_task(self.hands.start(name, QUEUE, CREDITS, self.roll.randrange(NODES)))
        await asyncio.sleep(GRACE_S - RESTART_S)

    async def stop(self) -> None:
        """Stop a hand until all that it held is over."""
        names = self.roll.sample(MORTAL, 1)
        self.struck.stopped.append(self._signal(names, signal.SIGSTOP))
        try:
            await asyncio.sleep(self.lease_s + SLACK_S)
        finally:
            self._signal(names, signal.SIGCONT)

    async def move(self) -> None:
        """Have hands go to another node with what they hold."""
        self._signal([*STEADY, *self.roll.sample(MORTAL, 2)], signal.SIGUSR2)
        await asyncio.sleep(SLACK_S / 2)

    async def node(self) -> None:
        """Kill a node, and start it again."""
        name = NAMES[self.number % NODES]
        boot = self.owners.boots().get(name)
        self.struck.nodes.append((time() * 1e3, self.here.nodes.children[name].port))
        self.here.nodes.signal(name, signal.SIGKILL)
        await asyncio.sleep(RESTART_S)
        await self.here.nodes.start(name)
        healed_ms = time() * 1e3
        self.struck.owned_s.append((await self.owners.owned({boot} if boot else ()) - healed_ms) / 1e3)
        await asyncio.sleep(SLACK_S)

    def _signal(self, names: Sequence[str], number: int) -> tuple[float, Sequence[str]]:
        at_ms = time() * 1e3
        for name in names:
            self.hands.signal(name, number)
        return at_ms, [self.hands.full_name(name) for name in names]


async def run(options: Options) -> list[Row]:
    """Measures it."""
    rounds, lease_s, struck = options.size(12, 1), float(options.size(2, 1)), Struck()
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(scene(NODES, scripts=SCRIPTS, span_s=SPAN_S))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="ringwheel-bench-")))
        hands = Hands(folder, lambda: here.nodes.ports, stack)
        plan, ports = here.traffic.plan, here.traffic.ports
        here.traffic = Jobs(plan, ports, lease_s=lease_s)
        long = Jobs(replace(plan, queue=LONG, scripts={"long": 1}), ports, lease_s=lease_s)
        strike = Strike(here, hands, Owners(here.dsn), struck, lease_s)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(strike.owners.run())
            await strike.owners.placed(NAMES[:NODES])
            await _hire(hands)
            load = [
                group.create_task(here.traffic.run(options.rate_hz or RATE_HZ, 1 << 40)),
                group.create_task(long.run(options.size(2, 12), options.size(1 << 40, 12))),
            ]
            await asyncio.sleep(SPAN_S)
            await _rounds(options, strike, rounds)
            here.traffic.over = long.over = True
            for each in load:
                await each
            await here.settled(LATE_S * 4)
            watching.cancel()
        await asyncio.sleep(SLACK_S)  # the last answers are on their way
        hands.check([*MORTAL, *STEADY])
        here.traffic.accepted |= long.accepted
        found = Deliveries(hands.journals())
        here.target.calls.update(found.calls())
        rows = await ending(here, "workers", LATE_S)
    return [
        *_leases(found, struck, lease_s),
        *_longs(found, struck),
        *_strictly(found, hands),
        at_most("workers: C9 all shards owned after a node's restart, worst", max(struck.owned_s), OWNED_S),
        *rows,
    ]


async def _hire(hands: Hands) -> None:
    """All of them, spread over the nodes."""
    async with asyncio.TaskGroup() as group:
        for names, queue in ((MORTAL, QUEUE), (STEADY, LONG)):
            for first, name in enumerate(names):
                group.create_task(hands.start(name, queue, CREDITS, first))


async def _rounds(options: Options, strike: Strike, rounds: int) -> None:
    parts = {"drop": strike.drop, "stop": strike.stop, "move": strike.move, "node": strike.node}
    with options.steps("workers", rounds * len(parts)) as steps:
        for strike.number in range(rounds):
            for name, part in parts.items():
                steps.begin(name)
                await part()
                steps.done()


def _leases(found: Deliveries, struck: Struck, lease_s: float) -> list[Row]:
    """How soon tasks came again whose worker was struck, and what became of results that came too late."""
    rows, accepted = [], found.late("recorded")
    for words, strikes, period_s, goal_s in (
        ("killed", struck.killed, LEASE_S, GRACE_S),
        ("gone", struck.left, LEASE_S, GRACE_S),
        ("stopped", struck.stopped, lease_s, lease_s + SLACK_S),
    ):
        again = [each for at_ms, names in strikes for each in found.again_s(at_ms, names)]
        times_s = [again_s for again_s, period in again if period == period_s]
        rows.append(
            several(f"workers: tasks of workers that were {words}, {period_s:g} s leases", len(times_s), "tasks")
        )
        rows += spread(f"workers: {words}, came again", times_s, {50: NO_GOAL, 100: goal_s})
    return [
        *rows,
        some("workers: late results refused", len(found.late("refused")), "results"),
        zero("workers: late results accepted", len(accepted), "results"),
        *(told(f"workers: accepted late: {each}", 1, "result") for each in accepted[:3]),
    ]


def _longs(found: Deliveries, struck: Struck) -> list[Row]:
    """Jobs of living workers, held for many lease periods."""
    longs = {task_id: each for task_id, each in found.by_id.items() if each[0].script == "long"}
    young = {task_id for task_id, each in longs.items() if any(_is_young(struck, delivery) for delivery in each)}
    again = {task_id for task_id, each in longs.items() if len(each) > 1}
    held_s = [(each[0].said_ms - each[0].at_ms) / 1e3 for each in longs.values() if each[0].said_ms is not None]
    near, far = _across(found, struck, set(longs))
    return [
        some("workers: long jobs", len(longs), "jobs"),
        *spread("workers: long jobs were held for", held_s, {50: NO_GOAL}),
        several("workers: of them, when the node of their worker was killed", near, "jobs"),
        several("workers: of them, when another node was killed", far, "jobs"),
        zero("workers: long jobs that came more than once", len(again - young), "jobs"),
        told("workers: those that had just begun when a node was killed", len(again & young), f"of {len(young)}"),
    ]


def _is_young(struck: Struck, delivery: Delivery) -> bool:
    return any(at_ms - YOUNG_MS < delivery.at_ms < at_ms for at_ms, _ in struck.nodes)


def _across(found: Deliveries, struck: Struck, longs: set[str]) -> tuple[int, int]:
    """How many of these jobs were held when a node was killed: that of their worker, another one."""
    near = far = 0
    for at_ms, port in struck.nodes:
        held = [each for task_id in longs for each in found.by_id[task_id] if each.is_held(at_ms)]
        attached = sum(found.port(each.hand, at_ms) == port for each in held)
        near, far = near + attached, far + len(held) - attached
    return near, far


def _strictly(found: Deliveries, hands: Hands) -> list[Row]:
    """What the nodes kept to, and what happened beside."""
    return [
        zero("workers: tasks above the credits of a worker", found.above, "tasks"),
        zero("workers: frames that a node could not read", found.lines["error"], "frames"),
        zero("workers: errors of workers", len(hands.complaints), "lines"),
        *(told(f"workers: a worker said: {line[:WORDS]}", 1, "line") for line in hands.complaints[:3]),
        told("workers: leases that a worker kept on another link", found.lines["kept"], "leases"),
        told("workers: tasks that came when their lease was over", found.lines["stale"], "tasks"),
        told("workers: results and extensions refused", found.lines["refused"] + found.lines["over"], "of them"),
    ]
