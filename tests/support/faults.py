"""What goes wrong in a simulated cluster. Faults of different nodes overlap; each ends by itself, or when all heals."""

import asyncio
from collections.abc import Awaitable, Callable

from actors.core.errors import RingwheelError
from storage.memory import Fault
from tests.support.world import World

STATEMENTS = (
    "accept", "accept_keyed", "beat", "condemn", "depart", "end_sessions", "ensure", "find", "give", "join", "leave",
    "load", "make_partitions", "payloads", "refresh", "sweep", "write",
)  # fmt: skip
NAMES = "abcdefgh"
LEAST, MOST = 3, 5
"""Nodes."""
STEP_MS = 1_000
"""How far the primary's clock may be set at once, either way."""


class Faults:
    """Strikes at random."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._at_node: dict[Callable[[str], Awaitable[None]], int] = {
            self._pause: 6,
            self._hang: 2,
            self._kill: 2,
            self._lose: 2,
            self._cut: 1,
            self._leave: 2,
            self._fail: 1,
            self._twin: 2,
        }
        self._at_all: dict[Callable[[str], Awaitable[None]], int] = {
            self._outage: 1,
            self._part: 2,
            self._storm: 2,
            self._join: 2,
            self._step: 1,
        }
        for faults in (self._at_node, self._at_all):
            for fault in faults:
                faults[fault] *= self._rng.choice([0, 1, 1, 4])  # each history has its own plague
        self._at_node[self._pause] += 1

    async def strike(self) -> None:
        """One fault, from its beginning to its end; none if its victim is in trouble already."""
        world, rng = self._world, self._rng
        world.revive()
        faults = [*self._at_node, *self._at_all]
        (fault,) = rng.choices(faults, [*self._at_node.values(), *self._at_all.values()])
        name = rng.choice(list(world.members)) if fault in self._at_node else fault.__name__
        if name in world.busy:
            return
        world.busy.add(name)
        world.figures.faults += 1
        world.note(f"{name}: {fault.__name__}")
        try:
            await fault(name)
        finally:
            world.note(f"{name}: end of {fault.__name__}")
            world.busy.discard(name)

    def heal(self) -> None:
        """Nothing is wrong any more, and what is under way between nodes is lost."""
        cluster = self._world.cluster
        cluster.cut(away=False)
        self._world.verdicts.over()
        self._calm_network()
        cluster.network.lose_all()

    # --- nodes

    async def _pause(self, name: str) -> None:
        process = self._world.members[name].process
        process.stop()
        await self._while(0.1, 4, 5.8, 6.8, 6, 12)
        process.resume()

    async def _kill(self, name: str) -> None:
        await self._world.members[name].kill(forgets=self._rng.random() < 0.5)
        await asyncio.sleep(self._rng.choice([0, self._rng.uniform(0, 8)]))
        self._world.start(name)

    async def _leave(self, name: str) -> None:
        world = self._world
        member = world.members[name]
        world.going.add(name)
        await member.node.drain(1)
        try:
            await member.node.membership.leave()
        except RingwheelError:
            pass
        for_good = len(world.members) > LEAST and self._rng.random() < 0.5
        await self._end(name)
        if for_good:
            del world.members[name]
        else:
            world.start(name)

    async def _end(self, name: str) -> None:
        """The process exits, or was on the way out already."""
        member = self._world.members[name]
        await member.kill(forgets=self._rng.random() < 0.5)
        self._world.bury(member)

    async def _join(self, name: str) -> None:
        world = self._world
        free = [name for name in NAMES if name not in world.members and name not in world.busy]
        if len(world.members) < MOST:
            world.start(self._rng.choice(free))

    async def _fail(self, name: str) -> None:
        member = self._world.members[name]
        if member.owned:
            self._world.history.crashed.add(member.node.membership.boot)
            member.node._crashed(next(iter(member.owned)), ZeroDivisionError())

    async def _twin(self, name: str) -> None:
        """Whoever restarts a node takes the old process for dead: it is not."""
        world, rng = self._world, self._rng
        old = world.members[name]
        ill, well = rng.choice(
            [
                (old.process.stop, old.process.resume),
                (old.wire.hang, old.wire.flow),
                (old.wire.cut, old.wire.mend),
            ]
        )
        ill()
        await asyncio.sleep(rng.uniform(0, 4))
        world.start(name, f"{name}-again:7070")
        await asyncio.sleep(rng.uniform(0.5, 9))
        well()
        await asyncio.sleep(rng.uniform(0, 3))
        if not old.ended.is_set():
            await old.kill(forgets=rng.random() < 0.5)
        world.bury(old)

    # --- their way to the database

    async def _cut(self, name: str) -> None:
        wire = self._world.members[name].wire
        wire.cut()
        await self._while(0.2, 9)
        wire.mend()

    async def _hang(self, name: str) -> None:
        wire = self._world.members[name].wire
        wire.hang()
        await self._while(0.2, 9, 5.8, 6.8)
        wire.flow()

    async def _lose(self, name: str) -> None:
        for _ in range(self._rng.randint(1, 6)):
            self._world.members[name].wire.fail_next(self._rng.choice(STATEMENTS), self._rng.choice(list(Fault)))

    # --- the database

    async def _outage(self, name: str) -> None:
        self._world.cluster.cut(away=True)
        self._world.verdicts.outage()
        await self._while(0.2, 9)
        self._world.cluster.cut(away=False)
        self._world.verdicts.over()

    async def _step(self, name: str) -> None:
        """The primary's clock is set."""
        step_ms = self._rng.uniform(-STEP_MS, STEP_MS)
        history = self._world.history
        self._world.cluster.step_ms += step_ms
        history.behind_ms = max(history.behind_ms - step_ms, 0)
        await asyncio.sleep(30)

    # --- between nodes

    async def _part(self, name: str) -> None:
        """Some nodes reach each other no more."""
        world = self._world
        members = list(world.members.values())
        some = self._rng.sample(members, self._rng.randint(1, len(members) - 1))
        world.cluster.network.parted = {member.links.address for member in some}
        await self._while(0.5, 15)
        world.cluster.network.parted = set()

    async def _storm(self, name: str) -> None:
        """Messages are lost, come twice, late, and in another order."""
        network, rng = self._world.cluster.network, self._rng
        part, slowest_ms = rng.choice([0.1, 0.5, 1.0]), rng.choice([100, 3_000, 20_000])
        network.loses = lambda sender, to: rng.random() < part / 2
        network.doubles = lambda: rng.random() < part / 2
        network.way_ms = lambda: rng.uniform(0.1, slowest_ms if rng.random() < part else 1.0)
        await self._while(0.5, 15)
        self._calm_network()

    def _calm_network(self) -> None:
        network, rng = self._world.cluster.network, self._rng
        network.parted = set()
        network.loses = lambda sender, to: False
        network.doubles = lambda: False
        network.way_ms = lambda: rng.uniform(0.1, 1.0)

    async def _while(self, *bounds_s: float) -> None:
        """Some time between one pair of these."""
        pairs = list(zip(bounds_s[::2], bounds_s[1::2], strict=True))
        await asyncio.sleep(self._rng.uniform(*self._rng.choice(pairs)))
