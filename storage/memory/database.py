"""The tables of the memory twin: what PostgreSQL holds for a whole cluster, as dictionaries.

Every port works on these tables at one instant, without an await, so that each of its statements is atomic and
nothing but the order of the statements matters.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from actors.core.keys import ApiKey
from actors.core.queue import Queue
from actors.core.signing import SigningSecret
from storage.memory.rows import AttemptEntry, Row

SHARDS = 256


@dataclass(slots=True)
class NodeRow:
    """A process start, by its boot."""

    boot: str
    name: str
    address: str
    up: bool = True
    """Not dead."""
    leaving: bool = False
    beats: int = 0


@dataclass(slots=True)
class ShardRow:
    """Who owns a shard, and how often that changed."""

    owner: str | None = None
    epoch: int = 0


class LiveTable:
    """Live rows by id, and per shard."""

    def __init__(self) -> None:
        self._by_id: dict[str, Row] = {}
        self._by_shard: dict[int, dict[str, Row]] = {}

    def get(self, task_id: str) -> Row | None:
        """The row of this id, if live."""
        return self._by_id.get(task_id)

    def put(self, row: Row) -> None:
        """Insert the row."""
        self._by_id[row.id] = self._by_shard.setdefault(row.shard, {})[row.id] = row

    def pop(self, task_id: str) -> Row:
        """Delete the row and answer it."""
        row = self._by_id.pop(task_id)
        return self._by_shard[row.shard].pop(task_id)

    def of(self, shard: int) -> Iterable[Row]:
        """The live rows of one shard, in no order."""
        return self._by_shard.get(shard, {}).values()

    def all(self) -> Iterable[Row]:
        """Every live row, in no order."""
        return self._by_id.values()


class MemoryDatabase:
    """One server. `clock_ms` is the primary's clock: milliseconds since 1970, read whenever a statement needs it."""

    def __init__(self, clock_ms: Callable[[], float], shards: int = SHARDS) -> None:
        self.clock_ms = clock_ms
        self.timeline = 1
        self.settings_version = 0
        self.live = LiveTable()
        self.finished: dict[str, Row] = {}
        self.attempts: dict[str, list[AttemptEntry]] = {}
        self.nodes: dict[str, NodeRow] = {}
        self.sessions: set[str] = set()
        """Boots that are connected, as far as the server knows: one that was cut off still is."""
        self.shards = {shard: ShardRow() for shard in range(shards)}
        self.queues: dict[int, Queue] = {}
        self.signing: dict[int, SigningSecret] = {}
        self.partitions: set[int] = set()
        self.keys: dict[str, ApiKey] = {}
        self.keys_version = 0
        self.secret = bytes(range(32))

    def is_up(self, boot: str | None) -> bool:
        """Whether this boot is known and not dead."""
        node = self.nodes.get(boot) if boot is not None else None
        return node is not None and node.up

    def owns(self, boot: str, shard: int, epoch: int) -> bool:
        """Whether the shard belongs to `boot` under exactly this epoch."""
        row = self.shards.get(shard)
        return row is not None and row.owner == boot and row.epoch == epoch

    def row(self, task_id: str) -> Row | None:
        """The row of this id, live or finished."""
        return self.live.get(task_id) or self.finished.get(task_id)
