"""Results on their way: kept until the service says that they are recorded, and said again over each new link.

A frame is never longer than the service takes, and says nothing twice.
"""

import asyncio
from collections.abc import Iterable

from ringwheel.frames import MOST_RESULTS, Lease, Result

FRAME_BYTES = 2 * 1024 * 1024
"""Of results in a frame, which the service ends a link for when it is longer than 16 MiB."""


class Outbox:
    """What was not recorded yet, by task."""

    def __init__(self) -> None:
        self._unrecorded: dict[str, Result] = {}
        self._unsaid: dict[str, Result] = {}
        self.news = asyncio.Event()
        """Set when there is something to say."""
        self.empty = asyncio.Event()
        """Set while everything is recorded."""
        self.empty.set()

    def __len__(self) -> int:
        return len(self._unrecorded)

    @property
    def leases(self) -> list[Lease]:
        """Of what was not recorded yet."""
        return [Lease(result.id, result.lease) for result in self._unrecorded.values()]

    @property
    def unanswered(self) -> list[Result]:
        """Of what was said."""
        return [result for result in self._unrecorded.values() if self._unsaid.get(result.id) is not result]

    def put(self, result: Result) -> None:
        """To be said; a later attempt of a task takes the place of an earlier one."""
        self._unrecorded[result.id] = self._unsaid[result.id] = result
        self.empty.clear()
        self.news.set()

    def take(self) -> list[Result]:
        """What is to be said now, as far as it fits into a frame."""
        taken: list[Result] = []
        size = 0
        for result in self._unsaid.values():
            size += len(result.result)
            if taken and (size > FRAME_BYTES or len(taken) == MOST_RESULTS):
                break
            taken.append(result)
        for result in taken:
            del self._unsaid[result.id]
        return taken

    def recorded(self, task_ids: Iterable[str]) -> None:
        """These are over."""
        for task_id in task_ids:
            self._unrecorded.pop(task_id, None)
        if not self._unrecorded:
            self.empty.set()

    def find(self, task_id: str, lease: str) -> Result | None:
        """The result under this lease, unless it was recorded."""
        result = self._unrecorded.get(task_id)
        return result if result is not None and result.lease == lease else None

    def say_again(self, result: Result) -> None:
        """Unless it was recorded meanwhile."""
        if self._unrecorded.get(result.id) is result:
            self._unsaid[result.id] = result
            self.news.set()

    def say_all_again(self) -> None:
        """A new link: nobody knows what became of what was said over the old one."""
        self._unsaid = self._unrecorded.copy()
        if self._unsaid:
            self.news.set()
