"""Writes to one worker what its link has to say: a chunk at a time, the next one when the worker takes more.

Promises: a task is written in the turn of the loop in which it comes, or FRAME_S after those before it (after many,
twice that); those that one read of a link brings, as soon as all of it was heard. Of a worker that takes nothing for a
part (STALLS) of `stall_s` the tasks that wait are withdrawn, since others can do them; one that does not take a chunk
within `stall_s` is cut off, and `silent` says so. Bound: OUTBOX_BYTES. While as much waits, `room_bytes` is 0; while
more does, `room` is not set: nothing should be read of it.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NoReturn, cast

from aiohttp import web

from actors.core.lease import Lent
from gateway.outbox import CHUNK_BYTES, Outbox
from gateway.server import Connection
from gateway.turn import Turn
from gateway.watcher import Gone, cut

OUTBOX_BYTES = 4 * 1024 * 1024
STALLS = 6
FRAME_S = 0.002
"""Of tasks that keep coming a frame has those of so long: it costs both ends more than each of them."""
BUSY_TASKS = 10
"""After a frame of as many, or more, the next one has those of twice as long."""
_PING = b"\x89\x00"
"""The whole frame (RFC 6455, 5.5.2)."""


class WorkerWriter:
    """The way to one worker."""

    def __init__(
        self,
        request: web.Request,
        stall_s: float,
        turn: Turn,
        *,
        drained: Callable[[], None],
        withdrawn: Callable[[list[Lent]], None],
    ) -> None:
        """`drained`: there may be more room than there was; `withdrawn`: the worker never hears of these."""
        self._request = request
        self._connection = cast(Connection, request.protocol)
        self._stall_s = stall_s
        self._turn = turn
        self._drained = drained
        self._withdrawn = withdrawn
        self._outbox = Outbox()
        self._bodies: list[bytes] = []
        """Tasks that gather."""
        self._tasks: list[Lent] = []
        """The same."""
        self._gathered_bytes = 0
        self._next_s = 0.0
        """Until then they do."""
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        """Nobody writes any more: what is put here was not sent."""
        self._stalled = False
        self._silent = False
        self.room = asyncio.Event()
        self.room.set()

    @property
    def room_bytes(self) -> int:
        """So much may be said now."""
        return 0 if self._stalled else OUTBOX_BYTES - self._outbox.bytes - self._gathered_bytes

    @property
    def silent(self) -> bool:
        """The worker took nothing for so long that it was cut off; it may be at work all the same."""
        return self._silent or self._connection.stalled

    def say(self, message: bytes) -> None:
        """One message, after all that was said before."""
        self._say_gathered()
        self._put(message)

    def say_tasks(self, bodies: list[bytes], tasks: list[Lent]) -> None:
        """These tasks: in this turn of the loop, or a frame's time after the last ones."""
        self._bodies += bodies
        self._tasks += tasks
        self._gathered_bytes += sum(map(len, bodies))
        if self._turn.put_off(self._send_tasks):
            return
        loop = asyncio.get_running_loop()
        if self._gathered_bytes >= CHUNK_BYTES or loop.time() >= self._next_s:
            self._send_tasks()
        elif self._timer is None:
            self._timer = loop.call_at(self._next_s, self._send_tasks)

    def _send_tasks(self) -> None:
        """What gathered goes out, if the worker takes it; `run` sees to the rest."""
        frame_s = FRAME_S if len(self._tasks) < BUSY_TASKS else 2 * FRAME_S
        self._next_s = asyncio.get_running_loop().time() + frame_s
        self._say_gathered()
        transport = self._request.transport
        if not (self._over or transport is None or transport.is_closing() or self._connection.writing_paused):
            transport.write(self._outbox.take())
            self._outbox.news.set()

    def _say_gathered(self) -> None:
        """What gathered has its place in the outbox."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._bodies:
            return
        bodies, tasks = self._bodies, self._tasks
        self._bodies, self._tasks, self._gathered_bytes = [], [], 0
        for start, end in _messages_of(bodies):
            self._put(b'{"type":"tasks","tasks":[' + b",".join(bodies[start:end]) + b"]}", tasks[start:end])

    def _put(self, message: bytes, tasks: Sequence[Lent] = ()) -> None:
        """`tasks` are those that the worker hears of by it."""
        self._outbox.put(message, tasks)
        if self._outbox.bytes > OUTBOX_BYTES:
            self.room.clear()

    def ping(self) -> None:
        """Ask for a sign of life, before all that waits here."""
        transport = self._request.transport
        if transport is not None:
            transport.write(_PING)

    def withdraw(self, *, sealed: bool = False) -> list[Lent]:
        """The tasks that wait are not said any more. `sealed`: nor are those, for nobody is there to hear them."""
        self._say_gathered()
        return self._outbox.withdraw(sealed=sealed)

    def seal(self) -> None:
        """What waits now is said as long as the link lives."""
        self._say_gathered()
        self._outbox.seal()

    async def run(self) -> NoReturn:
        """Write until the connection ends."""
        try:
            while True:
                await self._outbox.news.wait()
                await self._write()
        except (ConnectionError, TimeoutError) as error:
            self._silent = isinstance(error, TimeoutError)
            cut(self._request)
            raise Gone from None
        finally:
            self._over = True

    async def _write(self) -> None:
        """A chunk of what waits, as one."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        if not self._connection.writing_paused:
            transport.write(self._outbox.take())
        while self._connection.writing_paused:
            await self._drain(transport)
        self._outbox.written()
        if self._outbox.bytes <= OUTBOX_BYTES:
            self.room.set()
        self._drained()

    async def _drain(self, transport: asyncio.WriteTransport) -> None:
        """Return when the worker takes more. Raises TimeoutError."""
        async with asyncio.timeout(self._stall_s):
            while True:
                left = transport.get_write_buffer_size()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._stall_s / STALLS):
                        await self._connection.drained()
                        break
                if transport.get_write_buffer_size() >= left:
                    self._stalled = True
                    self._withdrawn(self.withdraw())
        self._stalled = False


def _messages_of(bodies: list[bytes]) -> Iterator[tuple[int, int]]:
    """From where to where go into one message, of tasks that are too large for one."""
    start = size = 0
    for at, body in enumerate(bodies):
        if size and size + len(body) > CHUNK_BYTES:
            yield start, at
            start, size = at, 0
        size += len(body)
    yield start, len(bodies)
