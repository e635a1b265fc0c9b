"""Batches that gather while the last one is on its way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gather import Gather
from tests.support.virtual_time import VirtualTimeLoop


class Flushed:
    """Keeps the batches; each takes `takes_s`."""

    def __init__(self, most: int, takes_s: float = 1.0, interval_s: float = 0.0, longest_s: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self.started: list[float] = []
        self._takes_s = takes_s
        self.gather: Gather[int] = Gather(self._flush, most, interval_s, longest_s)

    async def _flush(self, batch: list[int]) -> None:
        self.batches.append(batch)
        self.started.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self._takes_s)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.gather.run())
            yield
            task.cancel()


async def test_the_next_batch_gathers_while_one_is_on_its_way() -> None:
    flushed = Flushed(10)
    async with flushed.running():
        flushed.gather.put([1])
        await asyncio.sleep(0.5)
        flushed.gather.put([2, 3])
        flushed.gather.put([4])
        assert len(flushed.gather) == 3
        await flushed.gather.idle()
    assert flushed.batches == [[1], [2, 3, 4]]


async def test_a_batch_has_at_most_so_many_items() -> None:
    flushed = Flushed(4)
    async with flushed.running():
        flushed.gather.put(range(10))
        await flushed.gather.idle()
    assert flushed.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_flushes_keep_their_distance_unless_a_full_batch_waits() -> None:
    flushed = Flushed(3, takes_s=1.0, interval_s=5.0)
    async with flushed.running():
        flushed.gather.put([1])
        await asyncio.sleep(2.0)
        flushed.gather.put([2])
        await flushed.gather.idle()
        flushed.gather.put(range(3, 9))
        await flushed.gather.idle()
        await asyncio.sleep(20.0)
        flushed.gather.put([9])
        await flushed.gather.idle()
    assert flushed.batches == [[1], [2], [3, 4, 5], [6, 7, 8], [9]]
    assert flushed.started == pytest.approx([0, 5, 10, 11, 32])


async def test_flushes_that_take_long_are_further_apart_up_to_a_limit() -> None:
    for takes_s, apart_s in ((0.1, 1.0), (0.3, 1.5), (1.0, 4.0), (6.0, 6.0)):
        flushed = Flushed(3, takes_s=takes_s, interval_s=1.0, longest_s=4.0)
        async with flushed.running():
            for item in range(3):
                flushed.gather.put([item], urgent=False)
                await asyncio.sleep(takes_s / 2)
            await flushed.gather.idle()
        begin_s, *later_s = flushed.started
        assert later_s[0] == pytest.approx(begin_s + apart_s), takes_s


@pytest.mark.parametrize(("waits_s", "items"), [(2.0, [2]), (0.2, [2]), (2.0, [2, 3, 4])])
async def test_what_is_urgent_or_fills_a_batch_does_not_wait_because_flushes_take_long(
    waits_s: float, items: list[int]
) -> None:
    flushed = Flushed(4, takes_s=1.0, interval_s=1.5, longest_s=5.0)
    async with flushed.running():
        flushed.gather.put([0], urgent=False)
        await asyncio.sleep(0.1)
        flushed.gather.put([1], urgent=False)
        await asyncio.sleep(waits_s)
        flushed.gather.put(items, urgent=len(items) == 1)
        await flushed.gather.idle()
    assert flushed.batches == [[0], [1, *items]]
    assert flushed.started == pytest.approx([0, max(1.5, 0.1 + waits_s)])


async def test_idle_means_that_nothing_waits_and_nothing_is_on_its_way() -> None:
    flushed = Flushed(2)
    loop = asyncio.get_running_loop()
    await flushed.gather.idle()
    flushed.gather.put([])
    await flushed.gather.idle()
    async with flushed.running():
        flushed.gather.put(range(6))
        await flushed.gather.idle()
        assert loop.time() == pytest.approx(3)
        flushed.gather.put([1])
        await flushed.gather.idle()
        assert loop.time() == pytest.approx(4)
    assert len(flushed.gather) == 0


async def test_an_error_of_flush_ends_it() -> None:
    async def fail(batch: list[int]) -> None:
        raise ZeroDivisionError

    gather: Gather[int] = Gather(fail, 1)
    gather.put([1])
    with pytest.raises(ZeroDivisionError):
        await gather.run()


@given(
    puts=st.lists(st.tuples(st.lists(st.integers(0, 12)), st.floats(0, 3)), max_size=12),
    most=st.integers(1, 20),
    interval_s=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_nothing_is_lost_nothing_overtakes_and_no_batch_is_too_large(
    puts: list[tuple[list[int], float]], most: int, interval_s: float
) -> None:
    async def scenario() -> list[list[int]]:
        flushed = Flushed(most, interval_s=interval_s)
        async with flushed.running():
            for items, pause_s in puts:
                flushed.gather.put(items)
                await asyncio.sleep(pause_s)
            await flushed.gather.idle()
        return flushed.batches

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        batches = runner.run(scenario())
    assert [item for batch in batches for item in batch] == [item for items, _ in puts for item in items]
    assert all(0 < len(batch) <= most for batch in batches)
