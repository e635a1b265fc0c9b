"""Where faults happen: a PostgreSQL of its own, nodes on it, a scripted target, and traffic from one to the other.

async with scene(nodes=3, plan=...) as here:
    ... here.traffic.run(...), here.nodes.signal(...), here.postgres.kill(...)
    await here.settled()
    verdict, tables = await here.judged()
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import asyncpg

from bench.nodes import NAMES, Nodes
from bench.postgres import AWAY, Postgres
from bench.relay import Mode, Relay
from bench.scripted import Target, listening
from bench.seam import set_offset
from bench.traffic import Plan, Traffic
from bench.verdict import Tables, Verdict, judge, read_tables
from storage.datafolder import DataFolder
from storage.embedded import EmbeddedPostgres
from storage.migrations import migrate

LOOK_S = 0.25


@dataclass(slots=True)
class Scene:
    """All that takes part."""

    dsn: str
    """Of the database itself, for those who watch."""
    postgres: Postgres
    target: Target
    nodes: Nodes
    relays: dict[str, Relay]
    """Name -> what other nodes reach it through, if anything."""
    traffic: Traffic

    def cut(self, mode: Mode) -> None:
        """How all nodes reach all others from now on."""
        for relay in self.relays.values():
            relay.mode = mode

    async def ask(self, statement: str) -> list[Any]:
        """Rows of one query. Raises one of AWAY."""
        connection = await asyncpg.connect(self.dsn, timeout=5)
        try:
            rows: list[Any] = await connection.fetch(statement)
            return rows
        finally:
            await connection.close()

    async def settled(self, patience_s: float, told: Callable[[int], object] = lambda _: None) -> bool:
        """Wait until no live task is left; False: some are. `told` how many there are. Raises Failed: a node ended."""
        deadline = monotonic() + patience_s
        while monotonic() < deadline:
            for child in self.nodes.children.values():
                child.check()
            try:
                left = (await self.ask("SELECT count(*) FROM tasks"))[0][0]
            except AWAY:
                left = -1
            if left == 0:
                return True
            told(left)
            await asyncio.sleep(LOOK_S)
        return False

    async def judged(self) -> tuple[Verdict, Tables]:
        """What came of everything that was accepted."""
        tables = await read_tables(self.dsn)
        traffic = self.traffic
        return judge(traffic.accepted, traffic.cancelled, self.target.calls, tables), tables


@asynccontextmanager
async def scene(
    nodes: int,
    *,
    scripts: Mapping[str, int],
    span_s: float,
    seed: int = 0,
    through: Callable[[DataFolder, AsyncExitStack], Awaitable[str]] | None = None,
    relayed: bool = False,
    clocks: str = "",
) -> AsyncIterator[Scene]:
    """Sets it up, and clears it whatever happened. `through`: puts something between the nodes
    and the database, and answers the DSN of that; `relayed`: something is put between them; `clocks`: nodes whose wall
    clocks can be set.
    """
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(TemporaryDirectory(prefix="ringwheel-bench-"))) / "data"
        postgres = await stack.enter_async_context(EmbeddedPostgres(data))
        await migrate(postgres.dsn)
        target = Target()
        url = await stack.enter_async_context(listening(target))
        dsn = postgres.dsn if through is None else await through(postgres.folder, stack)
        running, relays = Nodes(dsn, stack), {}
        for name in NAMES[: nodes if relayed else 0]:
            relays[name] = await stack.enter_async_context(Relay(partial(running.reach, name)))
            running.advertised[name] = f"127.0.0.1:{relays[name].port}"
        for name in clocks:
            running.clocks[name] = data.with_name(f"clock-{name}")
            set_offset(running.clocks[name], 0.0)
        async with asyncio.TaskGroup() as group:
            for name in NAMES[:nodes]:
                group.create_task(running.start(name))
        stack.callback(running.end)
        await running.ready()
        traffic = Traffic(Plan(url, scripts, span_s, seed=seed), lambda: running.ports)
        yield Scene(postgres.dsn, Postgres(postgres.folder), target, running, relays, traffic)
