"""Who was declared dead in a simulated cluster, and whether that was fair (C11).

A boot may be declared dead only if its counter stood still for T_DEAD_MS, and an outage of the database is nobody's
death. One that has no session left may be declared dead earlier, for the sake of its name or as it is not where it was.
Death is final.
"""

from collections.abc import Callable

from actors.core.members import GAP_MS, GONE_MS, T_DEAD_MS
from storage.memory import MemoryDatabase
from tests.support.history import Broken, time_ms

DRIFT_MS = 20
"""What clocks of two nodes differ by in that time."""


class Verdicts:
    """Looks at the nodes after each statement that may change them."""

    def __init__(self, database: MemoryDatabase, note: Callable[[str], None]) -> None:
        self._database = database
        self._note = note
        self._beats: dict[str, int] = {}
        self._moved_ms: dict[str, float] = {}
        """Boot -> when its counter moved."""
        self._outage_ms: float | None = None
        """Since when nobody reaches the database."""
        self._restarted_ms = 0.0
        """When the last outage ended that was long enough to restart all clocks."""
        self._dead: set[str] = set()
        self._epochs: dict[int, int] = {}

    def outage(self) -> None:
        """Nobody reaches the database from now on."""
        self._outage_ms = time_ms()

    def over(self) -> None:
        """It is back."""
        if self._outage_ms is not None and time_ms() - self._outage_ms > GAP_MS + DRIFT_MS:
            self._restarted_ms = time_ms()
        self._outage_ms = None

    def carried(self, statement: str) -> None:
        """A statement has taken effect."""
        if statement in ("give", "leave", "sweep"):
            self._see_owners(statement)
        if statement in ("beat", "join"):
            for boot, row in self._database.nodes.items():
                if row.up and boot in self._dead:
                    raise Broken(f"C11: {boot} was declared dead, and lives again")
                if self._beats.get(boot) != row.beats:
                    self._beats[boot], self._moved_ms[boot] = row.beats, time_ms()
        elif statement in ("condemn", "leave"):
            for boot, row in self._database.nodes.items():
                if not row.up and boot not in self._dead:
                    self._dead.add(boot)
                    self._judge(boot, statement)

    def _see_owners(self, statement: str) -> None:
        for number, row in self._database.shards.items():
            if self._epochs.get(number) != row.epoch:
                self._epochs[number] = row.epoch
                self._note(f"shard {number} is {row.owner}'s in epoch {row.epoch}: {statement}")

    def _judge(self, boot: str, statement: str) -> None:
        self._note(f"{boot} is dead: {statement}")
        if statement == "leave":
            return
        still_ms = time_ms() - max(self._moved_ms[boot], self._restarted_ms) + DRIFT_MS
        gone = boot not in self._database.sessions
        if still_ms < (GONE_MS if gone else T_DEAD_MS):
            raise Broken(f"C11: {boot} was declared dead after {still_ms} ms")
