"""A whole cluster under random faults, in virtual time: everything follows from one seed.

Three to five nodes live through twenty seconds or more of submits, commands and faults: of processes, of their way to
the database, of the database and its clock, and of the network between them. Then everything heals, a last wave of
tasks has to be punctual, and the history is checked.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from structlog.testing import capture_logs

from actors import hand, probe
from actors.core import timers
from tests.support.clients import Clients
from tests.support.cluster import Cluster
from tests.support.faults import NAMES, Faults
from tests.support.history import Broken
from tests.support.virtual_time import VirtualTimeLoop, current_process
from tests.support.workers import Workers
from tests.support.world import Figures, World

CHAOS_S = 20.0
HEALED_S = 10.0
"""All shards are owned again within this time after the last fault (C9)."""
KNOWN_S = 1.5
"""Everybody knows of it within this time."""
LATE_MS = 2_500
"""How late a task may be then (C5): less than what the probe needs to find one that nobody hinted at. Clocks that were
corrected have not all come to the primary's time yet."""
ENDED_S = 60.0
LIMIT_S = 300.0
"""No history is longer."""
PROBE_STEPS = 4
"""Fewer statements a round than in service, of more shards each: the rest of them would be looked for in vain."""


class Simulation:
    """One history."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cluster = world.cluster
        self.clients = Clients(world)
        self.faults = Faults(world)
        self.workers = Workers(world)
        self._decides = len(world.queues) > 1
        """Whether there may be held tasks."""

    async def run(self) -> Figures:
        """Live, heal, and check."""
        for name in NAMES[: self.world.rng.choice([3, 3, 4, 5])]:
            self.world.start(name)
        await self._live()
        await self._heal()
        try:
            await self._be_punctual()
            await self._end()
        finally:
            for member in self.cluster.members:
                self.world.bury(member)  # what broke it says more than what that led to
        return self._check()

    async def _live(self) -> None:
        acts = [(self.clients.submit, 0.4), (self.clients.command, 0.7), (self.faults.strike, 1.2)]
        if self._decides:
            acts.append((self.clients.decide, 1.5))
        if self.world.pulled:
            acts.append((self.workers.tend, 0.5))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._often(act, mean_s)) for act, mean_s in acts]
            await asyncio.sleep(CHAOS_S)
            await self.cluster.until(self._is_enough)
            for task in tasks:
                task.cancel()

    async def _often(self, act: Callable[[], Awaitable[None]], mean_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self.world.rng.expovariate(1 / mean_s))
                group.create_task(_run(act))

    def _is_enough(self) -> bool:
        figures, history = self.world.figures, self.world.history
        figures.tasks, figures.runs = len(history.accepted), len(history.runs)
        figures.seconds = asyncio.get_running_loop().time()
        return figures.tell

    # --- the end

    async def _heal(self) -> None:
        world = self.world
        world.note("everything heals")
        world.busy.clear()
        world.calm = True
        self.faults.heal()
        for member in self.cluster.members:
            if member is not world.members.get(member.name):
                await member.kill()
                member.wire.heal()
                world.bury(member)
        for member in list(world.members.values()):
            member.wire.heal()
            if member.process.stopped:
                member.process.resume()
            if member.name in world.going:
                await member.kill()
        world.revive()
        try:
            await self.cluster.until(self._is_owned, HEALED_S)
        except TimeoutError:
            raise Broken(f"C9: {self.cluster.database.shards} {world.living()}") from None

    def _is_owned(self) -> bool:
        self.world.revive()
        believed = {
            shard: (member.node.membership.boot, epoch)
            for member in self.world.members.values()
            for shard, epoch in member.owned.items()
        }
        if not all(member.node.ready for member in self.world.members.values()):
            return False  # it may be about to find its name taken
        return believed == {shard: (row.owner, row.epoch) for shard, row in self.cluster.database.shards.items()}

    async def _be_punctual(self) -> None:
        await asyncio.sleep(KNOWN_S)
        ids = await self.clients.submit_soon(8) | await self.clients.submit_soon(8)
        await asyncio.sleep(LATE_MS / 1_000)
        self.world.history.are_punctual(ids, LATE_MS)

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(ENDED_S), asyncio.TaskGroup() as group:
                acts = [self.clients.decide] if self._decides else []
                if self.world.pulled:
                    acts.append(self.workers.tend)
                tasks = [group.create_task(self._often(act, 1.0)) for act in acts]
                await self.cluster.until(lambda: not any(True for _ in self.cluster.database.live.all()), LIMIT_S)
                for task in tasks:
                    task.cancel()
        except TimeoutError:
            self.world.history.nothing_is_lost()
            raise
        await asyncio.sleep(1)

    def _check(self) -> Figures:
        world = self.world
        for context in world.errors:
            raise context.get("exception") or Broken(f"C10: {context}")
        world.history.changes = [change for member in self.cluster.members for change in member.changes]
        world.history.check()
        self._is_enough()
        return world.figures


async def _run(act: Callable[[], Awaitable[None]]) -> None:
    await act()


class Trace:
    """What happened, line by line, with its virtual time."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """One line."""
        self.lines.append(f"{asyncio.get_running_loop().time():9.4f} {text}")

    def log(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """A processor of structlog: what a node has to say."""
        process = current_process()
        more = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("event", "log_level"))
        self.note(f"{process.name if process else '-'} says: {event['event']} {more}")
        return event


class _Ordered(dict[Any, None]):
    """The tasks of a group: cancelled in the order in which they came, not in that of their addresses."""

    add = dict.setdefault

    def discard(self, task: object) -> None:
        self.pop(task, None)


def _begin(group: asyncio.TaskGroup) -> None:
    _begin_group(group)
    group._tasks = _Ordered()  # type: ignore[assignment]


_begin_group = asyncio.TaskGroup.__init__


@contextmanager
def _seeded(rng: random.Random, trace: Trace | None, odd: bool) -> Iterator[None]:
    """Ids and boots come from the seed, too; with an odd one, bounds that only crowds reach are small."""
    few, ends = (2, 3) if odd else (timers.FEW, hand.ENDS)
    with (
        mock.patch.object(timers, "FEW", few),
        mock.patch.object(hand, "ENDS", ends),
        mock.patch("os.urandom", rng.randbytes),
        mock.patch("secrets.token_hex", lambda count: rng.randbytes(count).hex()),
        mock.patch.object(asyncio.TaskGroup, "__init__", _begin),
        mock.patch.object(probe, "PROBE_STEPS", PROBE_STEPS),
        capture_logs(processors=[] if trace is None else [trace.log]),
    ):
        yield


async def _simulate(rng: random.Random, trace: Trace | None, unheard: bool, pulled: bool) -> Figures:
    async with Cluster(shards=rng.choice([4, 8, 16])) as cluster:
        world = World(
            cluster, rng, (lambda text: None) if trace is None else trace.note, unheard=unheard, pulled=pulled
        )
        async with asyncio.timeout(LIMIT_S):
            return await Simulation(world).run()


def _first(error: BaseException) -> str:
    """What was wrong, in short."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, Broken) else repr(error)


def simulate(seed: int, trace: Trace | None = None, *, unheard: bool = False, pulled: bool = False) -> Figures:
    """Raises Broken, naming the seed. `unheard`: with queues that hold or wait for unknown ends, too; `pulled`: with
    workers.
    """
    rng = random.Random(seed)
    try:
        with _seeded(rng, trace, seed % 2 == 1), asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            figures = runner.run(_simulate(rng, trace, unheard, pulled))
    except Exception as error:
        raise Broken(f"seed {seed}: {_first(error)}") from error
    if not figures.tell:
        raise Broken(f"seed {seed} is too tame: {figures}")
    return figures
