"""The HTTP client that webhooks go through: aiohttp's connector and parser, and nothing between them and a letter.

No redirects, cookies, proxies, netrc, decompression or silent second sends. A connection serves one tenant alone. The
target policy is asked for every new connection; the lease once a connection is up, new or pooled, before a byte of the
request is written.
Names come from /etc/hosts and DNS, whatever else the system's resolver may be set up to ask.

A letter is written as it is, in one go, and its answer read whole: aiohttp's requests, writers and responses would
build both anew from parts, which took half of a call's time.

Promises: a call ends at its deadline, whatever it waits for; a connection is used again only after an answer that is
whole, and never when its call was cut, cancelled or answered before it was sent; what comes on a connection that nobody
asked anything answers nobody.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import (
    AsyncResolver,
    ClientConnectionResetError,
    ClientRequest,
    ClientTimeout,
    ConnectionTimeoutError,
    TCPConnector,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from yarl import URL

from actors.core.task import Phase, Task
from gateway.deadline import Deadline
from gateway.reply import Reply
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
KEPT_DESTINATIONS = 4096

# The threshold keeps aiohttp from rounding up to whole seconds.
_CONNECT = ClientTimeout(total=None, sock_connect=CONNECT_S, ceil_threshold=float("inf"))


class LeaseEnded(Exception):
    """The node may not fire any more: nothing was written."""


class Address:
    """Where letters of one kind go: what the client has to know of a request without reading it."""

    __slots__ = ("head_only", "host", "origin")

    def __init__(self, url: URL, method: str) -> None:
        """Raises ValueError when `url` has no host, or none that can be read."""
        self.origin = url.origin()
        self.host = str(self.origin)
        """Scheme, name and port."""
        self.head_only = method == "HEAD"
        """Answers have no body, whatever their head says."""


class Letter:
    """A whole request, head and body, as it goes over the wire.

    `task` is whose attempt it is: once its shard is lost, it is no longer RUNNING, and the letter may not go out.
    """

    __slots__ = ("address", "data", "task")

    def __init__(self, address: Address, data: bytes, task: Task) -> None:
        self.address = address
        self.data = data
        self.task = task


class Destination(ClientRequest):
    """Whom letters of one tenant go to, in the form in which aiohttp's connector wants to be told. It is never sent."""

    def __init__(self, address: Address, tenant: str) -> None:
        super().__init__("GET", address.origin, loop=asyncio.get_running_loop())
        self._key = ConnectionKey(*super().connection_key[:-1], tenant)

    @property
    def connection_key(self) -> ConnectionKey:
        """What a pooled connection must have in common with the request, its tenant too: none uses another's.

        The tenant stands where a name for TLS would that is not the host's; webhooks never have one.
        """
        return self._key


def open_resolver() -> AsyncResolver:
    """Looks names up, /etc/hosts first, without a thread for each: names that hang keep nobody else waiting."""
    return AsyncResolver(timeout=DNS_ANSWER_S, tries=DNS_TRIES)


class Client:
    """Sends letters, each once."""

    def __init__(self, connector: TCPConnector, may_fire: Callable[[], bool]) -> None:
        self._connector = connector
        self._may_fire = may_fire
        self._loop = asyncio.get_running_loop()
        self._destinations: dict[tuple[str, str], Destination] = {}

    async def send(self, letter: Letter, limit_s: float) -> Reply:
        """The answer, with its body as far as that is wanted and came (`Reply.broken`).

        Raises LeaseEnded, TimeoutError (no head within `limit_s`), HttpProcessingError (what came is not HTTP) and
        the errors of aiohttp for connections.
        """
        deadline = Deadline(self._loop, limit_s)
        connection = reply = None
        try:
            connection = await self._connect(letter)
            assert connection.protocol is not None
            reply = await self._exchange(connection.protocol, letter)
            await reply.read()
        except asyncio.CancelledError:
            if not deadline.stop():
                reply = None  # the end of its body may have come in the same moment
                raise
            if reply is None:
                raise TimeoutError from None
            reply.broken = TimeoutError()
        finally:
            deadline.stop()
            if connection is not None:
                _part(connection, reply)
        return reply

    async def _connect(self, letter: Letter) -> Connection:
        address, tenant = letter.address, letter.task.queue.tenant
        destination = self._destinations.get((address.host, tenant)) or self._know(address, tenant)
        while True:
            try:
                connection = await self._connector.connect(destination, traces=[], timeout=_CONNECT)
            except TimeoutError as error:
                raise ConnectionTimeoutError(f"connecting to {address.origin.host} takes too long") from error
            assert connection.protocol is not None
            if len(connection.protocol) == 0:  # it is a queue of answers
                return connection
            connection.close()  # an answer came that nobody had asked for: it must not be taken for this letter's

    def _know(self, address: Address, tenant: str) -> Destination:
        if len(self._destinations) >= KEPT_DESTINATIONS:
            self._destinations.clear()
        destination = self._destinations[address.host, tenant] = Destination(address, tenant)
        return destination

    async def _exchange(self, protocol: ResponseHandler, letter: Letter) -> Reply:
        protocol.set_response_params(
            skip_payload=letter.address.head_only, read_until_eof=True, auto_decompress=False, read_bufsize=READ_BYTES
        )
        transport = protocol.transport
        if not self._may_fire() or letter.task.phase is not Phase.RUNNING:
            raise LeaseEnded
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("closed before the request was written")
        transport.write(letter.data)
        while True:
            message, content = await protocol.read()
            if not 100 <= message.code < 200 or message.code == 101:  # all other 1xx announce the answer
                return Reply(message.code, message.headers, content)


def _part(connection: Connection, reply: Reply | None) -> None:
    """Give the connection back when it can be used again, else close it."""
    transport = connection.transport
    if transport is not None and transport.get_write_buffer_size():
        # To close would mean to send the rest first: after the deadline, and for as long as the target does not read.
        assert connection.protocol is not None
        connection.protocol.abort()
        connection.close()
    elif reply is not None and reply.whole:
        connection.release()
    else:
        connection.close()


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
        async with connector:
            yield Client(connector, may_fire)
    finally:
        await resolver.close()
