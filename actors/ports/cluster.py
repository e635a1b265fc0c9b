"""Port: the cluster as the tables have it, for its operators. Never on the hot path; of no tenant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.core.reach import Reach
from actors.ports.leases import Peer


@dataclass(slots=True)
class Owned:
    """A shard, and which living boot owns it; None: nobody."""

    shard: int
    owner: str | None
    epoch: int


@dataclass(slots=True)
class View:
    """Nodes and shards at one moment."""

    peers: list[Peer]
    """Every node that is not dead, by name."""
    shards: list[Owned]
    """All of them, in their order."""


class ClusterStore(Protocol):
    """What operators see and ask for."""

    async def view(self) -> View:
        """Who is there, and who owns what, by one statement."""
        ...

    async def count(self, parts: Sequence[Sequence[Reach]], before_us: int, most: int) -> list[int]:
        """For each part, how many rows lie within its reaches and were accepted up to `before_us`; at most `most`.

        By one statement, whose snapshot is later than the call. Raises Unavailable when they can't be counted in time.
        """
        ...

    async def mark(self, name: str, state: str) -> int:
        """Have the nodes of this name be `leaving`, or `up` again; how many living ones there are."""
        ...
