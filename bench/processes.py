"""Processes that a benchmark needs beside it: started, waited for until they say that they are ready, always ended.

A process is ready when it prints a line that matches a pattern, on either of its streams. What it prints after that is
read and forgotten, but for the end of it, which goes into the error when the process dies early.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from bench.cpu import process_s

READY_S = 60.0
END_S = 30.0
KEPT_BYTES = 16_384
KEPT_COMPLAINTS = 20
_COMPLAINT = re.compile(r'"level": ?"(?:error|critical)"|Traceback|never retrieved')


class Failed(Exception):
    """A process that the benchmark needs ended, or never became ready."""


class Child(asyncio.SubprocessProtocol):
    """One running process."""

    def __init__(self, pattern: str) -> None:
        loop = asyncio.get_running_loop()
        self._pattern = re.compile(pattern)
        self._output = ""
        self._line = ""
        self.complaints: list[str] = []
        """The first lines that tell of an error of its own."""
        self.pid = 0
        self.ready: asyncio.Future[re.Match[str]] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Looks for the ready line, and for complaints; keeps the tail."""
        text = data.decode("utf-8", "replace")
        self._output = (self._output + text)[-KEPT_BYTES:]
        *lines, self._line = (self._line[-KEPT_BYTES:] + text).split("\n")
        room = KEPT_COMPLAINTS - len(self.complaints)
        self.complaints += [line for line in lines if _COMPLAINT.search(line)][:room]
        if not self.ready.done() and (match := self._pattern.search(self._output)):
            self.ready.set_result(match)

    def process_exited(self) -> None:
        """It is no more; what it said last may not be read yet."""
        self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """All that it said is read: whoever waits for readiness waits in vain."""
        if not self.ready.done():
            self.ready.set_exception(Failed(f"ended before it was ready:\n{self._output}"))

    @property
    def port(self) -> int:
        """The port that its ready line named."""
        return int(self.ready.result()[1])

    def check(self) -> None:
        """Raises Failed when the process has ended."""
        if self.ended.done():
            raise Failed(f"ended by itself:\n{self._output}")

    def rss_mib(self) -> float:
        """Its resident memory (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    def cpu_s(self) -> float:
        """Processor time that it has used (Linux)."""
        return process_s(self.pid)


@asynccontextmanager
async def process(
    *arguments: str, ready: str = r"ready .*:(\d+)\n", environment: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Runs `python <arguments>`; enters when it is ready, and ends it on the way out: politely, then by force."""
    transport, child = await asyncio.get_running_loop().subprocess_exec(
        lambda: Child(ready),
        sys.executable,
        *arguments,
        stdin=None,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    child.pid = transport.get_pid()
    try:
        async with asyncio.timeout(READY_S):
            await child.ready
        yield child
    finally:
        await _end(child)
        transport.close()


def end(children: Iterable[Child]) -> None:
    """Let all of them end at the same time; a process that is stopped can't."""
    for child in children:
        if not child.ended.done():
            os.kill(child.pid, signal.SIGCONT)
            os.kill(child.pid, signal.SIGTERM)


async def _end(child: Child) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.ended.done():
            return
        os.kill(child.pid, number)
        try:
            async with asyncio.timeout(END_S):
                await asyncio.shield(child.ended)
        except TimeoutError:
            continue
