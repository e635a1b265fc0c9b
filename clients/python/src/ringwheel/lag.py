"""How long what is read from a link may have lain there unread: for as long as a handler kept the loop to itself.

Nothing that came meanwhile is known to the heartbeat, so its leases may be over by the time it is read. Told by the
loop's own turns on the monotonic clock: the clocks of the worker and of the service may differ by more than a lease.
"""

import asyncio
from time import monotonic as clock_s
from typing import NoReturn

TURN_S = 0.05
LATE_S = 0.1
"""A turn that is less late is not worth a thought: no lease is shorter than a second."""
READ_S = 1.0
"""So soon after a late turn, all that had come is read."""


class Lag:
    """Of one loop."""

    def __init__(self) -> None:
        self._turned_s = clock_s()
        self._blocked_s = 0.0
        self._freed_s = float("-inf")

    async def run(self) -> NoReturn:
        """Watch the loop's turns until cancelled."""
        while True:
            await asyncio.sleep(TURN_S)
            now_s = clock_s()
            late_s = now_s - self._turned_s - TURN_S
            if late_s > LATE_S:
                self._blocked_s, self._freed_s = late_s, now_s
            self._turned_s = now_s

    def unread_s(self) -> float:
        """For how long, at most, what is read now may have lain unread."""
        now_s = clock_s()
        freed_s = now_s - self._freed_s
        before_s = self._blocked_s + freed_s if freed_s < READ_S else 0.0
        return max(before_s, now_s - self._turned_s - TURN_S)
