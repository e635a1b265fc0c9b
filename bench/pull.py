"""Two workers at one node pull the tasks of all shards of three nodes: no worker gets more than it has credits for, no
node waits longer than the others, and a task begins soon after it is due.

Full load is the rate at which tasks live through it, accepted by all three nodes, for as long as half load lasts: a
short burst leaves what it owes to the database for later. Then all of a crowd come due at the same moment, so that
credits are scarce: whose tasks begin when shows whether a node is starved. Then comes half load, evenly spread. A task
begins when a worker handles the frame that it came in.

The cluster has as many shards as docs/cluster.md advises for three nodes, or as `--shards` says.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from time import time

import uvloop

from actors.core.ring import Ring
from bench.crew import Crew, crew
from bench.faults.rows import at_most, told, zero
from bench.ingest import CONNECTIONS
from bench.lateness import BATCHES_HZ, due_batches
from bench.life import finished, through
from bench.load import closed_loops, open_loop
from bench.owners import Owners
from bench.report import Options, Row, percentile
from bench.stage import stage
from bench.webhook import LEAST_RATE
from bench.work import SHARDS, batches, rfc3339
from bench.worker import Seen

NODES = "abc"
WORKERS = 2
CREDITS = 2_000
FEW_SHARDS = 32
QUEUE = "bench"
GOAL_MS = 20.0
CROWD_UNEVEN = 2.0
HALF_UNEVEN = 3.0
PERCENTS = (50, 99)
MAKING_S = 20e-6
"""Allowed to make a task's part of a request: all are ready before the first one leaves, for both cores are the
service's then.
"""


@dataclass(slots=True)
class Pull:
    """The loads, how large they are, and what was measured: by name of the node that owns the shard, how late tasks
    began, in ms.
    """

    ports: list[int]
    workers: Crew
    owners: Sequence[str]
    """Nodes, of each part of the ids: there are SHARDS of them, and a cluster's shards are one or several each."""
    count: int
    seconds: float
    lead_s: float
    """So far ahead of their time are tasks submitted."""
    even_hz: float | None = None
    """Tasks a second that come evenly; None: half of full load."""
    crowd_ms: dict[str, list[float]] = field(default_factory=dict)
    half_ms: dict[str, list[float]] = field(default_factory=dict)
    full_hz: float = 0.0
    crowd_hz: list[float] = field(default_factory=list)
    submitted: int = 0
    handed: int = 0
    above: int = 0

    async def full(self, count: int) -> None:
        """So many tasks, due at once, as fast as they are accepted."""
        requests = list(batches(count, url=None, queue=QUEUE))
        self.full_hz, seen = await through(self.ports, self.workers, requests, count)
        self._note(count, seen)

    async def crowd(self) -> None:
        """Tasks that are due at the same moment. Raises RuntimeError when they were not all accepted before."""
        await self.workers.reset()
        due_ms = (time() + self.lead_s + self.count / LEAST_RATE) * 1e3
        requests = batches(self.count, url=None, queue=QUEUE, schedule_time=rfc3339(due_ms))
        (await closed_loops(self.ports, requests, CONNECTIONS)).expect(200)
        if time() * 1e3 > due_ms:
            raise RuntimeError("the service took longer to accept the tasks than the benchmark allows for")
        seen = await self.workers.recorded(self.count)
        self._note(self.count, seen, self.crowd_ms)
        self.crowd_hz.append(self.count / (seen.last_ms - due_ms) * 1e3)

    async def half(self) -> None:
        """Tasks that come due one by one, accepted by all nodes in turns, for what leaves for all at once is not even.

        Raises RuntimeError when one came early.
        """
        await self.workers.reset()
        size = max(1, round((self.even_hz or self.full_hz / 2) / BATCHES_HZ / len(self.ports)))
        number = round(self.seconds * BATCHES_HZ)
        count = size * number * len(self.ports)
        begin_s = time() + count * MAKING_S
        turns = [(port, begin_s + at / len(self.ports) / BATCHES_HZ) for at, port in enumerate(self.ports)]
        loads = [
            (port, at_s, list(due_batches(None, size, number, QUEUE, (at_s + self.lead_s) * 1e3)))
            for port, at_s in turns
        ]
        async with asyncio.TaskGroup() as group:
            for load in loads:
                group.create_task(_submit(*load))
        seen = await self.workers.recorded(count)
        if (least_ms := min(map(min, seen.lateness_ms.values()))) < 0:
            raise RuntimeError(f"a task began {-least_ms:.3f} ms early")
        self._note(count, seen, self.half_ms)

    def _note(self, count: int, seen: Seen, late: dict[str, list[float]] | None = None) -> None:
        """So many tasks were submitted, and this became of them."""
        self.submitted += count
        self.handed += seen.tasks
        self.above += seen.above
        if late is not None:
            for part, late_ms in seen.lateness_ms.items():
                late.setdefault(self.owners[part], []).extend(late_ms)

    def rows(self, good: int, others: int) -> list[Row]:
        """All of it, with how many tasks ended as they should, and how many did not."""
        return [
            told("full load, whole life, workers at one of three nodes", self.full_hz, "tasks/s"),
            told("all due at once", median(self.crowd_hz), "tasks/s"),
            *_shares("all due at once", self.crowd_ms, 50, CROWD_UNEVEN),
            *(_late("half load", self.half_ms, percent) for percent in PERCENTS),
            *_shares("half load", self.half_ms, 99, HALF_UNEVEN),
            zero("tasks above the credits of a worker", self.above, "tasks"),
            zero("tasks handed out more than once", self.handed - self.submitted, "tasks"),
            zero("tasks not recorded, or otherwise", others + abs(self.submitted - good), "tasks"),
        ]


def run(options: Options) -> list[Row]:
    """Measures it."""
    return uvloop.run(_run(options))


async def _run(options: Options) -> list[Row]:
    count, seconds, lead_s = options.size(100_000, 2_000), options.size(15, 1), 0.5 + options.size(2, 0)
    full = options.size(500_000, 2_000)
    async with stage() as here:
        dsn = await here.database("ours", options.shards or FEW_SHARDS)
        ports = [node.port for node in await here.nodes(dsn, NODES)]
        owners = await _owners(dsn)
        async with crew(ports[:1] * WORKERS, QUEUE, CREDITS, "timed") as workers:
            pull = Pull(ports, workers, owners, count, seconds, lead_s, options.rate_hz)
            parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
                ("warm up", partial(pull.full, count // 2)),
                ("full load", partial(pull.full, full)),
                *((f"crowd {turn}", pull.crowd) for turn in range(options.iterations)),
                *((f"half load {turn}", pull.half) for turn in range(options.iterations)),
            ]
            with options.steps("pull", len(parts)) as steps:
                for name, part in parts:
                    steps.begin(name)
                    await here.checkpoint()
                    await part()
                    steps.done()
        return pull.rows(*await finished(dsn))


async def _submit(port: int, begin_s: float, requests: Sequence[bytes]) -> None:
    await asyncio.sleep(begin_s - time())
    (await open_loop(port, requests, BATCHES_HZ, CONNECTIONS)).expect(200)


async def _owners(dsn: str) -> list[str]:
    """The nodes that own the parts, once all shards are where they belong."""
    owners = Owners(dsn)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(owners.run())
        await owners.placed(NODES)
        watching.cancel()
    ring = Ring(NODES, len(owners.shards))
    names = {shard: name for name in NODES for shard in ring.shards_of(name)}
    return [names[part * ring.shards // SHARDS] for part in range(SHARDS)]


def _late(name: str, late_ms: Mapping[str, Iterable[float]], percent: float) -> Row:
    figure = percentile([late for some in late_ms.values() for late in some], percent)
    words = f"{name}: from due to begun, p{percent:g}"
    return at_most(words, figure, GOAL_MS, "ms") if percent == 99 else told(words, figure, "ms")


def _shares(name: str, late_ms: Mapping[str, list[float]], percent: float, goal: float) -> list[Row]:
    """How late the tasks of each node were, and how unlike that is."""
    found = {node: percentile(late_ms[node], percent) for node in sorted(late_ms)}
    uneven = max(found.values()) / min(found.values())
    return [
        *(told(f"{name}: p{percent:g} of tasks of node {node}", figure, "ms") for node, figure in found.items()),
        at_most(f"{name}: p{percent:g}, the node that waits longest / shortest", uneven, goal, ""),
    ]
