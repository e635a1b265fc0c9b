"""The nodes of a cluster: `serve` processes on one database, each with a name; one that ended starts on its old port.

Promises: whatever state they were left in, all of them are ended with the stack that they were entered in.
"""

import asyncio
import os
import re
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from bench.load import ask, get
from bench.processes import END_S, Child, end, process
from bench.relay import Streams
from bench.stage import SERVE, ready

NAMES = "abcdefgh"
_SAMPLE = re.compile(r"^(ringwheel_\w+?)(?:_total)? (\S+)$", re.MULTILINE)


class Nodes:
    """Their processes by name."""

    def __init__(self, dsn: str, stack: AsyncExitStack) -> None:
        self._dsn = dsn
        self._stack = stack
        self.advertised: dict[str, str] = {}
        """Name -> address under which others reach it, if not its own."""
        self.clocks: dict[str, Path] = {}
        """Name -> the file that says how wrong its wall clock is (`seam.py`), of those that have one."""
        self._ports: dict[str, int] = {}
        self._complaints: list[str] = []
        self.children: dict[str, Child] = {}

    async def start(self, name: str) -> None:
        """Start (or start again) the node of this name; it listens then, and may own nothing yet."""
        arguments = [*SERVE, "--database-url", self._dsn, "--name", name]
        arguments[arguments.index("--port") + 1] = str(self._ports.get(name, 0))
        if name in self.advertised:
            arguments += ["--advertise", self.advertised[name]]
        if name in self.clocks:
            arguments[:2] = ["-m", "bench.seam", str(self.clocks[name])]
        if name in self.children:
            self._complaints += self.children[name].complaints
        child = await self._stack.enter_async_context(process(*arguments, ready=r"listening.*?127\.0\.0\.1:(\d+)"))
        self.children[name] = child
        self._ports[name] = child.port

    async def ready(self) -> None:
        """Return when every shard has a living owner and all nodes say that they are ready."""
        for child in self.children.values():
            await ready(child)

    async def leave(self, name: str) -> None:
        """Have the node go in good order (SIGTERM), and wait until it has. Raises TimeoutError."""
        child = self.children[name]
        self.signal(name, signal.SIGTERM)
        async with asyncio.timeout(END_S):
            await asyncio.shield(child.ended)
        del self.children[name]
        self._complaints += child.complaints

    def signal(self, name: str, number: int) -> None:
        """Send the node a signal."""
        os.kill(self.children[name].pid, number)

    def end(self) -> None:
        """Let all of them end at the same time; a process that is stopped can't."""
        end(self.children.values())

    @property
    def ports(self) -> list[int]:
        """Where they listen; of those that were killed, where they did."""
        return [self._ports[name] for name in self.children]

    def name_at(self, port: int) -> str:
        """Who listens there."""
        return next(name for name, other in self._ports.items() if other == port)

    async def reach(self, name: str) -> Streams:
        """A connection to this one. Raises OSError, also before it has said where it listens."""
        if name not in self._ports:
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", self._ports[name])

    @property
    def complaints(self) -> list[str]:
        """Errors that the nodes logged, dead ones included."""
        return [*self._complaints, *(line for child in self.children.values() for line in child.complaints)]

    async def counters(self) -> Counter[str]:
        """What the living nodes count (`/metrics` without labels), summed."""
        found = Counter[str]()
        for child in self.children.values():
            for name, number in _SAMPLE.findall((await ask(child.port, get("/metrics"))).decode()):
                found[name] += int(float(number))
        return found

    def held(self) -> tuple[float, int]:
        """Resident memory (MiB) and open descriptors, of the node that has most of each."""
        living = [child for child in self.children.values() if not child.ended.done()]
        descriptors = [len(list(Path(f"/proc/{child.pid}/fd").iterdir())) for child in living]
        return max(child.rss_mib() for child in living), max(descriptors)
