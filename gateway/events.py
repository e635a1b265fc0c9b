"""`GET /v1/events`: the feed of `/v1/stream` as server-sent events (WHATWG HTML, 9.2), one subscription a connection.

`?id=`, or `?queue=` and `?label.<name>=`, say what to watch. Each event is named like the message of the websocket
that it carries (`snapshot`, `resumed`, `event`, `gap`; `problem` for `error`, which browsers use for their own) and has
its JSON as data; its id is the cursor. A client that comes back with `Last-Event-ID`, as browsers do, goes on where it
was.

Refuses what `/v1/stream` refuses. A comment every `heartbeat_s` shows both sides that the other is there.
"""

import asyncio
from typing import NoReturn

import orjson
from aiohttp import HttpVersion11, web

from actors.core.errors import Invalid
from gateway.filters import LABEL, labels_of, one
from gateway.problems import Problem, escape
from gateway.session import Session
from gateway.watch import Filter, Subscribe
from gateway.watcher import Watcher, check_origin

SUB = "events"
"""The name of the one subscription."""
_FILTERS = ("id", "queue")
RETRY = b"retry: 1000\n\n"
"""How long a browser waits before it comes back, in ms."""
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_EVENT = b'{"type":"event","sub":"events","cursor":"'


async def events(request: web.Request) -> web.StreamResponse:
    """Serve one watcher until either side ends it."""
    check_origin(request)
    if request.version < HttpVersion11:
        raise Problem("unreadable", "events need HTTP/1.1")
    connection = _Connection(request)
    try:
        subscribe(connection.session, request)
        await connection.response.prepare(request)
        await connection.response.write(RETRY)
        await connection.run()
    finally:
        connection.session.close()  # also when the client went before anything was written
    return connection.response


def subscribe(session: Session, request: web.Request) -> None:
    """What the request asks for. Raises Invalid."""
    for name in request.query:
        if name not in _FILTERS and not name.startswith(LABEL):
            raise Invalid("unknown parameter", f"/{escape(name)}")
    wanted = Filter(id=one(request, "id"), queue=one(request, "queue"), labels=labels_of(request) or None)
    session.subscribe(Subscribe(SUB, wanted, request.headers.get("Last-Event-ID") or None))


class _Connection(Watcher):
    """An answer that does not end."""

    def __init__(self, request: web.Request) -> None:
        super().__init__(request)
        self.response = web.StreamResponse(headers=_HEADERS)

    async def attend(self) -> NoReturn:
        """Show that we are there; a write fails when the client is not."""
        while True:
            await asyncio.sleep(self.limits.heartbeat_s)
            self.session.say(b"")

    @staticmethod
    def frame(message: bytes) -> bytes:
        """One event, a chunk of the answer (RFC 9112, 7.1)."""
        event = as_event(message)
        return b"%x\r\n%b\r\n" % (len(event), event)

    async def bid_farewell(self) -> None:
        """The answer's end: the client comes back, and goes on where it was."""
        await self.response.write_eof()

    async def dismiss(self) -> None:
        """The same: coming back, the client is told why."""
        await self.response.write_eof()

    async def fail(self) -> None:
        """In mid-answer, so that nobody takes it for the end."""
        self.cut()


def as_event(message: bytes) -> bytes:
    """A message of a session as an event; the empty one as a comment."""
    if not message:
        return b": here\n\n"
    if message.startswith(_EVENT):  # the usual case: its cursor is known without reading it
        cursor = message[len(_EVENT) : message.index(b'"', len(_EVENT))]
        return b"id: %b\nevent: event\ndata: %b\n\n" % (cursor, message)
    said = orjson.loads(message)
    name = "problem" if said["type"] == "error" else said["type"]
    head = f"id: {said['cursor']}\n" if "cursor" in said else ""
    return f"{head}event: {name}\n".encode() + b"data: %b\n\n" % message
