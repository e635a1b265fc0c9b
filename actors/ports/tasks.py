"""Port: the tasks table, for accepting and loading.

Guarantees that every implementation gives (tests/actors/ports holds each to them):
- `accept*` answer only after COMMIT with fsync. An error of the connection means "outcome unknown": Unavailable.
- Reads see everything that was committed before they were sent.
- Nothing here changes or deletes a live row: that is the ledger's right alone (`ledger.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.core.events import Found, Loaded, Page
from actors.core.task import State, Task


@dataclass(slots=True)
class Accepted:
    """What became of one keyed task: new, a replay of an earlier one, or a key used before for another request."""

    new: bool
    same_request: bool
    state: State
    """Of the task that stands under the key (SCHEDULED when new or live)."""


class TaskStore(Protocol):
    """Accepting and loading tasks."""

    async def accept(self, tasks: Sequence[Task]) -> dict[int, Exception]:
        """Insert unkeyed tasks in one commit; answers the errors of refused ones by index, the rest is committed.

        Bad data in one row refuses that row only (found by bisection). Raises Unavailable: outcome unknown.
        """
        ...

    async def accept_keyed(self, tasks: Sequence[Task]) -> list[Accepted | Exception]:
        """Insert tasks whose id is derived from an idempotency key; one task a key, also against `finished`.

        An id may appear more than once in `tasks`: the first wins. Raises Unavailable: outcome unknown.
        """
        ...

    async def load(self, pages: Sequence[Page]) -> list[Loaded]:
        """Read pages, without payloads. One answer a page, in order."""
        ...

    async def payloads(self, tasks: Sequence[Task]) -> None:
        """Set `payload` of each task that has one and whose row is still there (else it stays None)."""
        ...

    async def find(self, tenant: str | None, ids: Sequence[str]) -> list[Found]:
        """What the tables say of each id (of this tenant; None = any), in one statement over live and finished."""
        ...
