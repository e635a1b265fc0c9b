"""One process's way to a `MemoryDatabase`, and what may go wrong on it.

Every statement of every port goes through `call`, so a test can stop it before it starts (`hold_next`), lose it or
its reply (`fail_next`), or cut the process off (`away`). Statements are named after the port's methods.
"""

import asyncio
import enum
from collections.abc import Callable
from typing import TypeVar

from actors.core.errors import Unavailable
from storage.memory.database import MemoryDatabase

T = TypeVar("T")


class Fault(enum.Enum):
    """How a statement fails. The caller sees Unavailable, and can't tell which it was."""

    LOST = "lost"
    """It never reached the database: nothing is committed."""
    REPLY_LOST = "reply lost"
    """It was committed, but nobody heard so."""


class Gate:
    """A statement that is held back: `reached` is set when it arrives, and it goes on after `open()`."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Let the statement go on."""
        self._opened.set()

    async def passed(self) -> None:
        """Arrive, and wait until it is open."""
        self.reached.set()
        await self._opened.wait()


class MemoryLink:
    """The way of `boot` to `database`; `away` True means that every statement is lost."""

    def __init__(self, database: MemoryDatabase, boot: str) -> None:
        self.database = database
        self.boot = boot
        self.away = False
        self._faults: dict[str, list[Fault]] = {}
        self._gates: dict[str, list[Gate]] = {}

    def fail_next(self, statement: str, fault: Fault = Fault.LOST) -> None:
        """The next statement of that name fails so; called twice, the next two do."""
        self._faults.setdefault(statement, []).append(fault)

    def hold_next(self, statement: str) -> Gate:
        """The next statement of that name waits, before it takes effect, until the gate is opened."""
        gate = Gate()
        self._gates.setdefault(statement, []).append(gate)
        return gate

    def next_of(self, statement: str) -> tuple[Fault | None, Gate | None]:
        """What waits for the next statement of that name."""
        return _first(self._faults, statement), _first(self._gates, statement)

    async def call(self, statement: str, work: Callable[[], T]) -> T:
        """Carry out `work` at one instant, as one committed statement. Raises Unavailable when it fails."""
        fault, gate = self.next_of(statement)
        await (gate.passed() if gate else asyncio.sleep(0))  # a round trip: others may run meanwhile
        if self.away or fault is Fault.LOST:
            raise Unavailable(f"{statement}: the database can't be reached")
        answer = work()
        if fault is Fault.REPLY_LOST:
            raise Unavailable(f"{statement}: the reply was lost")
        return answer


def _first(waiting: dict[str, list[T]], statement: str) -> T | None:
    queue = waiting.get(statement)
    return queue.pop(0) if queue else None
