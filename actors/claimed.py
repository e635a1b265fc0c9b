"""Attempts whose claims are written ahead of them (`core/ahead.py`), until somebody takes them.

Promises: what was taken back meanwhile, or claimed again, is not handed out.
"""

from collections import deque
from collections.abc import Container, Iterable

from actors.core.events import HandedOut
from actors.core.task import Phase, Task, by_shard
from actors.hand import Hand


class Claimed:
    """Those of some shards of a node, in the order in which they became ready."""

    def __init__(self, hand: Hand, ahead: Container[Task]) -> None:
        """`ahead`: what may still be handed out."""
        self._hand = hand
        self._ahead = ahead
        self.waiting: deque[tuple[Task, int]] = deque()
        """Each with the revision in which it is claimed."""

    def __len__(self) -> int:
        return len(self.waiting)

    def put(self, tasks: Iterable[Task]) -> None:
        """Their claims are written."""
        self.waiting.extend((task, task.rev) for task in tasks)

    def take(self, limit: int) -> list[Task]:
        """At most `limit`, under way from now on."""
        if not self.waiting:
            return []
        ready = [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]
        tasks = [task for task, rev in ready if task.rev == rev and task in self._ahead]
        self._hand.apply((shard, HandedOut(some)) for shard, some in by_shard(tasks).items())
        return [task for task in tasks if task.phase is Phase.RUNNING]
