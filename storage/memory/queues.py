"""Memory twin of the QueueStore port."""

from actors.core.errors import Invalid
from actors.core.queue import Queue, QueueBook
from storage.memory.link import MemoryLink
from storage.memory.rows import copy_of

MAX_QUEUES = 10_000
"""Of one tenant."""


class MemoryQueueStore:
    """Queues in the twin's tables."""

    def __init__(self, link: MemoryLink, book: QueueBook) -> None:
        self._link = link
        self._db = link.database
        self._book = book

    async def ensure(self, tenant: str, name: str) -> Queue:
        """See the port."""
        known = self._book.by_name(tenant, name)
        if known is not None:
            return known
        return await self._link.call("ensure", lambda: self._ensure(tenant, name))

    async def refresh(self) -> None:
        """See the port."""
        await self._link.call("refresh", self._refresh)

    def _ensure(self, tenant: str, name: str) -> Queue:
        mine = {queue.name: queue for queue in self._db.queues.values() if queue.tenant == tenant}
        queue = mine.get(name)
        if queue is None:
            if len(mine) >= MAX_QUEUES:
                raise Invalid(f"there are {MAX_QUEUES} queues already: use one of them", "/queue")
            queue = Queue(len(self._db.queues) + 1, tenant, name)
            self._db.queues[queue.id] = queue
        return self._book.put(copy_of(queue))

    def _refresh(self) -> None:
        for queue in self._db.queues.values():
            self._book.put(copy_of(queue))
