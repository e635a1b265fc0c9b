"""Who waits for a database that does not answer, and for how long."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest

from actors.core.errors import Unavailable
from gateway.patience import SILENT_S, TRY_S, Patience
from tests.support.virtual_time import VirtualTimeLoop


class Heart:
    """Beats until it stops."""

    def __init__(self) -> None:
        self.stopped_s: float | None = None
        self.patience = Patience(self.silent_s)

    def stop(self) -> None:
        self.stopped_s = asyncio.get_running_loop().time()

    def silent_s(self) -> float:
        return 0.1 if self.stopped_s is None else asyncio.get_running_loop().time() - self.stopped_s

    async def waits_s(self, for_s: float) -> float:
        """How long a wait takes that needs so long."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with suppress(Unavailable):
            async with self.patience.wait():
                await asyncio.sleep(for_s)
        return round(loop.time() - began_s, 3)


def in_virtual_time(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(test)


def test_while_heartbeats_come_through_a_wait_has_no_limit() -> None:
    async def test() -> None:
        assert await Heart().waits_s(100) == 100

    in_virtual_time(test())


def test_waits_end_when_heartbeats_have_been_silent_and_later_ones_do_not_begin() -> None:
    async def test() -> None:
        heart = Heart()
        async with asyncio.TaskGroup() as group:
            early = [group.create_task(heart.waits_s(60)) for _ in range(2)]
            await asyncio.sleep(1)
            heart.stop()
            await asyncio.sleep(1)
            late = group.create_task(heart.waits_s(60))
        assert [await one for one in early] == [1 + SILENT_S] * 2
        assert await late == SILENT_S - 1
        assert await heart.waits_s(60) == 0
        heart.stopped_s = None
        assert await heart.waits_s(60) == 60

    in_virtual_time(test())


def test_where_heartbeats_alone_suffer_all_are_served_that_do_not_take_long() -> None:
    async def test() -> None:
        heart = Heart()
        heart.stop()
        await asyncio.sleep(60)
        assert [await heart.waits_s(TRY_S / 2) for _ in range(3)] == [TRY_S / 2] * 3
        assert [await heart.waits_s(60) for _ in range(3)] == [TRY_S, 0, 0]

    in_virtual_time(test())


def test_a_refusal_is_a_try_in_vain() -> None:
    async def test() -> None:
        heart = Heart()
        heart.stop()
        await asyncio.sleep(60)
        with pytest.raises(Unavailable, match="refused"):
            async with heart.patience.wait():
                raise Unavailable("refused")
        assert await heart.waits_s(0.1) == 0

    in_virtual_time(test())
