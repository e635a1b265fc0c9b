"""Tasks as the service shows them. Fields that a newer service adds are ignored."""

from datetime import datetime
from typing import Any

import msgspec

from ringwheel.draft import Http

FINISHED = frozenset({"succeeded", "dead", "expired", "cancelled"})


class LastAttempt(msgspec.Struct, frozen=True):
    """How the last attempt that is over went."""

    status: int | None = None
    error: str | None = None
    start_time: datetime | None = None
    duration_ms: int | None = None


class _Shown(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    queue: str
    state: str
    """scheduled, running, succeeded, dead, expired or cancelled."""
    schedule_time: datetime
    attempt: int = 0
    next_attempt_time: datetime | None = None
    labels: dict[str, str] = {}
    lateness_ms: int | None = None
    last_attempt: LastAttempt | None = None

    @property
    def finished(self) -> bool:
        """Whether it is over."""
        return self.state in FINISHED


class Task(_Shown, frozen=True, kw_only=True):
    """A task as it was when the service answered."""

    create_time: datetime
    max_attempts: int
    deadline_time: datetime | None = None
    held: bool = False
    priority: int = 3
    http: Http | None = None
    fence: str | None = None
    finish_time: datetime | None = None
    result: Any = None
    payload: Any = None
    """Only from `get`."""
    payload_base64: bytes | None = None
    content_type: str | None = None
    shard: int = 0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a task's history."""

    attempt: int
    outcome: str
    start_time: datetime
    fence: str | None = None
    duration_ms: int | None = None
    status: int | None = None
    error: str | None = None


class Change(_Shown, frozen=True, kw_only=True):
    """A task on the stream: as it became, or, with `snapshot`, as it was when watching began (again)."""

    version: int
    time: datetime
    cursor: str = ""
    """Watch from here on to hear what came after."""
    snapshot: bool = False


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """Changes were not told. With `snapshot` the tasks follow as they are now; without, the newest of each follows."""

    reason: str
    snapshot: bool = False
