"""The composition root: what a ringwheel process is made of, as a literal list.

`serve` runs a node on a database that somebody else runs; `dev` runs one or several on an embedded PostgreSQL, with a
demo. This is the only module of the gateway that imports storage.
"""

import asyncio
import gc
import ipaddress
import resource
import signal
import socket
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import structlog

from actors.core.codec import SpecCodec
from actors.core.errors import Misconfigured, Unavailable
from actors.core.queue import QueueBook
from actors.core.wire import Wire
from actors.membership import new_boot
from actors.node import Node
from gateway import audit
from gateway.admission import Admission
from gateway.app import make_app
from gateway.context import Gateway
from gateway.crew import Crew
from gateway.deliver import Courier
from gateway.demo import Demo
from gateway.hub import Hub
from gateway.keyring import Keyring
from gateway.metrics import CountCollector, LoopLag
from gateway.patience import Patience
from gateway.peers import Peers
from gateway.quota import Quota
from gateway.server import Runner, Site
from gateway.settings import DevSettings, ServeSettings
from gateway.siblings import Siblings, siblings_of
from gateway.signing import Signer
from gateway.targets import TargetPolicy
from gateway.tls import certificate_of, trusting
from gateway.turn import Turn
from storage.cluster import PgClusterStore
from storage.embedded import EmbeddedPostgres
from storage.housekeeping import PgHousekeeping
from storage.keys import PgKeyStore
from storage.leases import PgLeaseStore
from storage.ledger import PgLedgerStore
from storage.migrations import migrate
from storage.outcry import Outcry
from storage.pool import Database
from storage.queues import PgQueueStore
from storage.reader import PgReader
from storage.signing import PgSigningStore
from storage.tasks import PgTaskStore

STDIN = 0
RETRY_S = 0.5
EARLY_S = 2.0
"""How long a server for others waits for the database before it listens without one."""
SHUTDOWN_S = 2.0
"""How long open requests may take to end after the last task was settled."""
LINKED_S = 15.0
"""How long `dev` waits for its other nodes before it says where they are."""
log = structlog.get_logger("ringwheel")


class Service:
    """One node with its gateway: everything that a process runs."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        boot = new_boot()
        book, codec = QueueBook(), SpecCodec()
        self.database = database = Database(settings.database_url, boot, Outcry(settings.database_url))
        tasks = PgTaskStore(database, book, codec)
        queues = PgQueueStore(database, book)
        self.hub = Hub(boot)
        self.signer = Signer(PgSigningStore(database))
        self.certificate = certificate_of(settings)
        trust = trusting(settings.tls_authorities)
        turn = Turn()
        self.peers = Peers(Wire(book, codec), self.hub, trust, turn)
        self.node = node = Node(
            boot=boot,
            name=settings.name or f"{socket.gethostname()}:{settings.port}",
            address=settings.advertise or "",
            tasks=tasks,
            ledger=PgLedgerStore(database, lambda: node.membership.timeline),
            leases=PgLeaseStore(database),
            queues=queues,
            housekeeping=PgHousekeeping(database),
            links=self.peers,
            lines=self.peers,
            publish=self.hub.publish,
            interrupt=self.hub.interrupt,
            watched=lambda: self.hub.watched,
            settings=(self.signer.refresh,),
        )
        self.peers.node = node
        self.keyring = Keyring(PgKeyStore(database), node.clock.now_ms)
        admission = Admission()
        quota = Quota(settings.tenant_rate_hz, settings.tenant_rates_hz)
        crew = Crew(node.pulling, book, self.peers.tell_moved)
        node.pulling.workers, self.peers.moved = crew, crew.moved
        self.gateway = Gateway(
            node=node,
            intake=node.intake,
            reader=PgReader(database, book, codec),
            cluster=PgClusterStore(database),
            queues=book,
            queue_store=queues,
            codec=codec,
            hub=self.hub,
            crew=crew,
            keyring=self.keyring,
            clock=node.clock,
            admission=admission,
            quota=quota,
            patience=Patience(node.membership.silent_s),
            turn=turn,
        )
        self.policy = TargetPolicy(settings.allow_targets)
        self.courier = Courier(node, node.clock, self.policy, self.signer)
        for name, words, count in (
            ("unreadable_rows", "Rows that this program can't read", lambda: database.unreadable.count),
            (
                "lost_hints",
                "Tasks whose owner could not be told of them: no link, or no room",
                lambda: self.peers.lost + node.dropped_hints,
            ),
            (
                "turned_away_calls",
                "Calls put off, unsent, because their host answers too slowly",
                lambda: self.courier.turned_away,
            ),
            ("refused_submits", "Submits refused as more than can be answered in time", lambda: admission.refused),
            (
                "refused_bodies",
                "Requests refused for want of room for large bodies",
                lambda: self.gateway.room.refused,
            ),
            ("refused_by_quota", "Submits refused because a tenant had used up its quota", lambda: quota.refused),
            ("refused_keys", "Requests refused for their key", lambda: self.keyring.refused),
        ):
            self.gateway.registry.register(CountCollector(name, words, count))
        self.lag = LoopLag()
        self.runner = Runner(make_app(self.gateway, self.lag, self.peers), access_log=None, shutdown_timeout=SHUTDOWN_S)
        self.url = ""
        self.stopping = asyncio.Event()

    @property
    def children(self) -> list[Coroutine[Any, Any, None]]:
        """What runs side by side, once the database is there."""
        children = [
            self.node.run(),
            self.courier.run(),
            self.lag.run(),
            self.keyring.run(),
            self.peers.run(),
        ]
        return children if self.certificate is None else [*children, self.certificate.run()]

    def stop(self) -> None:
        """Take no more, let what runs end, write everything, and go."""
        if not self.gateway.draining:
            log.info("stopping: what runs may take so long to end", node=self.node.name, grace_s=self.settings.grace_s)
        self.gateway.draining = True
        self.gateway.leaving.set()
        self.stopping.set()

    async def run(self) -> None:
        """Listen at once (503 until the database is there), then run the children until `stop`.

        Where others may connect, only once a key was seen, should the database be there to tell.
        """
        await self._run()
        log.info("stopped", node=self.node.name)

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            entered = not await self._binds_loopback() and await self._enter_early(stack)
            await self.runner.setup()
            stack.push_async_callback(self.runner.cleanup)
            await self._listen()
            self.policy.shield(self._own_addresses())
            scheme = "http" if self.certificate is None else "https"
            self.url = f"{scheme}://{in_url(self.settings.bind)}:{self.runner.addresses[0][1]}"
            self.node.membership.address = self._address()
            log.info("listening", url=self.url, node=self.node.name)
            if not (entered or await self._enter_database(stack)) or not await self._learn_keys():
                return
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(child) for child in self.children]
                await self.stopping.wait()
                if not await self.node.drain(self.settings.grace_s):
                    log.warning("attempts were still under way at the end of the grace time; others will repeat them")
                await self._leave()
                self.hub.close()
                self.gateway.crew.close()
                for task in running:
                    task.cancel()

    async def _binds_loopback(self) -> bool:
        """Whether only this machine will be able to connect. True also when that can't be told: `_listen` says why."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self.settings.bind or None, self.settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError):
            return True
        return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)

    async def _enter_early(self, stack: AsyncExitStack) -> bool:
        """Enter the database if that takes no time. False: it could not be reached. Raises Misconfigured."""
        entered = False
        try:
            async with asyncio.timeout(EARLY_S):
                await stack.enter_async_context(self.database)
                entered = True
                await self.keyring.refresh()
        except (Unavailable, TimeoutError):
            return entered
        self._check_keys()
        return True

    async def _listen(self) -> None:
        bind, port = self.settings.bind, self.settings.port
        try:
            security = None if self.certificate is None else self.certificate.context
            await Site(self.runner, bind, port, reuse_address=True, backlog=1024, ssl_context=security).start()
        except (OSError, UnicodeError) as error:
            raise Misconfigured(f"can't listen on {bind}:{port} ({error}): choose another port or address") from error
        self.keyring.local = all(ipaddress.ip_address(address[0]).is_loopback for address in self.runner.addresses)

    def _address(self) -> str:
        """Where other nodes reach this one."""
        host, port = self.runner.addresses[0][:2]
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            host = socket.gethostname()
        reached = self.settings.advertise or f"{in_url(host)}:{port}"
        return reached if self.certificate is None else f"https://{reached}"

    def _own_addresses(self) -> list[tuple[str, int]]:
        """Where this service is reached, as far as it knows."""
        own = [(address[0], address[1]) for address in self.runner.addresses]
        host, _, port = (self.settings.advertise or "").rpartition(":")
        return [*own, (host, int(port))] if port.isascii() and port.isdigit() else own

    async def _enter_database(self, stack: AsyncExitStack) -> bool:
        """Wait for the database; False: told to stop first. Raises Misconfigured."""
        while not self.stopping.is_set():
            try:
                await stack.enter_async_context(self.database)
            except Unavailable:
                await asyncio.sleep(RETRY_S)
            else:
                return True
        return False

    async def _learn_keys(self) -> bool:
        """Until here every request was refused. False: told to stop first. Raises Misconfigured."""
        while not self.stopping.is_set():
            try:
                await self.keyring.refresh()
            except Unavailable:
                await asyncio.sleep(RETRY_S)
                continue
            self._check_keys()
            return True
        return False

    def _check_keys(self) -> None:
        """Raises Misconfigured where everybody could connect, and nobody has a key."""
        if self.keyring.local or self.keyring.usable:
            return
        audit.start_refused(self.settings.bind)
        raise Misconfigured(
            f"no API key is in use, and without one only a loopback address can be served, not "
            f"{self.settings.bind}: make one with `ringwheel key create --database-url ...`"
        )

    async def _leave(self) -> None:
        try:
            await self.node.membership.leave()
        except Unavailable as error:
            log.warning("could not leave in good order; others take over after the time-out", detail=error.detail)


def in_url(host: str) -> str:
    """A name or an address as a URL has it."""
    return f"[{host}]" if ":" in host else host


def _tune_collector() -> None:
    """Everything made so far lives as long as the process; young garbage is mostly tasks that end by themselves."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _raise_descriptor_limit() -> None:
    """As many sockets as the system allows: connections to many targets are kept open for a while."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _attach(loop: asyncio.AbstractEventLoop, service: Service) -> None:
    """Nothing is read from standard input; that it can be read means that it has ended."""

    def ended() -> None:
        loop.remove_reader(STDIN)
        service.stop()

    loop.add_reader(STDIN, ended)
    structlog.contextvars.bind_contextvars(node=service.node.name)  # its lines come among those of others


async def _run(service: Service) -> None:
    loop = asyncio.get_running_loop()
    if service.settings.attached:
        _attach(loop, service)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, service.stop)
    _raise_descriptor_limit()
    _tune_collector()
    await service.run()


async def serve(settings: ServeSettings) -> None:
    """Run a node until SIGTERM or SIGINT. Raises Misconfigured when it can't run like this."""
    await _run(Service(settings))


async def dev(settings: DevSettings) -> None:
    """Run a node on an embedded PostgreSQL in `settings.data`, with a demo; and further nodes beside it."""
    async with EmbeddedPostgres(settings.data) as server, asyncio.TaskGroup() as group:
        await migrate(server.dsn)
        service = Service(settings.serve(server.dsn))
        service.gateway.movable_clock = settings.nodes == 1
        others = siblings_of(settings, server.dsn)
        helping = [
            group.create_task(server.run(), name="keeper"),
            group.create_task(_show(service, [other.url for other in others], traffic=settings.demo), name="demo"),
        ]
        siblings = group.create_task(Siblings(others, service.stopping).run(), name="siblings")
        await _run(service)
        await siblings
        for task in helping:
            task.cancel()


async def _show(service: Service, others: Sequence[str], *, traffic: bool) -> None:
    await service.node.membership.beaten.wait()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINKED_S):
            await service.peers.linked(len(others))
    demo = Demo(service.node.intake, service.gateway.queue_store, service.gateway.codec)
    await demo.run(service.url, others, traffic=traffic)
