"""Memory twin of the QueueStore port."""

from collections.abc import Collection, Sequence
from dataclasses import fields

from actors.core.errors import Invalid
from actors.core.queue import Queue, QueueBook, QueueSettings, check_new
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

    async def learn(self, numbers: Collection[int]) -> None:
        """See the port."""
        await self._link.call("learn", lambda: self._learn(numbers))

    async def get(self, tenant: str, name: str) -> Queue | None:
        """See the port."""
        return await self._link.call("queue", lambda: self._get(tenant, name))

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Queue]:
        """See the port."""
        return await self._link.call("queues", lambda: self._page(tenant, after, limit))

    async def change(self, queue: Queue, version: int, settings: QueueSettings) -> Queue | None:
        """See the port."""
        return await self._link.call("change_queue", lambda: self._change(queue.id, version, settings))

    async def delete(self, queue: Queue) -> bool:
        """See the port."""
        return await self._link.call("delete_queue", lambda: self._delete(queue.id))

    # --- each of these happens at one instant --------------------------------------------------------------------

    def _ensure(self, tenant: str, name: str) -> Queue:
        mine = {queue.name: queue for queue in self._db.queues.values() if queue.tenant == tenant}
        queue = mine.get(name)
        if queue is None or queue.deleted:
            check_new(name)
        if queue is None:
            if len(mine) >= MAX_QUEUES:
                raise Invalid(f"there are {MAX_QUEUES} queues already: use one of them", "/queue")
            queue = Queue(len(self._db.queues) + 1, tenant, name)
            self._db.queues[queue.id] = queue
        elif queue.deleted:
            queue.deleted = False
            self._changed(queue)
        return self._book.put(copy_of(queue))

    def _refresh(self) -> None:
        for queue in self._db.queues.values():
            self._book.put(copy_of(queue))

    def _learn(self, numbers: Collection[int]) -> None:
        for number in numbers:
            if number in self._db.queues:
                self._book.put(copy_of(self._db.queues[number]))

    def _get(self, tenant: str, name: str) -> Queue | None:
        mine = self._mine(tenant)
        return self._book.put(copy_of(mine[name])) if name in mine else None

    def _page(self, tenant: str, after: str, limit: int) -> list[Queue]:
        found = sorted(name for name in self._mine(tenant) if name > after)
        return [self._book.put(copy_of(self._mine(tenant)[name])) for name in found[:limit]]

    def _change(self, number: int, version: int, settings: QueueSettings) -> Queue | None:
        queue = self._db.queues[number]
        if queue.version != version or queue.deleted:
            return None
        self._set(queue, settings)
        return self._changed(queue)

    def _delete(self, number: int) -> bool:
        if any(row.queue_id == number for row in self._db.live.all()):
            return False
        queue = self._db.queues[number]
        self._set(queue, QueueSettings())
        queue.deleted = True
        self._changed(queue)
        return True

    def _set(self, queue: Queue, settings: QueueSettings) -> None:
        for setting in fields(settings):
            setattr(queue, setting.name, getattr(settings, setting.name))

    def _changed(self, queue: Queue) -> Queue:
        queue.version += 1
        self._db.settings_version += 1
        return self._book.put(copy_of(queue))

    def _mine(self, tenant: str) -> dict[str, Queue]:
        return {queue.name: queue for queue in self._db.queues.values() if queue.tenant == tenant and not queue.deleted}
