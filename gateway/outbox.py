"""What waits to be written to one worker, in the order in which it was said.

    put -> waits -> take: a chunk goes to the socket -> written: the worker takes more

Promises: what was not taken was not sent, and its tasks can be had back. `bytes` are those of all that waits, also of
what lies in the socket. Bound: whoever puts looks at them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice

from actors.core.lease import Lent
from gateway.whole_frame import whole_frame

CHUNK_BYTES = 512 * 1024
"""More than that is not written at once, but for the last message of it."""


class Outbox:
    """Messages, and the tasks that they bring."""

    def __init__(self) -> None:
        self._messages: deque[tuple[bytes, Sequence[Lent]]] = deque()
        self._sealed = 0
        """So many of the first are said as long as there is anybody to hear them."""
        self._taken_bytes = 0
        self.bytes = 0
        self.news = asyncio.Event()
        """Set while something may wait."""

    def put(self, message: bytes, tasks: Sequence[Lent] = ()) -> None:
        """Say this; `tasks` are those that the worker hears of by it."""
        self._messages.append((message, tasks))
        self.bytes += len(message)
        self.news.set()

    def take(self) -> bytes:
        """The next chunk, as frames; empty: nothing waits any more."""
        messages = self._messages
        frames = []
        size = 0
        while messages and size < CHUNK_BYTES:
            message, _ = messages.popleft()
            size += len(message)
            frames.append(whole_frame(message))
        self._sealed = max(self._sealed - len(frames), 0)
        self._taken_bytes += size
        if not messages:
            self.news.clear()
        return b"".join(frames)

    def written(self) -> None:
        """The socket takes more."""
        self.bytes -= self._taken_bytes
        self._taken_bytes = 0

    def withdraw(self, *, sealed: bool = False) -> list[Lent]:
        """The tasks that wait are not said any more; all else is. `sealed`: those that are, too."""
        kept = [] if sealed else list(islice(self._messages, self._sealed))
        self._sealed = len(kept)
        others = list(islice(self._messages, len(kept), None))
        tasks = [task for _, some in others for task in some]
        if tasks:
            self._messages = deque([*kept, *(said for said in others if not said[1])])
            self.bytes = self._taken_bytes + sum(len(message) for message, _ in self._messages)
        return tasks

    def seal(self) -> None:
        """What waits now is not withdrawn, but for those who end it all."""
        self._sealed = len(self._messages)
