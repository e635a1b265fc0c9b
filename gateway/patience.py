"""How long a request waits for a database that does not answer: not for its time-outs.

Heartbeats ask the database all the time. When none has come through for SILENT_S, whoever waits is told so, and who
comes then is given TRY_S, in case that only heartbeats suffer; once a try has failed too, nobody else waits until they
come through again, or somebody is served.

Refuses to decide on accepting: the intake sees its own commits (`actors/intake.py`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.core.errors import Unavailable

SILENT_S = 2.0
TRY_S = 1.0
RETRY_MS = 2_000
WORDS = "the database does not answer"


class Patience:
    """One a gateway."""

    def __init__(self, silent_s: Callable[[], float] = lambda: 0.0) -> None:
        """`silent_s`: how long no heartbeat has come through."""
        self._silent_s = silent_s
        self._tried = False
        """In vain."""

    @asynccontextmanager
    async def wait(self) -> AsyncIterator[None]:
        """A wait that ends in time. Raises Unavailable: what was asked for may or may not have happened."""
        silent = self._silent_s() >= SILENT_S
        if silent and self._tried:
            raise Unavailable(WORDS, RETRY_MS)
        loop = asyncio.get_running_loop()
        watch: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal watch
            left_s = SILENT_S - self._silent_s()
            if left_s > 0:
                watch = loop.call_later(left_s, look)
            else:
                limit.reschedule(loop.time())

        try:
            async with asyncio.timeout(TRY_S if silent else None) as limit:
                if not silent:
                    look()
                yield
        except TimeoutError:
            self._tried = True
            if limit.expired():
                raise Unavailable(WORDS, RETRY_MS) from None
            raise
        except Unavailable:
            self._tried = True
            raise
        else:
            self._tried = False
        finally:
            if watch is not None:
                watch.cancel()
