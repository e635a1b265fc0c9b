"""What one read of a socket brings: who has something to write because of it writes once, when all of it was heard.

Used where many small things come at once, and each would cost a write of its own.
"""

from collections.abc import Callable
from contextlib import ExitStack


class Turn:
    """`with turn: ...` around all that one read brings; for one loop, and not nested."""

    def __init__(self) -> None:
        self._on = False
        self._put_off: dict[Callable[[], None], None] = {}

    def put_off(self, do: Callable[[], None]) -> bool:
        """It is called once, at the end of the turn. False: there is none."""
        if self._on:
            self._put_off[do] = None
        return self._on

    def __enter__(self) -> None:
        self._on = True

    def __exit__(self, *_: object) -> None:
        self._on = False
        put_off, self._put_off = self._put_off, {}
        with ExitStack() as stack:  # one that fails is no other's business
            for do in reversed(put_off):
                stack.callback(do)
