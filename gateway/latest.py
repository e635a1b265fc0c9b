"""Which version of a task was told last, so that what comes late, or a second time, is told by nobody.

Changes of one task come in order from each node, but over a link of its own each: when its shard moves, or when another
node accepted it, an older change may arrive after a newer one.

Promises: bounded. Of the last `SIZE` to twice as many tasks that something was told of, nothing goes back. An
interruption begins anew: a new owner counts the starts that nothing records from 0 again.
"""

from actors.core.changes import follows
from actors.core.events import Change

SIZE = 32_768


class Latest:
    """Versions by task."""

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._recent: dict[str, int] = {}
        self._old: dict[str, int] = {}

    def news(self, changes: list[Change]) -> list[Change]:
        """Those of them that are later than all that was told of their tasks."""
        return [change for change in changes if self._is_news(change.id, change.version)]

    def _is_news(self, task_id: str, version: int) -> bool:
        known = self._recent.get(task_id)
        if known is None:
            known = self._old.get(task_id, -1)
        if not follows(version, known):
            return False
        self._recent[task_id] = version
        if len(self._recent) >= self._size:
            self._old, self._recent = self._recent, {}
        return True

    def clear(self) -> None:
        """Whatever comes next is news."""
        self._recent = {}
        self._old = {}
