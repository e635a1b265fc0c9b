"""What another node asks of an owner for its workers: it has it at once, and, if its `take` waits, what comes due next
as soon as it does. Work that comes steadily takes one message to get there then, and waits for none (`pulling.py`).

    take -> part, part, ... (each confirmed, with room for more) -> over: nothing came for `wait_ms`, or no room is left

Bound: one take a queue waits, and is given no more than it has room for.
"""

import asyncio
from collections.abc import Callable, Collection

from actors.core.wire import Take


class _Waiting:
    """A take that waits, and how many it may be given."""

    __slots__ = ("asked", "room", "timer")

    def __init__(self, asked: Take, room: int, timer: asyncio.TimerHandle) -> None:
        self.asked = asked
        self.room = room
        self.timer = timer


class Parked:
    """The takes of one node that wait."""

    def __init__(self, give: Callable[[Take, int], tuple[int, bool]], give_up: Callable[[Take], object]) -> None:
        """`give` at most so many of what there is, and answer how many that were, and whether the take is over with
        them. `give_up`: answer that there is nothing.
        """
        self._give = give
        self._give_up = give_up
        self._waiting: dict[int, _Waiting] = {}
        """By queue."""

    def take(self, asked: Take) -> None:
        """Serve it, or have it wait; one of the same queue that waited before does so no longer."""
        self._end(asked.queue)
        given, over = self._give(asked, asked.limit)
        if over:
            return
        if asked.wait_ms <= 0:
            self._give_up(asked)
            return
        self._waiting[asked.queue] = _Waiting(asked, asked.limit - given, self._timer(asked))

    def serve(self, queue: int) -> bool:
        """Something came due; False: no take of this queue waits for it."""
        waiting = self._waiting.get(queue)
        if waiting is None:
            return False
        given, over = self._give(waiting.asked, waiting.room)
        if over:
            waiting.timer.cancel()
            del self._waiting[queue]
        elif given:
            waiting.room -= given
            waiting.timer.cancel()
            waiting.timer = self._timer(waiting.asked)
        return True

    def widen(self, number: int, more: int) -> None:
        """The take of this number may be given more, if it still waits."""
        for waiting in self._waiting.values():
            if waiting.asked.number == number:
                waiting.room += more

    def want(self, queues: Collection[int]) -> None:
        """Nothing is wanted of other queues any more."""
        for queue in self._waiting.keys() - set(queues):
            self._end(queue)

    def clear(self) -> None:
        """The node is gone."""
        for waiting in self._waiting.values():
            waiting.timer.cancel()
        self._waiting.clear()

    def _timer(self, asked: Take) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(asked.wait_ms / 1e3, self._end, asked.queue)

    def _end(self, queue: int) -> None:
        if queue in self._waiting:
            waiting = self._waiting.pop(queue)
            waiting.timer.cancel()
            self._give_up(waiting.asked)
