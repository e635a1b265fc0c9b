"""Port: partitions of history, made ahead and dropped whole."""

from typing import Protocol


class Housekeeping(Protocol):
    """Daily care of `finished` and `attempts`. Days are counted from 1970-01-01, on the primary's clock."""

    async def make_partitions(self, first_day: int, last_day: int) -> None:
        """Make the partitions of these days where missing; two nodes at once do no harm."""
        ...

    async def drop_partitions(self, before_day: int) -> list[str]:
        """Drop partitions of days before this one; answers their names. Never waits long for a lock."""
        ...
