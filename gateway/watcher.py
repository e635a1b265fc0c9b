"""One watcher's connection, whatever it speaks: its session and the children that serve it.

The opener reads snapshots, one at a time; the writer writes what the session has to say, in chunks; a third waits for
the service to go away, a fourth for the end of the client's key; what else a connection does (`attend`) is its own. The
first that ends, ends the connection; the writer ends it when the client takes nothing for `stall_s`.

`stream.py` speaks websocket, `events.py` server-sent events.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import NoReturn, cast
from urllib.parse import urlsplit

from aiohttp import web

from actors.core.errors import RingwheelError
from gateway.context import CALLER, GATEWAY, Gateway
from gateway.problems import Problem
from gateway.server import Connection
from gateway.session import Limits, Session
from gateway.snapshot import read_snapshot
from gateway.subscription import Subscription

LIMITS: web.AppKey[Limits] = web.AppKey("stream_limits", Limits)
"""Set on an application to have other limits than the default ones."""
WRITES_HZ = 1_000
"""How often all watchers together write, about: the more there are, the more messages each gathers between two
writes. The first after a quiet moment is written at once."""
LEAVE_S = 2.0
"""How long a farewell may take."""
_log = logging.getLogger(__name__)


class Gone(Exception):
    """The connection has ended."""


def cut(request: web.Request) -> None:
    """End its connection without a word."""
    if request.transport is not None:
        request.transport.abort()


async def part(request: web.Request, words: Awaitable[object]) -> NoReturn:
    """Say the last words of its connection, and raise Gone."""
    try:
        async with asyncio.timeout(LEAVE_S):
            await words
    except (ConnectionError, TimeoutError):
        cut(request)
    raise Gone


def check_origin(request: web.Request) -> None:
    """Raises Problem for a page of another origin: it must not read a developer's local service."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
        raise Problem("unreadable", "a page of another origin may not watch")


class Watcher(ABC):
    """A connection to which a session speaks."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.gateway: Gateway = request.app[GATEWAY]
        self.limits = request.app.get(LIMITS, Limits())
        self.caller = request[CALLER]
        self.tenant = self.caller.tenant
        self.session = Session(self.gateway.hub, self.tenant, self.limits)
        self._written = asyncio.Event()

    @abstractmethod
    async def attend(self) -> NoReturn:
        """Do what this kind of connection does besides; raise Gone when the client has left."""

    @staticmethod
    @abstractmethod
    def frame(message: bytes) -> bytes:
        """A message as it goes over the wire."""

    @abstractmethod
    async def bid_farewell(self) -> None:
        """Say that the service goes away."""

    @abstractmethod
    async def dismiss(self) -> None:
        """Say that the key is no longer in use."""

    @abstractmethod
    async def fail(self) -> None:
        """End the connection after an error of ours."""

    async def run(self) -> None:
        """Serve until either side ends it."""
        with self.gateway.hub.watching(), self.gateway.keyring.watching(self.caller) as self._ended:
            try:
                async with asyncio.TaskGroup() as group:
                    for child in (self._open, self._write, self._leave, self._end):
                        group.create_task(child())
                    await self.attend()
            except* Gone:
                pass  # the one way a connection ends
            except* Exception as errors:  # noqa: BLE001 - the socket is ours: no HTTP answer can follow
                _log.exception("a stream broke", exc_info=errors)
                await self.fail()
            finally:
                self.session.close()

    async def room(self) -> None:
        """Wait while the outbox is crowded."""
        while self.session.crowded:
            self._written.clear()
            await self._written.wait()

    async def _write(self) -> NoReturn:
        session = self.session
        try:
            while True:
                await session.news.wait()
                session.news.clear()
                while session.busy:
                    full = await self._write_some() >= self.limits.chunk_bytes
                    await asyncio.sleep(0 if full else self.gateway.hub.watchers / WRITES_HZ)
        except (ConnectionError, TimeoutError):
            self.cut()
            raise Gone from None

    async def _write_some(self) -> int:
        """One chunk, written as one; answers its bytes. aiohttp's way, message by message, costs hundreds the loop."""
        transport = self.request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        async with self.gateway.hub.writing:
            chunk = b"".join(map(self.frame, self.session.take()))
            transport.write(chunk)
        async with asyncio.timeout(self.limits.stall_s):
            await cast(Connection, self.request.protocol).drained()
        self._written.set()
        return len(chunk)

    def cut(self) -> None:
        """The client takes nothing: no farewell can reach it."""
        cut(self.request)

    async def _open(self) -> NoReturn:
        session = self.session
        while True:
            sub = session.next_opening()
            if sub is None:
                session.wanted.clear()
                await session.wanted.wait()
                continue
            if sub.reopened:
                await asyncio.sleep(self.limits.reopen_s)
                session.paused()
            await self.room()
            await self._show(sub)

    async def _show(self, sub: Subscription) -> None:
        limits, session = self.limits, self.session
        try:
            found = await read_snapshot(self.gateway, sub.topic, self.tenant, limits.snapshot_tasks, limits.scan)
        except RingwheelError as error:
            session.not_opened(sub, error)
            return
        if found is None:
            session.overrun(sub)
            return
        now_ms = self.gateway.clock.now_ms()
        session.opened(sub, found.tasks.values(), seq=found.seq, truncated=found.truncated, now_ms=now_ms)

    async def _leave(self) -> NoReturn:
        await self.gateway.hub.closing.wait()
        await part(self.request, self.bid_farewell())

    async def _end(self) -> NoReturn:
        await self._ended.wait()
        await part(self.request, self.dismiss())
