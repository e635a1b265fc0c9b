"""Ctrl-C where the worker leaves it to others."""

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest

from fake_service import elsewhere
from ringwheel import Client, Worker
from ringwheel.ctrl_c import is_ctrl_c


@pytest.fixture
def by_python() -> Iterator[None]:
    """SIGINT is Python's, as in a program that does not deal with it, whatever ran in this process before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("by_python")
def test_a_second_ctrl_c_ends_the_program_though_a_handler_blocks_it() -> None:
    with elsewhere() as fake:
        worker = Worker(Client(fake.url), "q", 1)

        @worker.task
        async def work() -> None:
            signal.raise_signal(signal.SIGINT)  # asyncio cancels the program,
            signal.raise_signal(signal.SIGINT)  # and breaks off what does not end
            raise AssertionError

        assert fake.loop is not None
        fake.loop.call_soon_threadsafe(fake.add)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(worker.run(signals=False))
        [held] = fake.tasks.values()
        assert (held.attempt, held.ends) == (1, [])


def caught_in_a_handler() -> BaseException:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        return error


def test_where_python_itself_raises_it_nothing_tells_the_two_apart() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            signal.raise_signal(signal.SIGINT)
        assert is_ctrl_c(caught.value)
        assert is_ctrl_c(caught_in_a_handler())
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(is_ctrl_c(caught_in_a_handler())))
        thread.start()
        thread.join()
        assert seen == [False], "signals come to the main thread"
    finally:
        signal.signal(signal.SIGINT, before)


def test_where_somebody_handles_it_what_a_handler_raises_is_its_own() -> None:
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        assert not is_ctrl_c(caught_in_a_handler())
        assert not is_ctrl_c(SystemExit())
    finally:
        signal.signal(signal.SIGINT, before)
