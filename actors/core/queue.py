"""A queue: a name under which tasks share settings. Made on first use with the defaults below."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.core.errors import Invalid
from actors.core.retry import DEFAULT, RetryPolicy
from actors.core.task import State

DAY_MS = 86_400_000

RETENTION_MS: dict[State, int] = {
    State.SUCCEEDED: DAY_MS,
    State.CANCELLED: DAY_MS,
    State.EXPIRED: 7 * DAY_MS,
    State.DEAD: 7 * DAY_MS,
}
"""How long a finished task can still be read and its idempotency key is remembered."""

MIN_RETENTION_MS = DAY_MS
"""An idempotency key is remembered for a day at least."""
MAX_RETENTION_MS = 7 * DAY_MS
"""Each day more is one more partition that every look at a finished id has to visit."""
DISPATCH_DEADLINE_MS = 30_000

UNREACHABLE = frozenset({".", ".."})
"""Steps of a path, which clients take out of a URL before they ask for it: no queue of this name could be managed."""


def check_new(name: str) -> None:
    """Raises Invalid when no queue of this name may be made; one that is there already stays in use."""
    if name in UNREACHABLE:
        raise Invalid('no queue can be named "." or "..": clients leave these out of a path', "/queue")


class Unheard(enum.StrEnum):
    """What becomes of an attempt whose end nobody knows, because its node died or was cut off.

    All but `retry` cost a commit before each attempt is sent.
    """

    RETRY = "retry"
    """The task runs again at once."""
    WAIT_DEADLINE = "wait_deadline"
    """It runs again, but not before that attempt's deadline."""
    HOLD = "hold"
    """It never runs again by itself: somebody says how the attempt ended."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """All that can be set for a queue."""

    paused: bool = False
    retry: RetryPolicy = DEFAULT
    dispatch_deadline_ms: int = DISPATCH_DEADLINE_MS
    retention_ms: Mapping[State, int] = field(default_factory=lambda: RETENTION_MS)
    """For each terminal state."""
    unknown: Unheard = Unheard.RETRY


class Queue:
    """Settings of one queue of one tenant, as of `version`. Shared by all tasks of the queue; replaced in place."""

    __slots__ = (
        "deleted",
        "dispatch_deadline_ms",
        "id",
        "name",
        "paused",
        "retention_ms",
        "retry",
        "tenant",
        "unknown",
        "version",
    )

    def __init__(
        self,
        id: int,  # noqa: A002 - the column's name
        tenant: str,
        name: str,
        *,
        paused: bool = False,
        retry: RetryPolicy = DEFAULT,
        dispatch_deadline_ms: int = DISPATCH_DEADLINE_MS,
        retention_ms: Mapping[State, int] = RETENTION_MS,
        unknown: Unheard = Unheard.RETRY,
        version: int = 0,
        deleted: bool = False,
    ) -> None:
        self.id = id
        self.tenant = tenant
        self.name = name
        self.paused = paused
        self.retry = retry
        self.dispatch_deadline_ms = dispatch_deadline_ms
        self.retention_ms = retention_ms
        """How long its finished tasks are kept, for each terminal state."""
        self.unknown = unknown
        self.version = version
        self.deleted = deleted
        """Nobody finds it by name until it is used again; its number stands for the same queue for ever."""

    @property
    def settings(self) -> QueueSettings:
        """What can be set, as it is now."""
        return QueueSettings(self.paused, self.retry, self.dispatch_deadline_ms, self.retention_ms, self.unknown)

    def __repr__(self) -> str:
        return f"<Queue {self.tenant}/{self.name} #{self.id}>"


class QueueBook:
    """All queues that this process knows, by number and by name. One book a process; storage fills it."""

    def __init__(self) -> None:
        self._by_id: dict[int, Queue] = {}
        self._by_name: dict[tuple[str, str], Queue] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def by_id(self, queue_id: int) -> Queue | None:
        """The queue with this number, if known."""
        return self._by_id.get(queue_id)

    def by_name(self, tenant: str, name: str) -> Queue | None:
        """The tenant's queue of this name, if known."""
        return self._by_name.get((tenant, name))

    def put(self, queue: Queue) -> Queue:
        """Takes the settings of `queue` over; answers the one object that stands for it in this process."""
        known = self._by_id.setdefault(queue.id, queue)
        if queue.version >= known.version:
            known.paused = queue.paused
            known.retry = queue.retry
            known.dispatch_deadline_ms = queue.dispatch_deadline_ms
            known.retention_ms = queue.retention_ms
            known.unknown = queue.unknown
            known.version = queue.version
            known.deleted = queue.deleted
            if known.deleted:
                self._by_name.pop((known.tenant, known.name), None)
            else:
                self._by_name[known.tenant, known.name] = known
        return known
