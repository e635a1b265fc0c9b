"""Ringwheel: submit tasks, watch them, and work on them.

`Client` speaks to the service, `Worker` runs functions of yours for tasks that are pulled; `ringwheel.sync` is the
client without `await`, `ringwheel.testing` a real server for tests.
"""

from ringwheel.bulk import Refused, Submitted
from ringwheel.client import Client
from ringwheel.context import Context
from ringwheel.draft import Draft, Http, RetryPolicy
from ringwheel.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    Problem,
    RingwheelError,
    Unauthenticated,
    Unavailable,
)
from ringwheel.handler import Handler
from ringwheel.outcome import Discard, Retry, Snooze
from ringwheel.task import Attempt, Change, Gap, LastAttempt, Task
from ringwheel.worker import Worker

__all__ = [
    "Attempt",
    "Change",
    "Client",
    "Conflict",
    "Context",
    "Discard",
    "Draft",
    "FieldError",
    "Forbidden",
    "Gap",
    "Handler",
    "Http",
    "Invalid",
    "LastAttempt",
    "NotFound",
    "Problem",
    "Refused",
    "Retry",
    "RetryPolicy",
    "RingwheelError",
    "Snooze",
    "Submitted",
    "Task",
    "Unauthenticated",
    "Unavailable",
    "Worker",
]
