"""A webhook target that behaves as each task's URL says, and remembers every call.

Scripts, by path: `ok`; `e500` fails twice, then answers 200; `busy` answers 429 with `Retry-After: 1` once; `hang`
never answers the first call; `close` closes the connection on the first call; `dead` always answers 500; `slow` answers
200 after SLOW_S; `cancel` is `ok`, but whoever submits it wants to cancel it before it is called.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import cast

from bench.sink import LENGTH, value

SCRIPTS = {"ok": 80, "e500": 6, "busy": 4, "hang": 2, "close": 4, "dead": 4}
"""Script -> share of the tasks, in percent."""
WITH_FAULTS = {"ok": 83, "e500": 4, "busy": 2, "hang": 1, "close": 2, "dead": 2, "slow": 3, "cancel": 3}
"""The same where something is done to the nodes: some attempts are long, some tasks are cancelled."""
SLOW_S = 1.0
BACKLOG = 4_096
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
    succeeded: bool


class Target:
    """All calls so far, by task id."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.heard: Callable[[], None] = lambda: None

    def answer(self, head: bytes) -> tuple[bytes | None, float]:
        """Note the call; answers what to send (None = hang, b"" = close) after how many seconds."""
        script = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
        task_id = (value(head, b"webhook-id: ") or b"").decode()
        calls = self.calls[task_id]
        failed = len(calls) < FAILURES[script]
        fence = (value(head, b"ringwheel-fence: ") or b"").decode()
        attempt = int(value(head, b"ringwheel-attempt: ") or b"0")
        calls.append(Call(time() * 1e3, fence, attempt, not failed))
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
            answer, delay_s = self._target.answer(head)
            if answer == b"":
                self._transport.close()
                return
            if answer is not None and delay_s:
                asyncio.get_running_loop().call_later(delay_s, self._late, answer)
            elif answer is not None:
                self._transport.write(answer)

    def _late(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)


async def listen(target: Target) -> asyncio.Server:
    """Serve `target` on a free port of the loopback.

    Where the backlog is full, the kernel holds a connection up that its client takes for open: a letter that timed out
    long ago may then be read after the next one.
    """
    return await asyncio.get_running_loop().create_server(lambda: _Connection(target), "127.0.0.1", 0, backlog=BACKLOG)
