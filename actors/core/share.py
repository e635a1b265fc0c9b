"""One queue's part of a shard's memory: how much of it is here, and where the rest begins.

`after` is the key-set position that a backlog rests behind. A page under way will move it; what is let go meanwhile,
and so may be missing from that page, keeps it from moving too far (`ceiling`).
"""

from actors.core.events import Page

Key = tuple[int, str]
"""(due_ms, id): the order of rows in a queue."""


class Share:
    """One queue's part of a shard's memory."""

    __slots__ = ("after", "ceiling", "held", "offered", "page")

    def __init__(self) -> None:
        self.held = 0
        """Tasks waiting or offered."""
        self.offered = 0
        self.after: Key | None = None
        """Backlog beyond this key rests in the tables; None: all of it is here."""
        self.page: Page | None = None
        """The page under way."""
        self.ceiling: Key | None = None
        """How far the page under way may take `after` at most: tasks beyond were let go that it may not show."""

    def lower(self, key: Key) -> None:
        """Tasks beyond this key rest in the tables."""
        if self.after is None or key < self.after:
            self.after = key
        if self.page is not None and (self.ceiling is None or key < self.ceiling):
            self.ceiling = key

    def advance(self, key: Key | None) -> None:
        """The page under way brought everything up to this key (None: to its end, which is where memory ends)."""
        self.page = None
        self.after = key
        if self.ceiling is not None:
            self.lower(self.ceiling)
