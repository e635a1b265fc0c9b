"""Open lines to targets, and which of them rest between two letters.

Promises: a line is handed out for its own host and tenant alone, the one that rests since the shortest time first, and
never after KEEP_ALIVE_S. Bound: `most` lines at rest; a further one takes the place of another.
"""

import asyncio
from asyncio import TimerHandle
from collections.abc import Callable

from aiohttp.connector import Connection

from gateway.line import Host, Line

KEEP_ALIVE_S = 4.0
"""Below the 5 s after which common servers close an idle connection: else we would write into closing ones."""
SWEEP_S = 1.0
"""How often those that have rested too long are closed."""


class Pool:
    """Lines of all hosts; its length says how many rest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._open: set[Line] = set()
        self._resting: dict[Host, dict[Line, float]] = {}
        """Of each host: the lines, and since when; in that order."""
        self._count = 0
        self._sweeper: TimerHandle | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def hosts(self) -> set[Host]:
        """Those that have a line, busy or at rest."""
        return {line.host for line in self._open}

    def open(self, connection: Connection, host: Host, rests: Callable[[Line], None]) -> Line:
        """A line of this connection; `rests` is called when a letter on it has ended, and it may be used again."""
        line = Line(connection, host, rests, self._forget)
        self._open.add(line)
        return line

    def put(self, line: Line) -> None:
        """The line rests."""
        if not line.open:
            line.drop()
            return
        if self._count >= self._most:
            self._close_one()
        self._resting.setdefault(line.host, {})[line] = self._loop.time()
        self._count += 1
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def take(self, host: Host) -> Line | None:
        """One to this host, open, or None."""
        lines = self._resting.get(host)
        while lines:
            line, since_s = lines.popitem()
            self._count -= 1
            if line.open and self._loop.time() - since_s < KEEP_ALIVE_S:
                return line
            line.drop()
        return None

    def close(self) -> None:
        """Close all lines. Whose call is under way is told nothing."""
        for line in list(self._open):
            line.drop()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _forget(self, line: Line) -> None:
        """It has closed, wherever it was."""
        self._open.discard(line)
        if self._resting.get(line.host, {}).pop(line, None) is not None:
            self._count -= 1

    def _close_one(self) -> None:
        for lines in self._resting.values():
            for line in lines:
                line.drop()  # and so out of here
                return

    def _sweep(self) -> None:
        self._sweeper = None
        until_s = self._loop.time() - KEEP_ALIVE_S
        for host, lines in list(self._resting.items()):
            for line in [line for line, since_s in lines.items() if since_s <= until_s]:
                line.drop()
            if not lines:
                del self._resting[host]
        if self._count:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
