"""The HTTP client that webhooks go through: aiohttp's, without what a webhook must not do.

No redirects, cookies, proxies, netrc, decompression or silent second sends. A connection serves one tenant alone. The
target policy is asked for every new connection; the lease once a connection is up, new or pooled, before a byte of the
request is written.
Names come from /etc/hosts and DNS, whatever else the system's resolver may be set up to ask.

`Request` steps in where aiohttp builds and writes a request: the head is made already, so aiohttp need not copy it
twice and complete it, and a small body is written with the head at once instead of by a task of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import (
    AsyncResolver,
    ClientError,
    ClientOSError,
    ClientRequest,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    TCPConnector,
)
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.helpers import BaseTimerContext, TimeoutHandle
from aiohttp.http import StreamWriter
from aiohttp.typedefs import LooseHeaders
from multidict import CIMultiDict, istr
from yarl import URL

from actors.core.task import Phase, Task
from gateway.targets import TargetPolicy

KEEP_ALIVE_S = 4.0
"""Below the 5 s after which common servers close an idle connection: else we would write into closing ones."""
READ_BYTES = 16 * 1024
"""Reading from a connection pauses at twice this."""
DNS_S = 10
"""How long a resolved name is kept."""
DNS_ANSWER_S = 2.0
"""How long a name server may take the first time; twice as long the next."""
DNS_TRIES = 2
"""A look-up goes on when the attempt that asked has ended, for those who ask next: it has to end by itself."""
CONNECT_S = 10.0
"""Limit of connecting to one address, when the attempt's deadline is not nearer."""
SMALL_BYTES = 32 * 1024
"""A body up to this is written in one go with its head."""

_CONTENT_LENGTH = istr("content-length")


class LeaseEnded(Exception):
    """The node may not fire any more: nothing was written."""


class Letter:
    """What a request carries: its whole head, `host` included but without framing, and its body, if any.

    `task` is whose attempt it is: once its shard is lost, it is no longer RUNNING, and the letter may not go out.
    """

    __slots__ = ("body", "head", "task")

    def __init__(self, head: CIMultiDict[str], body: bytes | None, task: Task) -> None:
        self.head = head
        self.body = body
        self.task = task


class Request(ClientRequest):
    """A request whose `data` is a Letter."""

    may_fire: Callable[[], bool]
    _task: Task
    _small: bytes = b""

    def update_headers(self, headers: LooseHeaders | None) -> None:
        """The head comes with the letter."""
        self.headers = CIMultiDict()

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """There is nothing to add."""

    def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
        """Open the letter."""
        assert isinstance(body, Letter)
        self._task = body.task
        self.headers = body.head
        payload = body.body
        if payload is not None and len(payload) > SMALL_BYTES:
            super().update_body_from_data(payload)
        elif payload is not None:
            self._small = payload
            self.headers[_CONTENT_LENGTH] = str(len(payload))
        elif self.method not in self.GET_METHODS:
            self.headers[_CONTENT_LENGTH] = "0"

    @property
    def connection_key(self) -> ConnectionKey:
        """What a pooled connection must have in common with the request, its tenant too: none uses another's.

        The tenant stands where a name for TLS would that is not the host's; webhooks never have one.
        """
        key = super().connection_key
        return ConnectionKey(*key[:-1], self._task.queue.tenant)

    async def send(self, conn: Connection) -> ClientResponse:
        """Write the request, unless the lease ended or the shard was lost while connecting. Raises LeaseEnded."""
        if not self.may_fire() or self._task.phase is not Phase.RUNNING:
            raise LeaseEnded
        if self._body is not None:
            return await super().send(conn)
        protocol = conn.protocol
        assert protocol is not None
        writer = StreamWriter(protocol, self.loop)
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)
        await writer.write_eof(self._small)
        protocol.start_timeout()
        return self.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=self._traces,
            loop=self.loop,
            session=self.session,
            stream_writer=writer,
        )


def open_resolver() -> AsyncResolver:
    """Looks names up, /etc/hosts first, without a thread for each: names that hang keep nobody else waiting."""
    return AsyncResolver(timeout=DNS_ANSWER_S, tries=DNS_TRIES)


class Client:
    """Sends letters: what `ClientSession.request` does, less what a webhook must not do or never needs.

    aiohttp's connector, request, parser and answer do the work; what is left out here (redirects, cookies, proxies,
    traces, middlewares, a second send) cost a quarter of a call's time. Errors are those of `ClientSession.request`.
    """

    def __init__(self, session: ClientSession, may_fire: Callable[[], bool]) -> None:
        assert session.connector is not None
        self._session = session
        self._connector = session.connector
        self._loop = asyncio.get_running_loop()
        self._request = type("LeasedRequest", (Request,), {"may_fire": staticmethod(may_fire)})

    async def send(self, method: str, url: URL, letter: Letter, timeout: ClientTimeout) -> ClientResponse:
        """The head of the answer; its body is still to be read. Raises LeaseEnded and aiohttp's errors.

        `timeout.total` counts until the body was read.
        """
        limit = TimeoutHandle(self._loop, timeout.total, ceil_threshold=timeout.ceil_threshold)
        ending = limit.start()
        timer = limit.timer()
        try:
            with timer:
                request = self._request(method, url, data=letter, loop=self._loop, timer=timer, session=self._session)
                connection = await self._connect(request, timeout)
                answer = await _exchange(request, connection, timer)
        except BaseException as error:
            limit.close()
            if ending is not None:
                ending.cancel()
            if isinstance(error, OSError) and not isinstance(error, ClientError | TimeoutError):
                raise ClientOSError(*error.args) from error
            raise
        if ending is not None:
            if answer.connection is None:  # its body came with the head
                ending.cancel()
            else:
                answer.connection.add_callback(ending.cancel)
        return answer

    async def _connect(self, request: Request, timeout: ClientTimeout) -> Connection:
        try:
            return await self._connector.connect(request, traces=[], timeout=timeout)
        except TimeoutError as error:
            raise ConnectionTimeoutError(f"connecting to {request.url.host} takes too long") from error


async def _exchange(request: Request, connection: Connection, timer: BaseTimerContext) -> ClientResponse:
    try:
        assert connection.protocol is not None
        connection.protocol.set_response_params(
            timer=timer,
            skip_payload=request.method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=READ_BYTES,
        )
        answer = await request.send(connection)
        try:
            await answer.start(connection)
        except BaseException:
            answer.close()
            raise
    except BaseException:
        connection.close()
        raise
    return answer


@asynccontextmanager
async def open_client(policy: TargetPolicy, may_fire: Callable[[], bool], connections: int) -> AsyncIterator[Client]:
    """A client for webhooks. `may_fire` False makes a request raise LeaseEnded."""
    resolver = open_resolver()
    connector = TCPConnector(
        limit=connections,
        keepalive_timeout=KEEP_ALIVE_S,
        ttl_dns_cache=DNS_S,
        resolver=resolver,
        socket_factory=policy.socket,
    )
    try:
        async with ClientSession(connector=connector, cookie_jar=DummyCookieJar(), trust_env=False) as session:
            yield Client(session, may_fire)
    finally:
        await resolver.close()
