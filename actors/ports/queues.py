"""Port: queues and their settings."""

from collections.abc import Collection, Sequence
from typing import Protocol

from actors.core.queue import Queue, QueueSettings


class QueueStore(Protocol):
    """The queues table. Answers go through the process's QueueBook, so that a queue is one object.

    What changes settings raises the cluster's settings version in the same transaction: every node reads them anew
    with its next heartbeat.
    """

    async def ensure(self, tenant: str, name: str) -> Queue:
        """The queue of that name, made with default settings when new or deleted.

        Invalid: the tenant has too many, or no queue may be made under that name.
        """
        ...

    async def refresh(self) -> None:
        """Read all settings anew into the book."""
        ...

    async def learn(self, numbers: Collection[int]) -> None:
        """Read these queues alone into the book, as far as the table has them."""
        ...

    async def get(self, tenant: str, name: str) -> Queue | None:
        """The queue as the table has it now; None when there is none, or it was deleted."""
        ...

    async def page(self, tenant: str, after: str, limit: int) -> Sequence[Queue]:
        """The tenant's queues whose names come after `after`, by code point."""
        ...

    async def change(self, queue: Queue, version: int, settings: QueueSettings) -> Queue | None:
        """Set all of its settings if it still has this version; None: somebody else changed it."""
        ...

    async def delete(self, queue: Queue) -> bool:
        """Forget its settings and its name; False: it has live tasks, and stays as it is.

        The number stays, for what is finished. A task that is accepted meanwhile is carried out under default settings.
        """
        ...
