"""Which nodes have died, judged by heartbeat counters and my own monotonic clock.

A node raises its counter with each heartbeat; only changes of the counter mean anything, never a time that another
machine wrote down. A boot is suspected when its counter stood still for `T_DEAD_MS`, counted only while my own
heartbeats succeed: after a gap in mine every clock starts anew, so that an outage of the database is nobody's death.
A suspicion is no verdict: the database declares a boot dead only if its counter still is where it was seen.

A name belongs to one boot. Boots that bore mine when I joined are older twins: one that moves keeps the name; one that
stands still for `TWIN_MS` is suspected that early, since whoever restarts a node does it when the old one has ended.
A boot whose process is gone, as far as my link to it tells, is suspected after `GONE_MS`.
Both may have been cut off instead, with a lease that still runs: until `T_DEAD_MS` they may be declared dead only if
none of their database sessions is left (`is_early`).

Refuses: a clock of its own; `now_ms` is when the heartbeat's answer came.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Protocol

from actors.core.errors import Misconfigured

T_DEAD_MS = 6_000
"""A counter that stood still this long is suspect. Longer than a lease lasts without a heartbeat, by a safe margin."""

GAP_MS = 2_000
"""A longer gap between two of my own heartbeats restarts every clock."""

TWIN_MS = 1_500
"""T_DEAD_MS for an older boot of my own name."""

GONE_MS = 800
"""T_DEAD_MS for a boot that is not where it was: its link ended, and nobody answers for it there."""

LATELY_MS = 5_000
"""Who left the view longer ago has nothing to do with shards that are taken over now."""


class Peer(Protocol):
    """What a heartbeat's answer tells of one node."""

    @property
    def boot(self) -> str:
        """The process start that it stands for; a new one has a new boot."""
        ...

    @property
    def name(self) -> str:
        """The node's lasting name."""
        ...

    @property
    def beats(self) -> int:
        """Its heartbeat counter."""
        ...


@dataclass(slots=True)
class _Pulse:
    beats: int
    since_ms: int
    twin: bool


class Members:
    """The failure detector of one boot; a boot that joins anew takes a new one."""

    def __init__(self, boot: str, name: str) -> None:
        self._boot = boot
        self._name = name
        self._pulses: dict[str, _Pulse] | None = None
        self._lost: list[tuple[int, int]] = []
        """Of boots that left the view: (when it last moved, when it left)."""
        self._last_ms = 0

    def observe(self, peers: Iterable[Peer], now_ms: int, gone: Container[str] = ()) -> list[tuple[str, int]]:
        """Takes one successful heartbeat's view (every node that is not dead); answers the suspects' (boot, beats).

        `gone`: boots that are not where they were.

        A suspect is named each time until it moves or leaves the view. Raises Misconfigured when an older twin moves:
        the name is taken.
        """
        first = self._pulses is None
        old = self._pulses or {}
        if now_ms - self._last_ms > GAP_MS:
            for pulse in old.values():
                pulse.since_ms = now_ms
        self._last_ms = now_ms
        self._pulses = {
            peer.boot: self._feel(old.get(peer.boot), peer, now_ms, first=first)
            for peer in peers
            if peer.boot != self._boot
        }
        if lost := [(pulse.since_ms, now_ms) for boot, pulse in old.items() if boot not in self._pulses]:
            self._lost = [pair for pair in self._lost if now_ms - pair[1] <= LATELY_MS] + lost
        return [
            (boot, pulse.beats)
            for boot, pulse in self._pulses.items()
            if now_ms - pulse.since_ms >= _patience_ms(twin=pulse.twin, gone=boot in gone)
        ]

    def is_early(self, boot: str) -> bool:
        """Whether this suspect's lease may still run: it is suspected for the sake of its name, or of its link."""
        pulse = (self._pulses or {}).get(boot)
        return pulse is not None and self._last_ms - pulse.since_ms < T_DEAD_MS

    def still_ms(self, boot: str, now_ms: int) -> int | None:
        """How long this boot's counter has stood still, as far as I have seen; None: it was not in the last view."""
        if boot == self._boot:
            return None if self._pulses is None else now_ms - self._last_ms
        pulse = (self._pulses or {}).get(boot)
        return None if pulse is None else now_ms - pulse.since_ms

    def lost_ms(self, now_ms: int) -> int | None:
        """How long ago the first of those that left the view lately last moved; None: none did. They are forgotten."""
        moved_ms = [since_ms for since_ms, left_ms in self._lost if now_ms - left_ms <= LATELY_MS]
        self._lost.clear()
        return now_ms - min(moved_ms) if moved_ms else None

    @property
    def named(self) -> bool:
        """Whether my name is mine: a view was seen, and no older twin is left in it. Take no shard before."""
        return self._pulses is not None and not any(p.twin for p in self._pulses.values())

    def _feel(self, pulse: _Pulse | None, peer: Peer, now_ms: int, *, first: bool) -> _Pulse:
        if pulse is None:
            return _Pulse(peer.beats, now_ms, twin=first and peer.name == self._name)
        if pulse.beats != peer.beats:
            if pulse.twin:
                raise Misconfigured(f"node name {self._name!r} is taken by a living node: give this one another name")
            pulse.beats = peer.beats
            pulse.since_ms = now_ms
        return pulse


def _patience_ms(*, twin: bool, gone: bool) -> int:
    if gone:
        return GONE_MS
    return TWIN_MS if twin else T_DEAD_MS
