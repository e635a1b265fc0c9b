"""Hints: word of what was just committed, on its way to the shard that has to fire it, here or on another node.

A hint that is lost costs lateness, never a task: the probe finds what nobody was told of. So hints are dropped when
they can't be told and there is no room to keep them; what is kept waits for something that comes soon, the next beat
(the lease had run out: nobody knows who owns what) or the next owner (the shard is being handed over).

Bound: KEPT tasks wait, of either kind.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from actors.clock import Clock
from actors.core.changes import accepted
from actors.core.events import Change, Submitted
from actors.core.shard import HINT_MS
from actors.core.task import Task, by_shard
from actors.hand import Hand
from actors.ports.links import Links

KEPT = 100_000
Epochs = dict[int, int]
"""Shard -> the epoch that it had come to before its tasks were sent to the database, as the sender knew."""


class Hints:
    """The hints of one node. `dropped` counts tasks whose word found no room."""

    def __init__(
        self,
        hand: Hand,
        clock: Clock,
        links: Links,
        *,
        horizon_ms: int,
        may_fire: Callable[[], bool],
        is_closing: Callable[[int], bool],
        holder: Callable[[int], str | None],
        heir: Callable[[int], str | None],
        epoch: Callable[[int, int], int],
        publish: Callable[[list[Change]], None],
        watched: Callable[[], bool],
    ) -> None:
        """`holder`: the other node that has a shard, `heir`: to which I gave it; `epoch`: that of a shard elsewhere, if
        it was known before then; `watched`: whether anybody may want to hear of a task's acceptance.
        """
        self._hand = hand
        self._clock = clock
        self._links = links
        self._horizon_ms = horizon_ms
        self._may_fire = may_fire
        self._is_closing = is_closing
        self._holder = holder
        self._heir = heir
        self._epoch_elsewhere = epoch
        self._publish = publish
        self._watched = watched
        self._unrouted: list[tuple[list[Task], int]] = []
        """Tasks committed here, and when (at the earliest), while the lease had run out."""
        self._parked: dict[int, list[tuple[list[Task], int, Epochs | None]]] = defaultdict(list)
        """The same of shards that are being handed over, and their epochs where another node has told them."""
        self._kept = 0
        self.dropped = 0

    def committed(self, tasks: list[Task], at_ms: int) -> None:
        """Tasks were committed here, `at_ms` at the earliest: tell their owners, and of those that no shard has loaded
        yet, watchers alone.
        """
        now_ms = self._clock.now_ms()
        near = [task for task in tasks if task.due_ms <= now_ms + self._horizon_ms]
        if len(near) < len(tasks) and self._watched():
            self._tell_accepted([task for task in tasks if task.due_ms > now_ms + self._horizon_ms])
        if self._may_fire():
            self._tell_owners(near, at_ms, None, self._holder)
        elif self._has_room(near):
            self._unrouted.append((near, at_ms))

    def take(self, tasks: list[Task], at_ms: int, epochs: Epochs) -> None:
        """The same of tasks that another node accepted: what I have just given away goes on to its next owner."""
        fresh = self._clock.now_ms() - at_ms <= HINT_MS
        self._tell_owners(tasks, at_ms, epochs, self._heir if fresh else lambda shard: None)

    def beaten(self) -> None:
        """Who owns what is known again."""
        if self._unrouted and self._may_fire():
            unrouted, self._unrouted = self._unrouted, []
            self._tell_again((tasks, at_ms, None) for tasks, at_ms in unrouted)

    def left(self, shard: int) -> None:
        """The shard is somebody else's now."""
        self._tell_again(self._parked.pop(shard, []))

    def _tell_again(self, kept: Iterable[tuple[list[Task], int, Epochs | None]]) -> None:
        for tasks, at_ms, epochs in kept:
            self._kept -= len(tasks)
            self._tell_owners(tasks, at_ms, epochs, self._holder)

    def _has_room(self, tasks: list[Task]) -> bool:
        if self._kept + len(tasks) > KEPT:
            self.dropped += len(tasks)
            return False
        self._kept += len(tasks)
        return True

    def _epoch_before(self, shard: int, at_ms: int) -> int:
        """See Submitted; `at_ms` is by my clock: another node's tells nothing of what I knew."""
        actor = self._hand.actors.get(shard)
        if actor is None:
            return self._epoch_elsewhere(shard, at_ms)
        return actor.state.epoch if actor.state.born_ms < at_ms else 0

    def _tell_owners(
        self, tasks: list[Task], at_ms: int, epochs: Epochs | None, holder: Callable[[int], str | None]
    ) -> None:
        """Tell my shards of theirs, and watchers before it can start; other nodes of theirs.

        `epochs`: as the node knew them that accepted these; None: it was this one.
        """
        theirs: dict[str, list[Task]] = defaultdict(list)
        known: dict[str, Epochs] = defaultdict(dict)
        watched = self._watched()
        for shard, some in by_shard(tasks).items():
            epoch = self._epoch_before(shard, at_ms) if epochs is None else epochs.get(shard, 0)
            if shard not in self._hand.actors:
                if (boot := holder(shard)) is not None:
                    theirs[boot] += some
                    known[boot][shard] = epoch
                continue
            if watched:
                self._tell_accepted(some)
            if not self._is_closing(shard):
                self._hand.post(shard, Submitted(some, at_ms, epoch))
            elif self._has_room(some):
                self._parked[shard].append((some, at_ms, epochs))
        for boot, some in theirs.items():
            self._links.hint(boot, some, at_ms, known[boot])

    def _tell_accepted(self, tasks: Iterable[Task]) -> None:
        self._publish([accepted(task) for task in tasks if self._is_new(task)])

    def _is_new(self, task: Task) -> bool:
        """False when the probe was faster, so that what it found may have been told of already."""
        actor = self._hand.actors.get(task.shard)
        return actor is None or not actor.state.holding.knows(task)
