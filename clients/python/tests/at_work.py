"""A worker that runs beside a test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ringwheel import Worker


@asynccontextmanager
async def at_work(worker: Worker) -> AsyncIterator[None]:
    """Stopped in good order on the way out; cancelled when the test has failed."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.run(signals=False))
        await asyncio.sleep(0)  # it has begun
        try:
            yield
        except BaseException:
            task.cancel()
            raise
        worker.stop()
