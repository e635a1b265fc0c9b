"""The worlds that the contract suites run in: one database, and as many processes connected to it as a test wants."""

from dataclasses import dataclass
from typing import Protocol

from actors.core.queue import Queue, QueueBook
from actors.ports.cluster import ClusterStore
from actors.ports.housekeeping import Housekeeping
from actors.ports.keys import KeyStore
from actors.ports.leases import LeaseStore
from actors.ports.ledger import LedgerStore
from actors.ports.queues import QueueStore
from actors.ports.reader import Reader
from actors.ports.signing import SigningStore
from actors.ports.tasks import TaskStore
from storage.memory import MemoryDatabase, MemoryStores
from tests.support.builders import T0_MS


class Stores(Protocol):
    """Every port, as one process has them."""

    @property
    def book(self) -> QueueBook: ...
    @property
    def tasks(self) -> TaskStore: ...
    @property
    def ledger(self) -> LedgerStore: ...
    @property
    def leases(self) -> LeaseStore: ...
    @property
    def queues(self) -> QueueStore: ...
    @property
    def reader(self) -> Reader: ...
    @property
    def signing(self) -> SigningStore: ...
    @property
    def housekeeping(self) -> Housekeeping: ...
    @property
    def keys(self) -> KeyStore: ...
    @property
    def cluster(self) -> ClusterStore: ...


class World(Protocol):
    """One database."""

    async def process(self, boot: str) -> Stores:
        """A process that started as `boot` and is connected; it lives as long as the world."""
        ...

    async def set_paused(self, queue: Queue, paused: bool) -> None:
        """Change a setting of the queue, as an operator's command on some other node would."""
        ...


class MemoryWorld:
    """The memory twin."""

    def __init__(self) -> None:
        self.database = MemoryDatabase(lambda: float(T0_MS))

    async def process(self, boot: str) -> Stores:
        return MemoryStores(self.database, boot)

    async def set_paused(self, queue: Queue, paused: bool) -> None:
        row = self.database.queues[queue.id]
        row.paused = paused
        row.version += 1
        self.database.settings_version += 1


@dataclass
class Owner:
    """A process that owns every shard, with room for finished tasks."""

    boot: str
    stores: Stores
    epochs: dict[int, int]
    queue: Queue


async def own_all(stores: Stores, boot: str) -> dict[int, int]:
    """Join as `boot` and take every shard that is free; answers shard -> epoch."""
    await stores.leases.join(boot, boot, f"{boot}:7070")
    beat = await stores.leases.beat(boot)
    assert beat is not None
    return await stores.leases.sweep(boot, beat.orphans)


async def kill(stores: Stores, boot: str) -> None:
    """Let the boot be declared dead, as a peer does that saw its counter stand still."""
    beat = await stores.leases.beat(boot)
    assert beat is not None
    [beats] = [peer.beats for peer in beat.peers if peer.boot == boot]
    assert await stores.leases.condemn(boot, beats)
