"""The memory twin: every port of the runtime over plain dictionaries, with faults on request.

One `MemoryDatabase` stands for the server, one `MemoryStores` for a process that is connected to it. The contract
suites hold the twin and PostgreSQL to the same answers, so a runtime or a whole cluster can be tested on the twin.

Promises: deterministic; a statement happens at one instant; rows are copied on the way in and on the way out.
Refuses: to be fast, or to outlive its process.
"""

from actors.core.queue import QueueBook
from storage.memory.cluster import MemoryClusterStore
from storage.memory.database import MemoryDatabase
from storage.memory.housekeeping import MemoryHousekeeping
from storage.memory.keys import MemoryKeyStore
from storage.memory.leases import MemoryLeaseStore
from storage.memory.ledger import MemoryLedgerStore
from storage.memory.link import Fault, Gate, MemoryLink
from storage.memory.queues import MemoryQueueStore
from storage.memory.reader import MemoryReader
from storage.memory.signing import MemorySigningStore
from storage.memory.tasks import MemoryTaskStore

__all__ = [
    "Fault",
    "Gate",
    "MemoryClusterStore",
    "MemoryDatabase",
    "MemoryHousekeeping",
    "MemoryKeyStore",
    "MemoryLeaseStore",
    "MemoryLedgerStore",
    "MemoryLink",
    "MemoryQueueStore",
    "MemoryReader",
    "MemorySigningStore",
    "MemoryStores",
    "MemoryTaskStore",
]


class MemoryStores:
    """All ports of one process, over one link, with one book of queues."""

    def __init__(self, database: MemoryDatabase, boot: str) -> None:
        self.book = QueueBook()
        self.link = MemoryLink(database, boot)
        self.tasks = MemoryTaskStore(self.link, self.book)
        self.ledger = MemoryLedgerStore(self.link)
        self.leases = MemoryLeaseStore(self.link)
        self.queues = MemoryQueueStore(self.link, self.book)
        self.reader = MemoryReader(self.link, self.book)
        self.signing = MemorySigningStore(self.link)
        self.housekeeping = MemoryHousekeeping(self.link)
        self.keys = MemoryKeyStore(self.link)
        self.cluster = MemoryClusterStore(self.link)
