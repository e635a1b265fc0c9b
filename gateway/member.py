"""A member of the crew (`crew.py`): who takes tasks for a worker."""

from typing import Protocol

from actors.core.lease import Lent


class Member(Protocol):
    """A worker's link, or a call that waits for tasks."""

    @property
    def tenant(self) -> str:
        """Whose worker it is."""
        ...

    @property
    def room_bytes(self) -> int:
        """So much it takes now; 0 or less: nothing. The last task may go beyond it."""
        ...

    def give(self, queue: str, tasks: list[Lent]) -> None:
        """Tasks, no more than its credits."""
        ...

    def let_lapse(self, period_ms: int) -> bool:
        """A lease of so long was its own and ran out. True: it seems to hang, and takes nothing until it speaks."""
        ...

    def cancel(self, ids: list[str]) -> None:
        """These of its tasks were cancelled."""
        ...
