"""After a frame was refused as a whole: which result is to blame, so that no other is lost with it.

An `error` does not say which frame it answers; but a service reads in order, and answers `stop` with `stopped`. So
`stop` is said first: once it is answered, the error of every frame before it is there. Then each result that has no
answer yet is said again in a frame of its own, with a `stop` behind it: an error before the answer to that blames it.

Bounded: each result is tried alone once, and what is said in the place of one that is to blame is replaced by nothing.
"""

from collections import deque

from ringwheel.frames import Result
from ringwheel.outbox import Outbox


class Doubt:
    """About the results that were said over one link."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.open = False
        """Nothing but what `next` answers is to be said."""
        self.found = False
        """Something was to blame."""
        self._asked = False
        self._suspects: deque[Result] | None = None
        self._alone: Result | None = None

    def refused(self) -> Result | None:
        """A frame was refused. Answers the result that is to blame, if that is known."""
        if not self.open:
            self.open, self.found = True, False
            return None
        blamed, self._alone = self._alone, None
        self.found = self.found or blamed is not None
        return blamed

    def next(self) -> list[Result] | None:
        """What is to be said now, and `stop` after it; None: not before `stopped`."""
        if self._asked:
            return None
        self._asked = True
        if not self._suspects:
            return []
        self._alone = self._suspects.popleft()
        return [self._alone]

    def stopped(self) -> bool:
        """Every `stop` was answered. Answers whether the doubt is over."""
        self._asked, self._alone = False, None
        if self._suspects is None:
            self._suspects = deque(self._outbox.unanswered)
        while self._suspects and self._outbox.find(self._suspects[0].id, self._suspects[0].lease) is None:
            self._suspects.popleft()
        if not self._suspects:
            self.open, self._suspects = False, None
        return not self.open
