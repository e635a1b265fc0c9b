"""The HTTP server below the application: what happens to a connection before a request reaches a handler.

aiohttp's own, but that bytes which are no HTTP get a problem like every other error, a line at debug level instead of a
traceback (anyone can send them, as often as they like), and the end of their connection; and that no client holds a
connection for nothing.

Promises: a head that is not whole `head_s` after its first byte or after HEAD_BYTES (`heads.py`), a connection that
sends nothing for `idle_s`, and a reader that takes nothing for `stall_s` are cut off; beyond `connections` in all or
`per_address`, a new connection is told 503 and closed. Bodies have a time of their own (`bodies.py`). A single submit
that comes while as many as `admission.py` lets in are under way is answered 503 before it is parsed, when all of it is
there; its connection stays. A plain one that is let in goes the short way (`express.py`); answers leave in the order of
their requests all the same.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, InvalidURLError, LineTooLong

from gateway.admission import Admission
from gateway.context import GATEWAY
from gateway.express import EXPRESS, Express
from gateway.heads import AHEAD_BYTES, END, HEAD_BYTES, PIECE_BYTES, is_whole
from gateway.problems import Problem, problem_of

DETAIL_CHARS = 200
HANDSHAKE_S = 10.0
"""How long a client may take until its TLS connection can be used."""
_SUBMIT = b"POST /v1/tasks HTTP/1.1\r\n"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What connections may cost."""

    connections: int = 10_000
    per_address: int = 2_000
    head_s: float = 10.0
    idle_s: float = 75.0
    """Longer than common proxies keep an idle connection: they close it first, and lose no request to a race."""
    stall_s: float = 30.0


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = (
        "_address",
        "_admission",
        "_ahead_bytes",
        "_between",
        "_bounds",
        "_express",
        "_fresh",
        "_full",
        "_head_bytes",
        "_head_timer",
        "_lost",
        "_on_short_way",
        "_refused",
        "_stall_timer",
        "_submit_s",
        "over",
        "stalled",
    )

    def __init__(self, server: "Server", bounds: Bounds, **options: Any) -> None:
        super().__init__(server, keepalive_timeout=bounds.idle_s, **options)
        self._bounds = bounds
        self._admission = server.admission
        self._express = server.express
        self._on_short_way = False
        """A submit that `express` took is not answered yet."""
        self._fresh = True
        """Nothing has come."""
        self._between = True
        """While it waits for a request, the next byte is the first of one. False: it may be in the middle of a head."""
        self._submit_s: float | None = None
        """When the submit came that is counted as under way: all of it is there."""
        self.over = False
        """One too many was under way when it came."""
        self._address: str | None = None
        """Where it is counted; None: nowhere."""
        self._refused = False
        self._full: asyncio.Future[None] | None = None
        """Set while the client takes no more."""
        self._head_timer: asyncio.TimerHandle | None = None
        """While a head has begun to come, and is not whole."""
        self._head_bytes = 0
        """What came of it."""
        self._ahead_bytes = 0
        """What came while requests waited for the answer to another one."""
        self._stall_timer: asyncio.TimerHandle | None = None
        self._lost: asyncio.Future[None] | None = None
        """Set while somebody waits for its end."""
        self.stalled = False
        """It was cut off, for its client took nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it in one line."""
        server = cast(Server, self._manager)
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        why = server.refusal(address)
        if why is None:
            self._address = address
            server.addresses[address] += 1
            super().connection_made(transport)
        else:
            _log.debug("connection from %s refused: %s", address, why)
            self._refused = True
            _say(cast(asyncio.Transport, transport), "unavailable", why, {"Retry-After": "1"})

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nothing is counted or waited for any more."""
        self._head_ended()
        self._flowing()
        self._submit_ended()
        if self._lost is not None:
            self._lost.set_result(None)
        if self._address is not None:
            server = cast(Server, self._manager)
            server.addresses[self._address] -= 1
            if not server.addresses[self._address]:
                del server.addresses[self._address]
            self._address = None
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Start the clock with the first byte of a head that is not whole; stop it when it is."""
        if not data:
            self._go_on()
            return
        submit = data.startswith(_SUBMIT)
        if len(data) > PIECE_BYTES and self._cut(data, submit):
            return
        if self._refused or (submit and self._admission.full and not self._admits(data)):
            return
        self._fresh = False
        self._between = data.endswith(END)  # `_take_short_way` knows of bodies
        if self._on_short_way:
            whole = self._receive_ahead(data)
        elif submit and self._idle and self._head_timer is None:
            whole = self._receive(data)
        else:
            whole = self._parse(data)
            if submit and self._messages and self._messages[0][1].is_eof():
                self.submit_came()
        if not whole:
            self._head_grows(len(data))
        elif self._head_timer is not None:
            self._head_ended()

    def _go_on(self) -> None:
        """Nothing came: aiohttp has read a body, and goes on with what its parser may have kept back meanwhile."""
        count = self._request_count
        super().data_received(b"")
        if self._request_count != count and self._head_timer is not None:
            self._head_ended()

    def _cut(self, data: bytes, submit: bool) -> bool:
        """Take much at once in pieces. False: it is no HTTP, or one whole submit, and goes on as it is."""
        if self._upgraded or (submit and is_whole(data) and data.find(END) <= HEAD_BYTES):
            return False
        for start in range(0, len(data), PIECE_BYTES):
            if self.transport is not None:
                self.data_received(data[start : start + PIECE_BYTES])
        return True

    def _parse(self, data: bytes) -> bool:
        """Parse. False: all of it was of a head that is not whole yet."""
        other = self._upgraded or not self._in_head
        count, waiting = self._request_count, bool(self._messages)
        super().data_received(data)
        self._ahead_bytes = self._ahead_bytes + len(data) if waiting else 0
        if self._ahead_bytes > AHEAD_BYTES and not (self._buffer_paused or self._upgraded):
            self._pause_reading_for_buffer()  # until `start` takes a request
        return other or self._request_count != count

    def _head_grows(self, size: int) -> None:
        if self.transport is None:
            return
        self._head_bytes += size
        if self._head_timer is None:
            self._await_head()
        if self._head_bytes > HEAD_BYTES:
            self._give_up("head-too-large", f"the head of the request is longer than {HEAD_BYTES} bytes")

    @property
    def _in_head(self) -> bool:
        """What comes next is of a head. False when in doubt: a body may be on its way."""
        if self._messages:
            return self._messages[-1][1].is_eof()
        if self._current_request is not None:
            return self._current_request.content.is_eof()
        return self._unasked or self._on_short_way

    @property
    def _unasked(self) -> bool:
        """No answer is under way that words could get into."""
        return self._idle or not self._request_count

    @property
    def _idle(self) -> bool:
        """No request is under way: the task of the long way waits for one, and none is on the short way."""
        return self._waiter is not None and not self._waiter.done() and not self._on_short_way

    def _receive(self, data: bytes) -> bool:
        """Parse, but let aiohttp's task sleep, for what goes the short way. False: see `_parse`."""
        waiter, self._waiter = self._waiter, None
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if not self._messages:
            return False
        if len(self._messages) > 1 or not self._take_short_way(data):
            self._wake()
        return True

    def _receive_ahead(self, data: bytes) -> bool:
        """The same, for what has to wait for the answer to the submit on the short way."""
        waiter, self._waiter = self._waiter, None
        try:
            return self._parse(data)
        finally:
            self._waiter = waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take_short_way(self, data: bytes) -> bool:
        """Give the one request that came to `express`. False: it has to go the long way, and is ready for it."""
        message, content = self._messages[0]
        if not isinstance(message, RawRequestMessage) or not content.is_eof():
            return False
        self._between = data.find(END) + len(END) + content.total_bytes == len(data)
        self.submit_came()
        express = self._express
        if express is None or self.over or not express.takes(message):
            return False
        self._messages.clear()
        self._on_short_way = self._request_in_progress = True
        body = content.read_nowait()
        if express.submit(message.headers, body, self._answer):
            if self._parser is not None:
                self._parser.message_consumed()
            return True
        self._on_short_way = self._request_in_progress = False
        again = StreamReader(self, self._read_bufsize, loop=self._loop)
        again.feed_data(body)
        again.feed_eof()
        self._messages.append((message, again))
        return False

    def _answer(self, answer: bytes) -> None:
        """The submit on the short way is answered, as `start` ends what goes the long way."""
        self._on_short_way = self._request_in_progress = False
        self._submit_ended()
        if self.transport is not None:
            self.transport.write(answer)
        if self._handler_waiter is not None:  # `shutdown` waits for it, or has given it up in this moment
            if not self._handler_waiter.done():
                self._handler_waiter.set_result(None)
        elif self._messages:
            self._wake()
        self._stay()

    def _process_keepalive(self) -> None:
        """Aiohttp sees no request under way while one is on the short way."""
        if self._on_short_way:
            self._stay()
        super()._process_keepalive()

    def _stay(self) -> None:
        """The client is there: its time as an idle one begins anew."""
        self._next_keepalive_close_time = self._loop.time() + self._bounds.idle_s

    def _admits(self, data: bytes) -> bool:
        """Look whether a submit that is one too many begins here, and is all there. False: it is answered."""
        waits = self._fresh or self._idle  # fresh: its task may not have begun
        if not waits or self._head_timer is not None:
            return True  # pipelined, or not its beginning
        if self._between and is_whole(data) and self.transport is not None:
            self.transport.write(self._admission.refusal())
            self._stay()
            return False
        self.over = True
        return True

    def submit_came(self) -> None:
        """Count a submit, once, when all of it is there: one that a client holds back takes no place and no time."""
        if self._submit_s is None and self.transport is not None:
            self._submit_s = self._admission.begin()

    def log_access(self, request: web.BaseRequest, response: web.StreamResponse, request_start: float | None) -> None:
        """An answer is on its way (aiohttp's hook behind every answer)."""
        self._submit_ended()

    def _submit_ended(self) -> None:
        self.over = False
        if self._submit_s is not None:
            self._admission.end(self._submit_s)
            self._submit_s = None

    def pause_writing(self) -> None:
        """The client takes no more for now."""
        super().pause_writing()
        self._full = self._loop.create_future()
        if self._stall_timer is None:
            self._stall_timer = self._loop.call_later(self._bounds.stall_s, self._stalled)

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self._flowing()

    async def drained(self) -> None:
        """Return when the client takes more; at once when the connection is lost, which who writes next finds out."""
        if self._full is not None:
            await asyncio.shield(self._full)

    async def lost(self) -> None:
        """Return when the connection has ended. For one to wait."""
        if self.transport is not None:
            self._lost = self._loop.create_future()
            await asyncio.shield(self._lost)

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self._bounds.head_s, self._late)

    def _head_ended(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _late(self) -> None:
        self._head_timer = None
        if self._unasked:
            self._give_up("too-slow", f"no whole request came within {self._bounds.head_s:g} s")
        else:
            self._await_head()  # an earlier one is being answered, and the rest may lie unread

    def _give_up(self, kind: str, detail: str) -> None:
        """End the connection because of a head; in words only where they are not taken for the answer to another."""
        self._head_ended()
        if self.transport is not None:
            if self._unasked:
                _say(self.transport, kind, detail, {})
            self.force_close()

    def _flowing(self) -> None:
        if self._full is not None:
            self._full.set_result(None)
            self._full = None
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stalled(self) -> None:
        self._stall_timer = None
        self.stalled = True
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed; all else that comes here has escaped from the application."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        detail = _words(exc)
        _log.debug("no valid HTTP from %s: %s", request.remote, detail)
        response = Problem("malformed", detail).response(request.raw_path)
        response.force_close()
        return response

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """As aiohttp does; what its router refused by itself (no path: `*`, an authority) is a problem all the same."""
        if isinstance(resp, web.HTTPException):
            resp = problem_of(resp).response(request.raw_path)
        return super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **options: Any) -> None:
        """For what surfaced where no answer could follow; a damaged rest of a body is the client's affair."""
        error = options.get("exc_info")
        if isinstance(error, web.RequestPayloadError):
            _log.debug("damaged body: %s", error)
        else:
            super().log_exception(*args, **options)


class Server(web.Server):
    """Makes the connections, and counts them."""

    def __init__(
        self, handler: Any, bounds: Bounds, admission: Admission, express: Express | None, **options: Any
    ) -> None:
        super().__init__(handler, **options)
        self.bounds = bounds
        self.admission = admission
        self.express = express
        self.addresses: Counter[str] = Counter()
        """Connections by the address that they come from."""

    def __call__(self) -> Connection:
        """A new connection, for the event loop."""
        # An encoded body is refused (`bodies.py`); aiohttp would decode all of it first.
        return Connection(self, self.bounds, loop=self._loop, auto_decompress=False, **self._kwargs)

    def refusal(self, address: str) -> str | None:
        """Why one more connection from this address is too many, or None when it is not."""
        if len(self._connections) >= self.bounds.connections:
            return "too many connections are open"
        if self.addresses[address] >= self.bounds.per_address:
            return "too many connections from this address are open"
        return None


class Runner(web.AppRunner):
    """Runs an application on a `Server`."""

    __slots__ = ("_bounds",)

    def __init__(self, app: web.Application, *, bounds: Bounds | None = None, **options: Any) -> None:
        super().__init__(app, **options)
        self._bounds = bounds or Bounds()

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        return Server(
            made.request_handler,
            self._bounds,
            self._app[GATEWAY].admission,
            self._app.get(EXPRESS),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )


class Site(web.TCPSite):
    """Where an application listens; over TLS, whoever connects has HANDSHAKE_S to come to terms."""

    async def start(self) -> None:
        """Raises OSError."""
        await super(web.TCPSite, self).start()
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            server,
            self._host,
            self._port,
            ssl=self._ssl_context,
            ssl_handshake_timeout=None if self._ssl_context is None else HANDSHAKE_S,
            backlog=self._backlog,
            reuse_address=self._reuse_address,
        )


def _say(transport: asyncio.Transport, kind: str, detail: str, headers: dict[str, str]) -> None:
    """A problem to a client whose request, if any, nobody will read; then the end of its connection."""
    transport.write(Problem(kind, detail, headers={"Connection": "close", **headers}).written())
    transport.close()


def _words(error: HttpProcessingError) -> str:
    """One short line; none of the client's own bytes, where they may be many."""
    match error:
        case LineTooLong():
            return f"the request line or a header is longer than {error.args[1]} bytes"
        case InvalidURLError():
            return "the URL can't be read"
    return error.message.partition("\n")[0].rstrip(": ")[:DETAIL_CHARS]
