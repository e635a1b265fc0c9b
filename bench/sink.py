"""A webhook target that costs little: answers 200 to every POST and remembers when each task arrived.

A process of its own, `python -m bench.sink`, on a free port of the loopback; prints `ready 127.0.0.1:<port>`.
GET /seen answers what came since the last reset; GET /wait?count=N answers that once N tasks came; GET /reset forgets.

Times are wall-clock milliseconds: the schedule time in the header was on the clock of the same machine.
"""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from time import time
from typing import cast

import uvloop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ID = b"webhook-id: "
SCHEDULE_TIME = b"ringwheel-schedule-time: "
LENGTH = b"content-length: "


@dataclass(slots=True)
class Seen:
    """What came since the last reset."""

    count: int = 0
    first_ms: float = 0.0
    last_ms: float = 0.0
    ids: set[bytes] = field(default_factory=set)
    lateness_ms: list[float] = field(default_factory=list)
    waiting: list[tuple[int, asyncio.Transport]] = field(default_factory=list)

    def add(self, head: bytes) -> None:
        """Another request arrived."""
        now_ms = time() * 1e3
        self.count += 1
        self.last_ms = now_ms
        if self.count == 1:
            self.first_ms = now_ms
        task_id = value(head, ID)
        if task_id is not None:
            self.ids.add(task_id)
        due = value(head, SCHEDULE_TIME)
        if due is not None:
            self.lateness_ms.append(now_ms - second_ms(due[:19]) - int(due[20:23]))
        if self.waiting:
            self.wake()

    def wake(self) -> None:
        """Answers those whose count is reached."""
        for count, transport in self.waiting:
            if self.count >= count:
                transport.write(self.answer())
        self.waiting = [wish for wish in self.waiting if self.count < wish[0]]

    def answer(self) -> bytes:
        """The whole as an HTTP answer."""
        body = json.dumps(
            {
                "count": self.count,
                "distinct": len(self.ids),
                "first_ms": self.first_ms,
                "last_ms": self.last_ms,
                "lateness_ms": [round(late, 3) for late in self.lateness_ms],
            }
        ).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def value(head: bytes, name: bytes) -> bytes | None:
    """The value of a header; its name is sent in lower case or in Title-Case by the clients that come here."""
    at = head.find(name)
    if at < 0:
        at = head.find(name.title())
        if at < 0:
            return None
    return head[at + len(name) : head.index(b"\r", at)]


@lru_cache(maxsize=1024)
def second_ms(text: bytes) -> float:
    """Milliseconds since 1970 of `2027-01-31T09:00:00`, UTC."""
    return datetime.fromisoformat(text.decode()).replace(tzinfo=UTC).timestamp() * 1e3


class Sink(asyncio.Protocol):
    """One connection. Requests may be pipelined and cut anywhere."""

    seen = Seen()

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """Answers every request that is complete."""
        buffer = self._buffer + data
        while (end := buffer.find(b"\r\n\r\n") + 4) > 3:
            head = buffer[:end]
            length = value(head, LENGTH)
            size = end + (int(length) if length else 0)
            if len(buffer) < size:
                break
            buffer = buffer[size:]
            self._answer(head)
        self._buffer = buffer

    def _answer(self, head: bytes) -> None:
        assert self._transport is not None
        if head.startswith(b"POST"):
            Sink.seen.add(head)
            self._transport.write(OK)
        elif head.startswith(b"GET /wait?count="):
            Sink.seen.waiting.append((int(head[16 : head.index(b" ", 16)]), self._transport))
            Sink.seen.wake()
        else:
            if head.startswith(b"GET /reset"):
                Sink.seen = Seen()
            self._transport.write(Sink.seen.answer())


async def serve() -> None:
    """Runs until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0, backlog=1024)
    print(f"ready 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
