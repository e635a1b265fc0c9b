"""The frames of a worker's link, as far as a strict worker reads them; fields that it does not know are left alone."""

from datetime import datetime

import msgspec


class Lease(msgspec.Struct, frozen=True):
    """Who works on what: bound to a task and an attempt."""

    id: str
    lease: str


class Script(msgspec.Struct, frozen=True):
    """The payload of a task here: what to do with it."""

    script: str
    number: int


class Task(msgspec.Struct, frozen=True):
    """One delivery."""

    id: str
    queue: str
    attempt: int
    max_attempts: int
    fence: str
    lease: str
    lease_expire_time: datetime
    lease_seconds: float
    schedule_time: datetime
    payload: Script


class Problem(msgspec.Struct, frozen=True):
    """Why something was refused."""

    type: str
    title: str
    status: int
    detail: str


class Refusal(msgspec.Struct, frozen=True):
    """A result, or an extension, that was not taken."""

    id: str
    lease: str
    problem: Problem


class Extension(msgspec.Struct, frozen=True):
    """A lease that ends later now."""

    id: str
    lease: str
    lease_expire_time: datetime


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Which leases are still the worker's own."""

    worker: str
    leases: list[Lease]


class Tasks(msgspec.Struct, frozen=True, tag="tasks"):
    """Work, never more than credits."""

    tasks: list[Task]


class Recorded(msgspec.Struct, frozen=True, tag="recorded"):
    """These results are committed."""

    ids: list[str]


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """These are not."""

    results: list[Refusal]


class Extended(msgspec.Struct, frozen=True, tag="extended"):
    """These leases end later."""

    leases: list[Extension]


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """These tasks were cancelled: stop."""

    ids: list[str]


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """The node goes away."""


class Complaint(msgspec.Struct, frozen=True, tag="error"):
    """A frame that the service can't read."""

    detail: str


Frame = Hello | Tasks | Recorded | Refused | Extended | Cancel | Drain | Complaint
DECODER: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Frame)
