"""Embedded PostgreSQL: a private server in a folder, for who has not named one.

    async with EmbeddedPostgres(Path("data")) as server:
        pool = await asyncpg.create_pool(server.dsn)

Promises:
- Any number of processes may use one folder at the same time; they share one server, whoever comes first starts it.
- After any death (of nodes, keeper, server, in any order, by kill -9) the next start works, with no help.
- Once the last user is gone nothing is left running. Leaving in order waits for that, unless somebody else has come.
- It is durable: fsync stays on. It is private: a unix socket in a folder with mode 0700, no TCP.

Refusals: a folder of another user, of another major version, or no binaries: Misconfigured. Two hosts can't share a
folder.
"""

import asyncio
import json
import os
import subprocess
import sys
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg
import structlog

from actors.core.errors import Misconfigured, RingwheelError, Unavailable
from storage import account, binaries, keeper
from storage.datafolder import PORT, DataFolder

DATABASE = "ringwheel"
SILENCE_S = 30.0
"""A server that neither answers nor says that it is starting for this long is given up."""
STOP_S = 90.0
"""Longest wait for the end of a server: a fast shutdown, then an immediate one."""
WATCH_S = 1.0
"""How often a node looks whether the keeper is still there."""
SURE = 5
"""Somebody else uses the server, when so many looks in a row say so: two who leave may take each other for that."""
_POLL_S = 0.01

_log = structlog.get_logger(__name__)


class _Answer(Enum):
    READY = auto()
    STARTING = auto()
    SILENT = auto()


class EmbeddedPostgres:
    """A use of the server in `data`: entering starts or joins it, leaving stops it if nobody else is there.

    Entering raises Misconfigured (folder or binaries can't serve) or Unavailable (the server does not start; the
    message ends with its last words).
    """

    def __init__(self, data: Path) -> None:
        self.folder = DataFolder(data)
        self._hold = -1

    @property
    def dsn(self) -> str:
        """DSN of the database `ringwheel`, for asyncpg."""
        return self.folder.dsn(DATABASE)

    async def __aenter__(self) -> Self:
        self.folder.prepare()
        self._hold = await self._share()
        try:
            await self._await_server()
        except BaseException:
            os.close(self._hold)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.folder.leave(self._hold):
            await self._await_end()

    async def run(self) -> None:
        """Put a new keeper in the place of one that was killed. Never returns; ended by cancellation.

        The server does not need its keeper to work, only to be started again and to be stopped.
        """
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                replaced = await asyncio.to_thread(self._ensure_keeper)
            except (RingwheelError, OSError) as error:  # the database may well work on: no reason to end the service
                _log.error("embedded_postgres.keeper_missing", data=str(self.folder.path), error=str(error))
                continue
            if replaced:
                _log.warning("embedded_postgres.keeper_replaced", data=str(self.folder.path))

    async def _share(self) -> int:
        try:
            async with asyncio.timeout(STOP_S):
                while (descriptor := self.folder.try_share()) is None:  # noqa: ASYNC110 - the event is another process's
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise self._unavailable("The server that was there before does not end") from None
        return descriptor

    async def _await_server(self) -> None:
        """Wait until a connection stands; start a keeper if there is none. A keeper of ours that ends has failed."""
        loop = asyncio.get_running_loop()
        started = False
        began = sign_of_life = loop.time()
        while True:
            started |= await asyncio.to_thread(self._ensure_keeper, started)
            answer = await self._knock()
            if answer is _Answer.READY:
                return
            if answer is _Answer.STARTING:  # recovery after a crash takes as long as it takes
                sign_of_life = loop.time()
            if loop.time() - sign_of_life > SILENCE_S:
                raise self._unavailable(f"The server did not answer for {SILENCE_S:.0f} s")
            # Each knock at a starting server is a line in its log: a long recovery is asked less often.
            await asyncio.sleep(max(_POLL_S, min(1.0, (loop.time() - began) / 10)))

    async def _knock(self) -> _Answer:
        """Alive means: a connection can be made."""
        try:
            await self._visit()
        except asyncpg.CannotConnectNowError:
            return _Answer.STARTING
        except asyncpg.TooManyConnectionsError:
            return _Answer.READY
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InterfaceError):
            return _Answer.SILENT
        except asyncpg.PostgresError as error:
            raise self._unavailable(f"The server answers, but can't be used: {error}") from error
        return _Answer.READY

    async def _visit(self) -> None:
        try:
            await self._connect(DATABASE)
        except asyncpg.InvalidCatalogNameError:
            await self._create_database()

    async def _connect(self, database: str, statement: str = "") -> None:
        connection = await asyncpg.connect(self.folder.dsn(database), timeout=10)
        try:
            if statement:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def _create_database(self) -> None:
        try:
            await self._connect("postgres", f"CREATE DATABASE {DATABASE}")
        except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            return  # by another node, in this same moment

    async def _await_end(self) -> None:
        """Wait for the keeper to go; not if somebody came before it woke up, for then it stays."""
        in_use = 0
        try:
            async with asyncio.timeout(STOP_S):
                while self.folder.kept() and in_use < SURE:
                    await asyncio.sleep(_POLL_S)
                    in_use = in_use + 1 if self.folder.used() else 0
        except TimeoutError:
            _log.warning("embedded_postgres.still_stopping", data=str(self.folder.path))

    def _ensure_keeper(self, failed: bool = False) -> bool:
        """Start a keeper if there is none; True if so. `failed`: raise instead, for it was ours that ended."""
        descriptor = self.folder.try_keep()
        if descriptor is None:
            return False
        try:
            if failed:
                raise self._unavailable("The server can't be started")
            self._start_keeper(descriptor)
        finally:
            os.close(descriptor)
        return True

    def _start_keeper(self, keeper_lock: int) -> None:
        folder = self.folder
        found = binaries.find(folder.data_major())
        runs_as = account.choose(Path(found.program("postgres")), folder.pgdata_owner())
        folder.prepare_sockets(runs_as)
        orders = keeper.Orders(
            data=str(folder.path),
            sockets=str(folder.sockets),
            binaries=str(found.folder),
            major=found.major,
            config=str(Path(__file__).resolve().parent),
            port=PORT,
            keeper_lock=keeper_lock,
            prefix=list(runs_as.prefix),
            user=runs_as.user,
            group=runs_as.group,
        )
        command = [sys.executable, "-I", "-S", keeper.__file__, json.dumps(orders._asdict())]
        done = subprocess.run(  # noqa: S603 - our own words, no shell; it detaches at once
            command,
            pass_fds=(keeper_lock,),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode:
            raise Misconfigured(f"The keeper of the embedded PostgreSQL can't be started: {done.stderr.strip()}")

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(f"{what}; data folder {self.folder.path}. Last words:\n{self.folder.last_words()}")
