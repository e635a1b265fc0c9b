"""What a handler may know and do: a task in the hands of a worker, with its lease.

Safe to use in any thread.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from time import monotonic as clock_s
from typing import Any

import msgspec

from ringwheel.frames import NONE, Delivery
from ringwheel.seconds import LEAST_LEASE_S, MOST_LEASE_S, seconds

_making = threading.Lock()


class Context:
    """A task that is being worked on. Its lease is extended by itself for as long as the handler runs."""

    __slots__ = (
        "_cancelled",
        "_extend",
        "beat_s",
        "by_s",
        "doubtful",
        "interrupted",
        "lease_expire_time",
        "over",
        "runner",
        "task",
    )

    def __init__(self, task: Delivery, extend: Callable[["Context", float], None], *, doubtful: bool = False) -> None:
        self.task = task
        """As it was delivered."""
        self.lease_expire_time = task.lease_expire_time
        """When it goes to somebody else, unless the lease is extended until then."""
        self.over = False
        """This attempt is not this worker's any more: its result would be refused."""
        self.runner: asyncio.Task[None] | None = None
        """Where the handler runs, while it can be interrupted."""
        self.interrupted = False
        self.by_s: float | None = None
        """What a handler asked for instead of the lease's period."""
        self.doubtful = doubtful
        """It may have lain unread for too long: it is begun once its lease was extended."""
        self.beat_s = 0.0 if doubtful else clock_s() + task.lease_seconds / 3
        """When the lease is to be extended."""
        self._cancelled: threading.Event | None = None
        self._extend = extend

    @property
    def id(self) -> str:
        """Of the task."""
        return self.task.id

    @property
    def queue(self) -> str:
        """Where it came from."""
        return self.task.queue

    @property
    def attempt(self) -> int:
        """Which one this is, from 1."""
        return self.task.attempt

    @property
    def max_attempts(self) -> int:
        """Which one is the last."""
        return self.task.max_attempts

    @property
    def fence(self) -> str:
        """Grows with each attempt of a task: hand it on to whatever has to refuse what an older attempt still does."""
        return self.task.fence

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels."""
        return self.task.labels

    @property
    def schedule_time(self) -> datetime:
        """When it was to run."""
        return self.task.schedule_time

    @property
    def traceparent(self) -> str | None:
        """W3C Trace Context of whoever submitted it."""
        return self.task.traceparent

    @property
    def payload(self) -> Any:
        """As it was submitted: JSON, bytes, or None."""
        if self.task.payload is not NONE and bytes(self.task.payload):
            return msgspec.json.decode(self.task.payload)
        return self.task.payload_base64

    @property
    def cancelled(self) -> threading.Event:
        """Set when the task was cancelled or its lease lost. An async handler is cancelled besides; a thread looks."""
        with _making:
            if self._cancelled is None:
                self._cancelled = threading.Event()
                if self.over:
                    self._cancelled.set()
            return self._cancelled

    def extend(self, by: float) -> None:
        """Have the lease end `by` seconds from now, soon: before something that lets no thread run, for example.

        Raises TypeError or ValueError when that is no number of seconds between 0.001 and a day.
        """
        self._extend(self, seconds(by, "extend(by)", LEAST_LEASE_S, MOST_LEASE_S))

    def give_up(self) -> None:
        """For the worker: this attempt is over, whatever becomes of the handler."""
        with _making:
            self.over = True
            if self._cancelled is not None:
                self._cancelled.set()

    def interrupt(self) -> None:
        """For the worker, in its loop: cancel a handler that can be cancelled."""
        if self.runner is not None and not self.interrupted:
            self.interrupted = True
            self.runner.cancel()
