"""A request to run something, decoded and checked, before it has an id; and the receipt for it once it is safe."""

import msgspec

from actors.core.queue import Queue
from actors.core.spec import Spec
from actors.core.task import State


class Draft(msgspec.Struct):
    """What the gateway hands to the Intake. `spec` is interned (`codec.py`); times are on the primary's clock.

    Exactly one of `schedule_ms` and `delay_ms` may be given; neither means now.
    """

    queue: Queue
    spec: Spec
    schedule_ms: int | None = None
    delay_ms: int | None = None
    payload: bytes | None = None
    labels: str | None = None
    """JSON object as text."""
    key: str | None = None
    """Idempotency key."""
    key_hash: bytes | None = None
    """16-byte hash of the request that came with `key`."""
    ring_key: str | None = None
    """Ordering or flow key: tasks that share it share a shard."""
    trace: str | None = None
    """`traceparent` of the request, if it came with a valid one."""


class Receipt(msgspec.Struct):
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
