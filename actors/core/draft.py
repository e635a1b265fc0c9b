"""A request to run something, decoded and checked, before it has an id; and the receipt for it once it is safe."""

from dataclasses import dataclass

from actors.core.queue import Queue
from actors.core.spec import Spec
from actors.core.task import State


class Draft:
    """What the gateway hands to the Intake. `spec` is interned (`codec.py`); times are on the primary's clock.

    Exactly one of `schedule_ms` and `delay_ms` may be given; neither means now.
    """

    __slots__ = (
        "delay_ms",
        "key",
        "key_hash",
        "labels",
        "payload",
        "queue",
        "ring_key",
        "schedule_ms",
        "spec",
        "trace",
    )

    def __init__(
        self,
        queue: Queue,
        spec: Spec,
        *,
        schedule_ms: int | None = None,
        delay_ms: int | None = None,
        payload: bytes | None = None,
        labels: str | None = None,
        key: str | None = None,
        key_hash: bytes | None = None,
        ring_key: str | None = None,
        trace: str | None = None,
    ) -> None:
        self.queue = queue
        self.spec = spec
        self.schedule_ms = schedule_ms
        self.delay_ms = delay_ms
        self.payload = payload
        self.labels = labels
        """JSON object as text."""
        self.key = key
        """Idempotency key."""
        self.key_hash = key_hash
        """16-byte hash of the request that came with `key`."""
        self.ring_key = ring_key
        """Ordering or flow key: tasks that share it share a shard."""
        self.trace = trace
        """`traceparent` of the request, if it came with a valid one."""


@dataclass(slots=True)
class Receipt:
    """The task is safe on disk. `new` False: the key was used before for the same request (a replay)."""

    id: str
    shard: int
    state: State
    new: bool
    schedule_ms: int = 0
    """When it was to run, now that a `delay_ms` has its start. Only with `new`."""
    accept_us: int = 0
    """`Task.accept_us`. Only with `new`."""
    due_ms: int = 0
    """When it is due: a time in the past is now. Only with `new`."""
