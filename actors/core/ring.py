"""Shard -> node, by consistent hashing with bounded load.

Karger et al., "Consistent Hashing and Random Trees" (STOC 1997), over equal-sized shards as in DeCandia et al.,
"Dynamo" (SOSP 2007), with the load bound of Mirrokni et al., "Consistent Hashing with Bounded Loads" (SODA 2018):
walking clockwise from a shard's point, a node that holds its share already is passed over.

The ring is a wish about placement, never a right to fire: that is the lease's (`docs/ownership.md`).

Promises: the same view gives the same table in every process; with at least one node every shard has an owner, and no
node holds more than ceil(1.1 * shards / nodes). Of 256 shards, one node more or less moves at most
1.5 * shards / nodes among up to ten nodes, and 3.5 * shards / nodes among up to fifty, plus one shard a node where the
bound itself drops. Refuses: weights, which would move shards between surviving nodes.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from hashring import HashRing

SLACK_PERCENT = 10
"""How much more than its even share a node may hold."""


class Ring:
    """The table of one membership view, computed once a process. `nodes` are names; their order does not matter."""

    def __init__(self, nodes: Iterable[str], shards: int) -> None:
        self.nodes: tuple[str, ...] = tuple(sorted(set(nodes)))
        self.shards = shards
        self._table = _place(self.nodes, shards)

    def owner(self, shard: int) -> str | None:
        """The node that should own `shard`; None when there is no node."""
        return self._table[shard] if self._table else None

    def shards_of(self, name: str) -> list[int]:
        """The shards that this node should own, ascending."""
        return [shard for shard, owner in enumerate(self._table) if owner == name]


def limit(nodes: int, shards: int) -> int:
    """How many shards one of `nodes` nodes may hold at most: ceil(1.1 * shards / nodes)."""
    return -(-shards * (100 + SLACK_PERCENT) // (100 * nodes))


def moves(old: Ring, new: Ring) -> list[tuple[int, str | None, str | None]]:
    """(shard, from, to) of all shards that the two views of one cluster place differently, ascending."""
    return [
        (shard, old.owner(shard), new.owner(shard))
        for shard in range(new.shards)
        if old.owner(shard) != new.owner(shard)
    ]


@lru_cache(maxsize=8)
def _place(nodes: tuple[str, ...], shards: int) -> tuple[str, ...]:
    """The table. Kept, for a large one takes ten milliseconds, and views are looked at over and over."""
    return tuple(_walk(nodes, shards))


def _walk(nodes: tuple[str, ...], shards: int) -> Iterator[str]:
    if not nodes:
        return
    circle = HashRing(nodes)
    room = dict.fromkeys(nodes, limit(len(nodes), shards))
    for shard in range(shards):
        name = next(name for name in circle.iterate_nodes(f"shard-{shard}") if room[name])
        room[name] -= 1
        yield name
