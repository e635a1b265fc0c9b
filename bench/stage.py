"""What a benchmark plays on: a PostgreSQL in a folder of its own, a sink, services on databases of their own."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg

from bench.load import ask, get
from bench.postgres import Postgres
from bench.processes import READY_S, Child, process
from storage.embedded import EmbeddedPostgres
from storage.migrations import migrate

SERVE = ("-c", "from gateway.cli import main; main()", "serve", "--port", "0", "--allow-target", "127.0.0.0/8")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sink saw since its last reset."""

    count: int
    distinct: int
    first_ms: float
    last_ms: float
    lateness_ms: list[float]


class Sink:
    """The target of webhooks (`bench/sink.py`)."""

    def __init__(self, child: Child) -> None:
        self._port = child.port
        self.cpu_s = child.cpu_s
        self.url = f"http://127.0.0.1:{child.port}/hook"

    async def reset(self) -> None:
        """Forget all."""
        await ask(self._port, get("/reset"))

    async def wait(self, count: int) -> Seen:
        """What it saw, once `count` tasks came. Raises TimeoutError."""
        return Seen(**json.loads(await ask(self._port, get(f"/wait?count={count}"))))


class Stage:
    """Databases, services and the sink of one benchmark; all end with it."""

    def __init__(self, postgres: EmbeddedPostgres, sink: Sink, stack: AsyncExitStack) -> None:
        self._postgres = postgres
        self._stack = stack
        self._dsns: list[str] = []
        self.sink = sink

    async def database(self, name: str, shards: int | None = None) -> str:
        """A new database with the service's schema; answers its DSN. `shards`: not as many as usual."""
        await _execute(self._postgres.dsn, f'CREATE DATABASE "{name}"')
        dsn = self._postgres.folder.dsn(name)
        await migrate(dsn, shards)
        self._dsns.append(dsn)
        return dsn

    async def service(self, name: str) -> Child:
        """A running service on a new database, ready for requests."""
        return await self.node(await self.database(name))

    async def node(self, dsn: str, name: str = "a") -> Child:
        """A running node on this database, ready for requests."""
        child = await self._stack.enter_async_context(
            process(*SERVE, "--database-url", dsn, "--name", name, ready=r"listening.*?127\.0\.0\.1:(\d+)")
        )
        await ready(child)
        return child

    async def nodes(self, dsn: str, names: str) -> list[Child]:
        """The same of several, which start at the same time."""
        async with asyncio.TaskGroup() as group:
            starting = [group.create_task(self.node(dsn, name)) for name in names]
        return [started.result() for started in starting]

    @property
    def server(self) -> Postgres:
        """The database server itself."""
        return Postgres(self._postgres.folder)

    async def bare_handler(self) -> Child:
        """The floor of single POSTs."""
        return await self._stack.enter_async_context(process("-m", "bench.floors"))

    async def checkpoint(self) -> None:
        """Clear up after what was measured so far, and write everything out: no measurement pays for another.

        What a floor has deleted would else be vacuumed in our turn.
        """
        for dsn in self._dsns:
            await _execute(dsn, "VACUUM ANALYZE")
        await _execute(self._postgres.dsn, "CHECKPOINT")


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def ready(child: Child) -> None:
    """Waits until all shards have living owners; a node listens before that."""
    async with asyncio.timeout(READY_S):
        while True:
            child.check()
            try:
                await ask(child.port, get("/readyz"))
            except RuntimeError:
                await asyncio.sleep(0.05)
            else:
                return


@asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Sets the stage, and clears it whatever happens."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="ringwheel-bench-"))
        postgres = await stack.enter_async_context(EmbeddedPostgres(Path(folder) / "data"))
        sink = Sink(await stack.enter_async_context(process("-m", "bench.sink")))
        yield Stage(postgres, sink, stack)
