"""A worker that keeps a journal, for faults: `python -m bench.hand NAME QUEUE CREDITS JOURNAL PORT...`, a process.

It works (`bench/holding.py`) over a link to the first of the ports; when that ends, it goes to the next one with the
leases that it holds. It prints `ready 127.0.0.1:<port>` once a node has answered its hello.

SIGUSR1: it closes its link, forgets everything, and comes back after AWAY_S. SIGUSR2: it closes its link and goes to
the next port with its leases.
"""

import asyncio
import signal
import sys
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from time import time

import msgspec
import uvloop

from bench import frames
from bench.holding import Holding, Message
from bench.journal import Journal, Line
from bench.websocket import Socket, connect

PATH = "/v1/worker"
TICK_S = 0.02
PAUSE_S = 0.05
AWAY_S = 4.0
"""Longer than a node waits for one that lost its link."""
HELLO_S = 5.0
"""A node that does not answer the hello in time is left alone: another one may."""


class Hand:
    """One process."""

    def __init__(self, holding: Holding, journal: Journal, ports: Sequence[int]) -> None:
        self._holding = holding
        self._journal = journal
        self._ports = ports
        self._socket: Socket | None = None
        self._port = 0
        self._since_s = 0.0
        """Where its link goes, and since when."""
        self._pause_s = PAUSE_S
        self._is_ready = False
        self._encode = msgspec.json.Encoder().encode

    async def run(self) -> None:
        """Work until the process is ended."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._leave)
        loop.add_signal_handler(signal.SIGUSR2, self._move)
        self._tick()
        for port in cycle(self._ports):
            try:
                await self._serve(port)
            except OSError:
                pass  # that node is dead: the next one
            await asyncio.sleep(self._pause_s)
            self._pause_s = PAUSE_S

    async def _serve(self, port: int) -> None:
        """One link, until it ends. Raises OSError."""
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._socket = await connect(port, PATH, self._heard, lost.set_result)
        self._since_s, self._port = time(), port
        self._journal.write(Line(self._since_s * 1e3, "link", port=port))
        self._say([self._holding.hello()])
        why = await lost
        self._socket = None
        self._journal.write(Line(time() * 1e3, "cut", port=port, detail=why))

    def _heard(self, message: bytearray) -> None:
        frame = frames.DECODER.decode(message)
        self._holding.heard(frame, time())
        if isinstance(frame, frames.Drain):
            self._move()
        elif isinstance(frame, frames.Hello) and not self._is_ready:
            self._is_ready = True
            print(f"ready 127.0.0.1:{self._port}", flush=True)

    def _tick(self) -> None:
        asyncio.get_running_loop().call_later(TICK_S, self._tick)
        if self._socket is None:
            return
        if self._holding.known:
            self._say(self._holding.due(time()))
        elif time() > self._since_s + HELLO_S:
            self._move()

    def _say(self, messages: Iterable[Message]) -> None:
        if self._socket is not None:
            for message in messages:
                self._socket.send(self._encode(message))

    def _leave(self) -> None:
        self._holding.forget(time())
        self._pause_s = AWAY_S
        self._move()

    def _move(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def work(name: str, queue: str, capacity: int, journal: Journal, ports: Sequence[int]) -> None:
    """Runs a hand."""
    await Hand(Holding(name, queue, capacity, journal.write), journal, ports).run()


if __name__ == "__main__":
    _name, _queue, _capacity, _path, *_ports = sys.argv[1:]
    uvloop.run(work(_name, _queue, int(_capacity), Journal(Path(_path)), list(map(int, _ports))))
