"""Port: queues and their settings."""

from typing import Protocol

from actors.core.queue import Queue


class QueueStore(Protocol):
    """The queues table. Answers go through the process's QueueBook, so that a queue is one object."""

    async def ensure(self, tenant: str, name: str) -> Queue:
        """The queue of that name, made with default settings when new. Invalid: the tenant has too many."""
        ...

    async def refresh(self) -> None:
        """Read all settings anew into the book."""
        ...
