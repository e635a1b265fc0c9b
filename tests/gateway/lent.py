"""Lent tasks, and doubles of those that they go between: who lends, who takes for workers, and a worker."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.core.events import Verdict
from actors.core.lease import Extension, Kept, Lent, Report, Said, Word
from actors.core.task import fence
from actors.ports.lending import Taker
from tests.support.builders import T0_MS, task_id

PERIOD_MS = 30_000
EPOCH = 7
ROOMY = 1 << 40
"""Room for whatever comes."""


def a_lent(number: int, queue: int = 1, attempt: int = 1, **more: Any) -> Lent:
    """Task number `number`, whose attempt is about to be given to a worker."""
    return Lent(task_id(number), queue, EPOCH, attempt, 5, T0_MS, T0_MS + PERIOD_MS, PERIOD_MS, **more)


def lease_text(attempt: int = 1) -> str:
    """As a worker knows its lease."""
    return fence(1, EPOCH, attempt)


def held(number: int, attempt: int = 1, **more: Any) -> dict[str, Any]:
    """A lease as a worker names it, and what it says of it."""
    return {"id": task_id(number), "lease": lease_text(attempt), **more}


def a_report(number: int, attempt: int = 1, verdict: Verdict = Verdict.SUCCEEDED, **more: Any) -> Report:
    return Report(task_id(number), EPOCH, attempt, verdict.value, **more)


def a_word(number: int, said: Said = Said.RECORDED, attempt: int = 1, state: str = "", detail: str = "") -> Word:
    return Word(task_id(number), EPOCH, attempt, said, state, detail)


def a_kept(number: int, said: Said = Said.RECORDED, attempt: int = 1, until_ms: int = T0_MS) -> Kept:
    return Kept(task_id(number), EPOCH, attempt, said, until_ms)


@dataclass
class LendingDouble:
    """Lends what a test has put there, and keeps what it is told. Implements actors.ports.lending.Lender."""

    news: asyncio.Event
    due: dict[int, list[Lent]] = field(default_factory=lambda: defaultdict(list))
    takers: dict[Taker, list[int]] = field(default_factory=dict)
    taken: list[int] = field(default_factory=list)
    """How many were asked for, each time."""
    reported: list[tuple[Taker, str, list[Report]]] = field(default_factory=list)
    extended: list[tuple[Taker, str, list[Extension]]] = field(default_factory=list)
    given_back: list[str] = field(default_factory=list)

    @property
    def taker(self) -> Taker:
        """The only one."""
        (taker,) = self.takers
        return taker

    def want(self, taker: Taker, queues: Collection[int]) -> None:
        self.takers[taker] = list(queues)
        self.news.set()

    def part(self, taker: Taker) -> None:
        self.takers.pop(taker, None)
        self.news.set()

    def take(self, taker: Taker, queue: int, limit: int) -> tuple[list[Lent], bool]:
        self.taken.append(limit)
        tasks, self.due[queue] = self.due[queue][:limit], self.due[queue][limit:]
        self.news.set()
        return tasks, bool(self.due[queue])

    def report(self, taker: Taker, tenant: str, reports: Sequence[Report]) -> None:
        self.reported.append((taker, tenant, list(reports)))
        self.news.set()

    def extend(self, taker: Taker, tenant: str, extensions: Sequence[Extension]) -> None:
        self.extended.append((taker, tenant, list(extensions)))
        self.news.set()

    def lost(self, tasks: Sequence[Lent]) -> None:
        self.given_back += [task.id for task in tasks]
        self.news.set()


@dataclass
class BorrowingDouble:
    """Keeps what others tell of their tasks. Implements actors.ports.lending.Borrower."""

    news: asyncio.Event
    supplies: list[tuple[str, list[int]]] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    revoked: list[tuple[str, int]] = field(default_factory=list)

    def supplied(self, boot: str, queues: Collection[int]) -> None:
        self.supplies.append((boot, list(queues)))
        self.news.set()

    def answer(self, words: list[Word]) -> None:
        self.words += words
        self.news.set()

    def keep(self, kept: list[Kept]) -> None:
        self.kept += kept
        self.news.set()

    def revoke(self, leases: list[tuple[str, int]]) -> None:
        self.revoked += [(task_id, attempt) for task_id, attempt in leases]
        self.news.set()


class MemberDouble:
    """A worker that keeps what it is given. Implements gateway.member.Member."""

    def __init__(self, name: str = "", tenant: str = "acme", room_bytes: int = ROOMY) -> None:
        self.name = name
        self.tenant = tenant
        self.room_bytes = room_bytes
        self.given: list[str] = []
        self.batches: list[tuple[str, int]] = []
        self.cancelled: list[str] = []
        self.hangs = False

    def let_lapse(self, period_ms: int) -> bool:
        if self.hangs:
            self.room_bytes = 0
        return self.hangs

    def give(self, queue: str, tasks: list[Lent]) -> None:
        self.given += [task.id for task in tasks]
        self.batches.append((queue, len(tasks)))

    def cancel(self, ids: list[str]) -> None:
        self.cancelled += ids
