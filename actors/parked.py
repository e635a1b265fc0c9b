"""What another node asks of an owner for its workers: it has it at once, and, if its `take` stays, what comes due next
as soon as it does. Work that comes steadily takes one message to get there then, and waits for none (`pulling.py`).

    take -> part, part, ... (each confirmed, with room for more) -> over: nothing came for WAIT_MS, or no room was made

After the first part the room is what the take had left, `keep` at most; both ends reckon so, and no message is needed.
One whose room is used up waits for what its confirmation says, however long that takes: its link lives, or it goes.
Bound: one take a queue stays, and is given no more than it has room for.
"""

import asyncio
from collections.abc import Callable, Collection

from actors.core.wire import Take

WAIT_MS = 20
"""So long a take stays when it is given nothing, and may keep room from others. A quieter queue is told of anew."""


class _Staying:
    """A take that stays."""

    __slots__ = ("asked", "more", "room", "timer")

    def __init__(self, asked: Take, room: int, *, more: bool) -> None:
        self.asked = asked
        self.room = room
        """How many it may be given."""
        self.timer: asyncio.TimerHandle | None = None
        """Ends it; none while its room is used up."""
        self.more = more
        """There may be more than there was room for."""

    def stop(self) -> None:
        """Nothing ends it any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Parked:
    """The takes of one node that stay."""

    def __init__(
        self,
        give: Callable[[Take, int], tuple[int, bool]],
        say_none: Callable[[Take], object],
        end: Callable[[Take, bool], object],
    ) -> None:
        """`give` at most so many of what there is, and answer how many that were, and whether there may be more.

        `say_none`: there was nothing so far; `end`: it is over, with nothing, and there may be more.
        """
        self._give = give
        self._say_none = say_none
        self._say_over = end
        self._staying: dict[int, _Staying] = {}
        """By queue."""

    def take(self, asked: Take) -> None:
        """Serve it, and have it stay if it wants to; one of the same queue that stayed before does so no longer."""
        self._end(asked.queue)
        given, more = self._give(asked, asked.limit)
        if not asked.keep:
            return
        if not given:
            self._say_none(asked)
        staying = _Staying(asked, min(asked.limit - given, asked.keep), more=more)
        self._staying[asked.queue] = staying
        self._wait(staying)

    def serve(self, queue: int) -> bool:
        """Something came due; False: no take of this queue stays for it."""
        staying = self._staying.get(queue)
        if staying is None:
            return False
        staying.more = True
        self._give_more(staying)
        return True

    def widen(self, number: int, more: int) -> None:
        """The take of this number may be given more, if it is still there.

        One without room is over: others may be in need of their share, and it asks for its own.
        """
        staying = next((staying for staying in self._staying.values() if staying.asked.number == number), None)
        if staying is None:
            return
        staying.room += more
        if staying.room <= 0:
            self._end(staying.asked.queue)
            return
        if staying.more:
            self._give_more(staying)
        if staying.timer is None:
            self._wait(staying)

    def want(self, queues: Collection[int]) -> None:
        """Nothing is wanted of other queues any more."""
        for queue in self._staying.keys() - set(queues):
            self._end(queue)

    def clear(self) -> None:
        """The node is gone."""
        for staying in self._staying.values():
            staying.stop()
        self._staying.clear()

    def _give_more(self, staying: _Staying) -> None:
        if staying.room <= 0:
            return
        given, staying.more = self._give(staying.asked, staying.room)
        if given:
            staying.room -= given
            self._wait(staying)

    def _wait(self, staying: _Staying) -> None:
        """For what comes due next, or for room."""
        staying.stop()
        if staying.room > 0:
            loop = asyncio.get_running_loop()
            staying.timer = loop.call_later(WAIT_MS / 1e3, self._end, staying.asked.queue)

    def _end(self, queue: int) -> None:
        if queue in self._staying:
            staying = self._staying.pop(queue)
            staying.stop()
            self._say_over(staying.asked, staying.more)
