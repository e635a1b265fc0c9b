"""What another node asks of an owner for its workers: it has it at once, or as soon as something comes due. Work that
comes steadily then takes one message to get there, not three (`pulling.py`).

Bound: one take a queue waits, as long as it wants to.
"""

import asyncio
from collections.abc import Callable, Collection

from actors.core.wire import Take


class Parked:
    """The takes of one node that wait."""

    def __init__(self, give: Callable[[Take], bool], give_up: Callable[[Take], object]) -> None:
        """`give`: answer with what there is; False: nothing. `give_up`: answer that there is nothing."""
        self._give = give
        self._give_up = give_up
        self._waiting: dict[int, tuple[Take, asyncio.TimerHandle]] = {}

    def take(self, asked: Take) -> None:
        """Serve it, or have it wait; one of the same queue that waited before does so no longer."""
        self._end(asked.queue)
        if self._give(asked):
            return
        if asked.wait_ms <= 0:
            self._give_up(asked)
            return
        timer = asyncio.get_running_loop().call_later(asked.wait_ms / 1e3, self._end, asked.queue)
        self._waiting[asked.queue] = asked, timer

    def serve(self, queue: int) -> bool:
        """Something came due; False: no take of this queue waits for it."""
        if queue not in self._waiting:
            return False
        asked, timer = self._waiting[queue]
        if self._give(asked):
            timer.cancel()
            del self._waiting[queue]
        return True

    def want(self, queues: Collection[int]) -> None:
        """Nothing is wanted of other queues any more."""
        for queue in self._waiting.keys() - set(queues):
            self._end(queue)

    def clear(self) -> None:
        """The node is gone."""
        for _, timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()

    def _end(self, queue: int) -> None:
        if queue in self._waiting:
            asked, timer = self._waiting.pop(queue)
            timer.cancel()
            self._give_up(asked)
