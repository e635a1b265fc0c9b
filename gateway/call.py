"""One letter on its way: it waits for a line, then for its answer. It ends once, at its deadline at the latest."""

from asyncio import AbstractEventLoop
from collections.abc import Callable

from gateway.letter import Letter
from gateway.line import Line
from gateway.reply import Reply


class LeaseEnded(Exception):
    """The node may not fire any more: nothing was written."""


class Call:
    """Whoever sent the letter is told the end, never before `loop` has come round."""

    __slots__ = ("_ended", "_timer", "began_s", "letter", "line", "waits")

    def __init__(
        self, loop: AbstractEventLoop, letter: Letter, limit_s: float, ended: Callable[[Reply | Exception], None]
    ) -> None:
        self.letter = letter
        self.line: Line | None = None
        """Over which it was written."""
        self.waits: Callable[[Call], None] | None = None
        """While it waits for a line: who has to know when it ends before one came."""
        self.began_s = loop.time()
        self._ended = ended
        self._timer = loop.call_later(limit_s, self._expire)

    def end(self, result: Reply | Exception) -> None:
        """It came to this. What it comes to later is not told."""
        waits, self.waits = self.waits, None
        self._timer.cancel()
        if waits is not None:
            waits(self)
        ended, self._ended = self._ended, _ignore
        ended(result)

    def forget(self) -> None:
        """Nobody is told the end."""
        self._timer.cancel()
        self.waits = None
        self._ended = _ignore

    def _expire(self) -> None:
        if self.line is not None:
            self.line.cut(TimeoutError())
        else:
            self.end(TimeoutError())


def _ignore(result: Reply | Exception) -> None:
    """The end was told."""
