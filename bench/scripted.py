"""A webhook target that behaves as each task's URL says, and remembers every call.

A call arrived when the kernel got its bytes, not when the target had time to read them: a loop that is held up for two
seconds finds calls whose callers have given up and called again, or those of a shard's last owner and of its next one,
and reads them in any order.

Scripts, by path: `ok`; `e500` fails twice, then answers 200; `busy` answers 429 with `Retry-After: 1` once; `hang`
never answers the first call; `close` closes the connection on the first call; `dead` always answers 500; `slow` answers
200 after SLOW_S; `cancel` is `ok`, but whoever submits it wants to cancel it before it is called.
"""

import asyncio
import gc
import socket
import sys
from bisect import insort
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import attrgetter
from time import time
from typing import cast

from bench.sink import LENGTH, value

SCRIPTS = {"ok": 80, "e500": 6, "busy": 4, "hang": 2, "close": 4, "dead": 4}
"""Script -> share of the tasks, in percent."""
WITH_FAULTS = {"ok": 83, "e500": 4, "busy": 2, "hang": 1, "close": 2, "dead": 2, "slow": 3, "cancel": 3}
"""The same where something is done to the nodes: some attempts are long, some tasks are cancelled."""
SLOW_S = 1.0
BACKLOG = 4_096
LOOK_S = 0.02
TCP_STATE, LAST_RECEIVED = slice(0, 1), slice(52, 56)
"""In Linux's tcp_info (linux/tcp.h): the state, and ms since data was last received."""
ESTABLISHED = b"\x01"
SLACK_MS = 50.0
"""The kernel counts those in ticks, of 10 ms at most, and where the machine is shared a tick may come late."""
FAILURES = {"slow": 0, "cancel": 0, "ok": 0, "e500": 2, "busy": 1, "hang": 1, "close": 1, "dead": 1 << 30}
"""How many calls of a task fail before one succeeds."""
ANSWERS = {
    "ok": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "e500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
    "busy": b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    "dead": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
}


@dataclass(slots=True)
class Call:
    """One attempt as its target saw it."""

    arrived_ms: float
    fence: str
    attempt: int


_arrived_ms = attrgetter("arrived_ms")


class Target:
    """All calls so far, by task id, in the order in which they arrived."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.heard: Callable[[], None] = lambda: None
        self.count = 0
        """Calls so far."""
        self.pause_s = 0.0
        """The longest time that calls waited for the target to have a turn."""
        self.hung_up = 0
        """Calls that were read after their callers had gone."""

    def answer(self, head: bytes, waited_ms: float) -> tuple[bytes | None, float]:
        """Note the call, which was `waited_ms` in the kernel; answers what to send (None = hang, b"" = close) after
        how many seconds.
        """
        script = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
        task_id = (value(head, b"webhook-id: ") or b"").decode()
        calls = self.calls[task_id]
        failed = len(calls) < FAILURES[script]
        fence = (value(head, b"ringwheel-fence: ") or b"").decode()
        attempt = int(value(head, b"ringwheel-attempt: ") or b"0")
        self.count += 1
        insort(calls, Call(time() * 1e3 - waited_ms, fence, attempt), key=_arrived_ms)
        self.heard()
        if not failed:
            return ANSWERS["ok"], SLOW_S if script == "slow" else 0.0
        return {"hang": None, "close": b""}.get(script, ANSWERS.get(script)), 0.0


class _Connection(asyncio.Protocol):
    def __init__(self, target: Target) -> None:
        self._target = target
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[: end + 2].lower()
            length = int(value(head, LENGTH) or b"0")
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            waited_ms, gone = self._waited()
            self._target.hung_up += gone
            answer, delay_s = self._target.answer(head, waited_ms)
            if answer == b"":
                self._transport.close()
                return
            if answer is not None and delay_s:
                asyncio.get_running_loop().call_later(delay_s, self._late, answer)
            elif answer is not None:
                self._transport.write(answer)

    def _waited(self) -> tuple[float, bool]:
        """How many ms ago the bytes came, rather too few; and whether their caller has hung up since."""
        info = self._transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        waited_ms = int.from_bytes(info[LAST_RECEIVED], sys.byteorder) - SLACK_MS
        return max(0.0, waited_ms), info[TCP_STATE] != ESTABLISHED

    def _late(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


@asynccontextmanager
async def listening(target: Target) -> AsyncIterator[str]:
    """Serve `target` on a free port of the loopback, at this URL.

    Meanwhile the collector of cycles rests: a million calls, which have none, would hold the target up for a second.
    """
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(target), "127.0.0.1", 0, backlog=BACKLOG)
    gc.disable()
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch_pauses(target))
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            watching.cancel()
    finally:
        server.close()
        gc.enable()


async def _watch_pauses(target: Target) -> None:
    loop = asyncio.get_running_loop()
    last_s = 0.0
    while True:
        before_s, count = loop.time(), target.count
        await asyncio.sleep(LOOK_S)
        pause_s = loop.time() - before_s - LOOK_S
        if target.count > count:  # what waited for the last one's end has been read by now
            target.pause_s = max(target.pause_s, last_s, pause_s)
        last_s = pause_s
