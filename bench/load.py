"""An HTTP/1.1 load generator that costs little: ready-made requests on keep-alive connections, no HTTP library.

- `closed_loop`: each connection sends its next request when the last is answered. Measures throughput; hides stalls.
- `open_loop`: requests leave at a given rate whatever the answers do, and latency counts from the moment at which a
  request should have left (no coordinated omission). Measures lateness.

Both serve ours and the floors. Refuses: answers without content-length, and a server that closes connections.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

LIMIT_S = 300.0
"""A run that takes longer has hung."""


@dataclass(slots=True)
class Run:
    """What came of one run."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    kept_ms: list[float] = field(default_factory=list)
    """Latencies of the answers with a status below 300."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds

    def expect(self, status: int) -> "Run":
        """Raises RuntimeError unless every answer had this status."""
        if set(self.statuses) - {status}:
            raise RuntimeError(f"expected {status} alone, got {dict(self.statuses)}")
        return self


def post(path: str, body: bytes, headers: str = "") -> bytes:
    """A ready-made JSON POST; `headers` are whole lines, each with its CRLF."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str) -> bytes:
    """A ready-made GET."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, answered: Callable[["Connection", int, bytes, float], None], lost: Callable[[], None]) -> None:
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._need = 0
        self._since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to send."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells its owner, who knows whether that is an error."""
        self._lost()

    def send(self, request: bytes, since: float) -> None:
        """Sends a request whose latency counts from `since`."""
        assert self._transport is not None
        self._since = since
        self._transport.write(request)

    def close(self) -> None:
        """Ends the connection."""
        assert self._transport is not None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Collects one answer."""
        self._buffer = buffer = self._buffer + data if self._buffer else data
        if self._need == 0:
            self._need = _length(buffer)
        if self._need == 0 or len(buffer) < self._need:
            return
        self._buffer = b""
        self._need = 0
        self._answered(self, int(buffer[9:12]), buffer, self._since)


def _length(buffer: bytes) -> int:
    """Bytes of the whole answer; 0 while its head is not complete."""
    head = buffer.find(b"\r\n\r\n")
    if head < 0:
        return 0
    at = buffer.find(b"ontent-", 0, head)
    while at >= 0 and buffer[at + 7 : at + 14].lower() != b"length:":
        at = buffer.find(b"ontent-", at + 7, head)
    if at < 0:
        raise RuntimeError(f"answer without content-length: {buffer[:head]!r}")
    return head + 4 + int(buffer[at + 14 : buffer.find(b"\r", at)])


class _Generator(ABC):
    """What both loops share: connections, the count of answers, and the end."""

    def __init__(self) -> None:
        self.run = Run()
        self.bodies: list[bytes] | None = None
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.connections: list[Connection] = []

    async def connect(self, port: int, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(
                lambda: Connection(self.answered, self.lost), "127.0.0.1", port
            )
            self.connections.append(connection)

    def answered(self, connection: Connection, status: int, answer: bytes, since: float) -> None:
        self.run.statuses[status] += 1
        took_ms = (perf_counter() - since) * 1e3
        self.run.latencies_ms.append(took_ms)
        if status < 300:
            self.run.kept_ms.append(took_ms)
        if self.bodies is not None:
            self.bodies.append(answer.partition(b"\r\n\r\n")[2])
        self.next(connection)

    @abstractmethod
    def next(self, connection: Connection) -> None:
        """The connection is free: send what comes next, if anything."""

    def lost(self) -> None:
        if not self.finished.done():
            self.finished.set_exception(ConnectionError("the server closed a connection in the middle of a run"))

    def finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    async def end(self, begin: float) -> Run:
        try:
            async with asyncio.timeout(LIMIT_S):
                await self.finished
        finally:
            self.finish()
            for connection in self.connections:
                connection.close()
        self.run.seconds = perf_counter() - begin
        return self.run


class _Closed(_Generator):
    def __init__(self, requests: Iterable[bytes]) -> None:
        super().__init__()
        self._requests: Iterator[bytes] = iter(requests)
        self._busy = 0

    def begin(self) -> None:
        self._busy = len(self.connections)
        for connection in self.connections:
            self.next(connection)

    def next(self, connection: Connection) -> None:
        request = next(self._requests, None)
        if request is not None:
            connection.send(request, perf_counter())
            return
        self._busy -= 1
        if self._busy == 0:
            self.finish()


class _Open(_Generator):
    def __init__(self, requests: Iterable[bytes], rate_hz: float) -> None:
        super().__init__()
        self._requests: Iterator[bytes] = iter(requests)
        self._rate_hz = rate_hz
        self._begin = 0.0
        self._number = 0
        self._exhausted = False
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._free: list[Connection] = []

    def begin(self) -> None:
        self._begin = perf_counter()
        self._free = list(self.connections)
        self._tick()

    def _tick(self) -> None:
        """Lets everything leave whose moment has come; sleeps until the next one."""
        if self.finished.done():
            return
        self._gather(perf_counter())
        while self._waiting and self._free:
            self.next(self._free.pop())
        if self._exhausted:
            self._look()
        else:
            asyncio.get_running_loop().call_later(max(0.0, self._moment() - perf_counter()), self._tick)

    def _gather(self, now: float) -> None:
        while not self._exhausted and self._moment() <= now:
            request = next(self._requests, None)
            if request is None:
                self._exhausted = True
            else:
                self._waiting.append((self._moment(), request))
                self._number += 1

    def _moment(self) -> float:
        """When the next request should leave."""
        return self._begin + self._number / self._rate_hz

    def next(self, connection: Connection) -> None:
        if self._waiting:
            since, request = self._waiting.popleft()
            connection.send(request, since)
            return
        self._free.append(connection)
        self._look()

    def _look(self) -> None:
        if self._exhausted and len(self._free) == len(self.connections):
            self.finish()


async def closed_loop(port: int, requests: Iterable[bytes], connections: int) -> Run:
    """Sends every request once over `connections` connections. Raises ConnectionError, TimeoutError."""
    return await closed_loops((port,), requests, connections)


async def closed_loops(ports: Sequence[int], requests: Iterable[bytes], connections: int) -> Run:
    """The same over as many connections to several ports: each takes as much as it answers."""
    generator = _Closed(requests)
    for port in ports:
        await generator.connect(port, connections // len(ports))
    begin = perf_counter()
    generator.begin()
    return await generator.end(begin)


async def open_loop(port: int, requests: Iterable[bytes], rate_hz: float, connections: int) -> Run:
    """Sends request number i at i / rate_hz; waits for all answers. Raises ConnectionError, TimeoutError."""
    generator = _Open(requests, rate_hz)
    await generator.connect(port, connections)
    begin = perf_counter()
    generator.begin()
    return await generator.end(begin)


async def ask(port: int, request: bytes) -> bytes:
    """One request on a connection of its own; answers the body. Raises RuntimeError unless the status is 2xx."""
    generator = _Closed([request])
    generator.bodies = []
    await generator.connect(port, 1)
    generator.begin()
    run = await generator.end(perf_counter())
    if not all(200 <= status < 300 for status in run.statuses):
        raise RuntimeError(f"{request[:60]!r}: {dict(run.statuses)} {generator.bodies[0][:500]!r}")
    return generator.bodies[0]
