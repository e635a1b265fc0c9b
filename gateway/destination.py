"""One target host of one tenant: the calls that wait for a line to it, and the lines that are being made for them.

A call takes the first line that comes, made anew or free again after another call. Few are made at a time: to connect
costs more than a call, and a burst that made a line for each of its calls would keep all others waiting meanwhile.

Promises: as long as calls wait, lines are being made; what a connection fails of ends one call, or, when it took too
long, all that waited as long. Bound: DIALS connections under way.
"""

import asyncio
from asyncio import TaskGroup
from collections import deque
from collections.abc import Callable

from aiohttp import ClientRequest, ClientTimeout, ConnectionTimeoutError, ServerDisconnectedError, TCPConnector
from aiohttp.connector import Connection
from yarl import URL

from actors.core.task import Phase
from gateway.call import Call, LeaseEnded
from gateway.line import Host, Line
from gateway.pool import Pool

DIALS = 16
CONNECT_S = 10.0
"""Limit of connecting to one address, when the attempt's deadline is not nearer."""

# The threshold keeps aiohttp from rounding up to whole seconds.
_CONNECT = ClientTimeout(total=None, sock_connect=CONNECT_S, ceil_threshold=float("inf"))


class Destination:
    """Sends calls to one host."""

    def __init__(
        self,
        host: Host,
        origin: URL,
        *,
        connector: TCPConnector,
        group: TaskGroup,
        pool: Pool,
        may_fire: Callable[[], bool],
    ) -> None:
        """`group` runs what makes lines; `pool` has those that rest, of all hosts."""
        self.host = host
        self._origin = origin
        self._connector = connector
        self._group = group
        self._pool = pool
        self._may_fire = may_fire
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Call] = deque()
        self._dialing: dict[asyncio.Task[None], None] = {}
        """In the order in which they began."""

    @property
    def busy(self) -> bool:
        """A call waits, or a line is being made."""
        return bool(self._waiting or self._dialing)

    def send(self, call: Call) -> None:
        """Write it at once where a line rests, else as soon as there is one."""
        line = self._pool.take(self.host)
        if line is not None:
            if not self._write(call, line):
                self._rest(line)
        else:
            call.waits = self.give_up
            self._waiting.append(call)
            self._dial()

    def give_up(self, call: Call) -> None:
        """A call that waits for a line has ended."""
        self._waiting.remove(call)
        if len(self._dialing) > len(self._waiting):
            oldest = next(iter(self._dialing))
            del self._dialing[oldest]  # now: another call may give up before its task has ended
            oldest.cancel()

    def leave(self) -> None:
        """Make no more lines; whoever waits is told nothing."""
        for call in self._waiting:
            call.forget()
        self._waiting.clear()
        for task in self._dialing:
            task.cancel()

    # --- lines

    def _dial(self) -> None:
        while len(self._dialing) < min(DIALS, len(self._waiting)):
            task = self._group.create_task(self._connect())
            self._dialing[task] = None
            task.add_done_callback(self._dialed)

    def _dialed(self, task: asyncio.Task[None]) -> None:
        self._dialing.pop(task, None)
        self._dial()

    async def _connect(self) -> None:
        if not self._waiting:
            return  # others came free in time
        began_s = self._loop.time()
        try:
            request = ClientRequest("GET", self._origin, loop=self._loop)  # says whom to connect to, and is never sent
            connection = await self._connector.connect(request, traces=[], timeout=_CONNECT)
        except TimeoutError:
            while self._waiting and self._waiting[0].began_s <= began_s:
                self._fail(ConnectionTimeoutError(f"connecting to {self._origin.host} takes too long"))
        except Exception as error:  # noqa: BLE001 - whatever it is, a call fails of it
            self._fail(error)
        else:
            self._open(connection)

    def _open(self, connection: Connection) -> None:
        """Make a line of it, unless it broke, or the target spoke unasked, before anybody could see that."""
        protocol = connection.protocol
        if protocol is None or not protocol.is_connected() or protocol.should_close:
            connection.close()
            self._fail(ServerDisconnectedError())
        else:
            self._rest(self._pool.open(connection, self.host, self._rest))

    def _rest(self, line: Line) -> None:
        """A line is free: whoever waits for one has it."""
        while self._waiting and line.open:
            if self._write(self._next(), line):
                return
        self._pool.put(line)

    def _write(self, call: Call, line: Line) -> bool:
        """False: it may not be sent any more."""
        if not self._may_fire() or call.letter.task.phase is not Phase.RUNNING:
            self._loop.call_soon(call.end, LeaseEnded())
            return False
        call.line = line
        line.send(call)
        return True

    def _next(self) -> Call:
        call = self._waiting.popleft()
        call.waits = None
        return call

    def _fail(self, error: Exception) -> None:
        if self._waiting:
            self._next().end(error)
