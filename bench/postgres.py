"""The embedded PostgreSQL as a victim: shut down, killed, kept away. Its keeper starts it again by itself."""

import asyncio
import os
import signal
from contextlib import suppress
from time import monotonic, time

import asyncpg

from bench.cpu import family_s
from storage.datafolder import DataFolder
from storage.embedded import DATABASE

WAYS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT, "killed": signal.SIGKILL}
AWAY = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises while it is away; the last one when it goes while a statement is about to be sent."""
BACK_S = 120.0
LOOK_S = 0.02


class Postgres:
    """The server in a data folder."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    def end(self, way: str) -> None:
        """End it, in one of WAYS."""
        os.kill(self._pid(), WAYS[way])

    def cpu_s(self) -> float:
        """Processor time that it and its processes have used, those that have ended included (Linux)."""
        return family_s(self._pid())

    def _pid(self) -> int:
        return int((self._folder.pgdata / "postmaster.pid").read_text().split()[0])

    def hold(self) -> None:
        """Nobody starts it again until `release`."""
        os.kill(self._keeper(), signal.SIGSTOP)

    def release(self) -> None:
        """Whoever starts it again may."""
        with suppress(ProcessLookupError):
            os.kill(self._keeper(), signal.SIGCONT)

    def _keeper(self) -> int:
        return int(self._folder.keeper_lock.read_text())

    async def gone(self) -> float:
        """Wait until it answers nobody; when that was, in ms since 1970."""
        return await self._wait(there=False)

    async def back(self) -> float:
        """Wait until it answers; when that was, in ms since 1970. Raises TimeoutError."""
        return await self._wait(there=True)

    async def _wait(self, *, there: bool) -> float:
        deadline = monotonic() + BACK_S
        while monotonic() < deadline:
            if await self._answers() is there:
                return time() * 1e3
            await asyncio.sleep(LOOK_S)
        raise TimeoutError("the database did not " + ("come back" if there else "end"))

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(self._folder.dsn(DATABASE), timeout=5)
        except AWAY:
            return False
        connection.terminate()
        return True
