"""Memory for bodies that come in parts: one budget for all of them together.

The first FREE_BYTES of each body are free, so that small requests are taken whatever the large ones do. What is beyond
them is counted as it comes, and given back when its request is answered: by then nobody has the body any more.
"""

import asyncio

from gateway.problems import Problem

ROOM_BYTES = 64 * 1024 * 1024
FREE_BYTES = 64 * 1024
WORDS = "too many large bodies are being read at once"


class Room:
    """One an application."""

    def __init__(self, size: int = ROOM_BYTES) -> None:
        self.left = size
        """Bytes that may come yet."""
        self.refused = 0

    def check(self, announced: int) -> None:
        """Raises Problem when a body of so many bytes has no room as it is."""
        if announced - FREE_BYTES > self.left:
            raise self.refusal()

    def refusal(self) -> Problem:
        """For a body that has no room."""
        self.refused += 1
        # Closed, because nobody wants to hear the rest of this body.
        return Problem("unavailable", WORDS, headers={"Retry-After": "1", "Connection": "close"})


class Share:
    """What one body has of the room, until the task that reads it is done."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0

    def grow(self, size: int) -> None:
        """So many bytes of the body are there. Raises Problem when the room is full."""
        more = size - FREE_BYTES - self._bytes
        if more <= 0:
            return
        if more > self._room.left:
            raise self._room.refusal()
        if not self._bytes:
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(self._give_back)
        self._bytes += more
        self._room.left -= more

    def _give_back(self, _: "asyncio.Task[object]") -> None:
        self._room.left += self._bytes
