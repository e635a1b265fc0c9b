"""`ringwheel` as a process: started, listened to, ended."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

LIMIT_S = 60.0
RINGWHEEL = str(Path(sys.executable).with_name("ringwheel"))
URL = r"(http://127\.0\.0\.1:\d+)"


class Program:
    """One process and what it has said, on both of its streams."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.output = ""
        self._news = asyncio.Event()
        self.heard = asyncio.Event()
        """It will say nothing more."""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def listen(self) -> None:
        """Read until it has ended."""
        assert self._process.stdout is not None
        while chunk := await self._process.stdout.read(65_536):
            self.output += chunk.decode()
            self._news.set()
        self.heard.set()
        self._news.set()

    async def says(self, pattern: str) -> re.Match[str]:
        """The first match in what it says."""
        async with asyncio.timeout(LIMIT_S):
            while not (match := re.search(pattern, self.output)):
                assert not self.heard.is_set(), f"it ended without {pattern!r}:\n{self.output}"
                self._news.clear()
                await self._news.wait()
        return match

    async def url(self) -> str:
        """Where it listens."""
        return (await self.says(f"listening.*?{URL}"))[1]

    def signal(self, number: signal.Signals) -> None:
        """To its whole process group, as a terminal does."""
        os.killpg(self.pid, number)

    async def ended(self) -> int:
        """Its exit code; nothing that it said may be a traceback."""
        async with asyncio.timeout(LIMIT_S):
            code = await self._process.wait()
        assert "Traceback" not in self.output, self.output
        return code

    async def killed(self) -> None:
        """End it with no time for anything."""
        self.signal(signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def ringwheel(*words: str, **environment: str) -> AsyncIterator[Program]:
    """Runs `ringwheel <words>`; it is gone on the way out."""
    process = await asyncio.create_subprocess_exec(
        RINGWHEEL,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    program = Program(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(program.listen())
        try:
            yield program
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def serve(dsn: str, name: str = "node-a", *words: str, grace_s: float = 20.0) -> tuple[str, ...]:
    """The words of a node that may call this machine."""
    return (
        *("serve", "--database-url", dsn, "--port", "0", "--name", name, "--grace", str(grace_s)),
        *("--allow-target", "127.0.0.0/8", *words),
    )
