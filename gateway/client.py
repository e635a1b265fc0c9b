"""The HTTP client that webhooks go through: aiohttp's connector and parser, and little between them and a letter.

No redirects, cookies, proxies, netrc, decompression or silent second sends. A connection serves one tenant alone. The
target policy is asked for every new connection; the lease once a connection is up, new or pooled, before a byte of the
request is written.
Names come from /etc/hosts and DNS, whatever else the system's resolver may be set up to ask.

Where a line rests, a letter is written in the call that brings it: no turn of the loop lies between the moment in which
a task is due and the socket. Only to connect takes a task.

Promises: a call ends once, at its deadline at the latest, whatever it waits for, and never before `send` returns; a
connection is used again only after an answer that is whole, and never when its call was cut or answered before it was
sent (over TLS, what is encrypted counts as sent); what comes on a connection that nobody asked anything answers nobody.
Bound: `connections` rest at most.
"""

import asyncio
from asyncio import TaskGroup
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import AsyncResolver, TCPConnector

from gateway.call import Call
from gateway.destination import Destination
from gateway.letter import Letter
from gateway.line import Host
from gateway.pool import Pool
from gateway.reply import Reply
from gateway.targets import TargetPolicy

DNS_S = 10
"""How long a resolved name is kept."""
DNS_ANSWER_S = 2.0
"""How long a name server may take the first time; twice as long the next."""
DNS_TRIES = 2
"""A look-up goes on when the attempt that asked has ended, for those who ask next: it has to end by itself."""
KEPT_DESTINATIONS = 4096
"""Beyond it only those are kept that have a line or make one."""


def open_resolver() -> AsyncResolver:
    """Looks names up, /etc/hosts first, without a thread for each: names that hang keep nobody else waiting."""
    return AsyncResolver(timeout=DNS_ANSWER_S, tries=DNS_TRIES)


class Client:
    """Sends letters, each once."""

    def __init__(self, connector: TCPConnector, group: TaskGroup, may_fire: Callable[[], bool], pool: Pool) -> None:
        """`group` runs what connects."""
        self._connector = connector
        self._group = group
        self._may_fire = may_fire
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._destinations: dict[Host, Destination] = {}

    def send(self, letter: Letter, limit_s: float, ended: Callable[[Reply | Exception], None]) -> None:
        """Send the letter; `ended` is called once, later, with the answer, its body as far as it is wanted and came.

        Or with an error: LeaseEnded, TimeoutError (no head within `limit_s`), HttpProcessingError (what came is not
        HTTP) and the errors of aiohttp for connections.
        """
        host = letter.address.host, letter.task.queue.tenant
        destination = self._destinations.get(host) or self._know(host, letter)
        destination.send(Call(self._loop, letter, limit_s, ended))

    def leave(self) -> None:
        """Drop all calls: nobody is told how they end."""
        for destination in self._destinations.values():
            destination.leave()
        self._pool.close()

    def _know(self, host: Host, letter: Letter) -> Destination:
        if len(self._destinations) >= KEPT_DESTINATIONS:
            lines = self._pool.hosts
            self._destinations = {key: known for key, known in self._destinations.items() if known.busy or key in lines}
        destination = self._destinations[host] = Destination(
            host,
            letter.address.origin,
            connector=self._connector,
            group=self._group,
            pool=self._pool,
            may_fire=self._may_fire,
        )
        return destination


@asynccontextmanager
async def open_client(policy: TargetPolicy, may_fire: Callable[[], bool], connections: int) -> AsyncIterator[Client]:
    """A client for webhooks. `may_fire` False makes a letter end with LeaseEnded."""
    resolver = open_resolver()
    connector = TCPConnector(
        limit=0,  # calls under way are bounded by whoever makes them, the rest by the pool
        ttl_dns_cache=DNS_S,
        resolver=resolver,
        socket_factory=policy.socket,
    )
    try:
        async with connector, TaskGroup() as group:
            client = Client(connector, group, may_fire, Pool(connections))
            try:
                yield client
            finally:
                client.leave()
    finally:
        await resolver.close()
