import os

import pytest

from bench.processes import Child, Failed, process


async def test_a_process_is_ready_and_then_ended() -> None:
    async with process("-m", "bench.sink") as child:
        assert child.port > 0
        assert child.rss_mib() > 1
        assert child.cpu_s() >= 0
        child.check()
    assert child.ended.done()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    with pytest.raises(Failed, match="ended by itself"):
        child.check()


async def test_a_process_that_dies_says_why() -> None:
    with pytest.raises(Failed, match="no reason at all"):
        async with process("-c", "raise SystemExit('no reason at all')"):
            raise AssertionError("never entered")


async def test_what_it_said_last_is_read_first() -> None:
    child = Child("ready")
    child.process_exited()
    child.pipe_data_received(2, b"no room\n")
    child.connection_lost(None)
    with pytest.raises(Failed, match="no room"):
        await child.ready


async def test_an_error_in_the_benchmark_ends_the_process_too() -> None:
    with pytest.raises(KeyError):
        async with process("-m", "bench.sink") as child:
            raise KeyError
    assert child.ended.done()
