"""One PostgreSQL for a test run, a database of its own for each test.

The server is the embedded one, in a temporary folder that all workers of the run share: the first to need it starts
it, the last to leave stops it. The folder is in memory where there is room for it: to make and drop a database takes 19
ms of CPU there, and 150 on a disk. What a server loses with its machine is not tested here; processes that die, are.
"""

import asyncio
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import asyncpg

from storage.embedded import EmbeddedPostgres

FOLDER = "RINGWHEEL_TEST_POSTGRES"
"""Environment variable by which the workers of a run find the folder that the main process has made."""
_TEMPLATE = "ringwheel_template"
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 4 << 30
"""So much must be free there."""
_numbers = itertools.count()


def make_folder() -> Path | None:
    """Name a folder for this run; None when the process that started us has done so."""
    if FOLDER in os.environ:
        return None
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES
    folder = Path(tempfile.mkdtemp(prefix="ringwheel-tests-", dir=_MEMORY if in_memory else None))
    os.environ[FOLDER] = str(folder)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove what `make_folder` made; all workers have ended."""
    del os.environ[FOLDER]
    shutil.rmtree(folder, ignore_errors=True)


class Databases:
    """Makes and drops databases on the server of the run."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server

    @asynccontextmanager
    async def empty(self) -> AsyncIterator[str]:
        """DSN of a database without tables."""
        async with self._database("template0") as dsn:
            yield dsn

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[str]:
        """DSN of a database with the current schema."""
        await self._ensure_template()
        async with self._database(_TEMPLATE) as dsn:
            yield dsn

    @asynccontextmanager
    async def _database(self, template: str) -> AsyncIterator[str]:
        name = f"test_{os.getpid()}_{next(_numbers)}"
        async with self._administration() as connection:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}{_strategy(connection)}")
        try:
            yield self._server.folder.dsn(name)
        finally:
            async with self._administration() as connection:
                await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _ensure_template(self) -> None:
        """Migrate once a run; workers that come meanwhile wait at the lock."""
        async with self._administration() as connection:
            await connection.execute("SELECT pg_advisory_lock(1)")
            if await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", _TEMPLATE):
                return
            await connection.execute("DROP DATABASE IF EXISTS ringwheel_migrating")
            await connection.execute("CREATE DATABASE ringwheel_migrating TEMPLATE template0")
            from storage.migrations import migrate

            await migrate(self._server.folder.dsn("ringwheel_migrating"))
            await connection.execute(f"ALTER DATABASE ringwheel_migrating RENAME TO {_TEMPLATE}")

    @asynccontextmanager
    async def _administration(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self._server.folder.dsn("postgres"))
        try:
            yield connection
        finally:
            await connection.close()


def _strategy(connection: asyncpg.Connection) -> str:
    # Copying files takes 19 ms, copying through the log (the default) 24 ms. Before version 15 there was no choice.
    return " STRATEGY FILE_COPY" if connection.get_server_version().major >= 15 else ""


@contextmanager
def run_server() -> Iterator[Databases]:
    """Use the server of the run, from code that has no event loop running."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        server = EmbeddedPostgres(Path(os.environ[FOLDER]))
        runner.run(server.__aenter__())
        try:
            yield Databases(server)
        finally:
            runner.run(server.__aexit__(None, None, None))
