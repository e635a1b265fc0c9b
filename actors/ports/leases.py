"""Port: who is alive, and who owns which shard. docs/ownership.md is the protocol; this is its alphabet.

Guarantees: a `boot` that is dead stays dead; an epoch only grows; ownership changes hands only from a boot that is not
alive, or gives it, and only after every write that was open under it has ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(slots=True)
class Peer:
    """A node as the database has it. `beats` is its heartbeat counter; only its changes mean anything."""

    boot: str
    name: str
    address: str
    state: str
    """`up`, `leaving` or `dead`."""
    beats: int


@dataclass(slots=True)
class Joined:
    """The cluster that a boot has entered."""

    shards: int
    secret: bytes
    """What its nodes know each other by."""


class Holder(NamedTuple):
    """Who owns a shard."""

    boot: str
    epoch: int


@dataclass(slots=True)
class Beat:
    """The answer to a heartbeat."""

    owned: dict[int, int]
    """Shard -> epoch, of all that this boot owns."""
    orphans: dict[int, int]
    """Shard -> epoch, of all whose owner is nobody or not alive."""
    peers: list[Peer]
    """Every node that is not dead, this one included."""
    holders: dict[int, Holder]
    """Of all shards that another living node owns."""
    settings_version: int
    clock_ms: float
    """The primary's clock while it answered."""
    timeline: int


class LeaseStore(Protocol):
    """Membership and shard ownership."""

    async def join(self, boot: str, name: str, address: str) -> Joined:
        """Enter this boot as `up`."""
        ...

    async def beat(self, boot: str) -> Beat | None:
        """Raise my counter and read the world; None = this boot is dead."""
        ...

    async def condemn(self, boot: str, beats: int, *, gone: bool = False) -> bool:
        """Declare `boot` dead unless its counter moved from `beats`. True: it is dead now (or was already).

        `gone`: only if it has no session at the database either.
        """
        ...

    async def sweep(self, boot: str, orphans: dict[int, int]) -> dict[int, int]:
        """Take those of `orphans` (shard -> epoch seen) that still have no living owner; answers shard -> new epoch.

        One that somebody holds a lock on for long is left out, and the sessions of its dead owner are ended.
        """
        ...

    async def end_sessions(self, boots: Sequence[str]) -> int:
        """End database sessions of dead boots (one may hold locks while it is stopped); answers how many."""
        ...

    async def depart(self, boot: str) -> None:
        """Be `leaving` from now on: as alive as before, but nobody gives it a shard any more."""
        ...

    async def give(self, boot: str, shards: Mapping[int, tuple[int, str]]) -> set[int]:
        """Give shards of mine away: shard -> (epoch under which I own it, boot that is to own it); one epoch more.

        Answers those that were given. The rest is no longer mine, or that boot is not `up` (mine may be leaving).
        """
        ...

    async def leave(self, boot: str) -> None:
        """Give up all that this boot owns and mark it dead: nobody has to wait for a verdict."""
        ...
