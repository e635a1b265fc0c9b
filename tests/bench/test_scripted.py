import asyncio
import gc
import socket
import time
from urllib.parse import urlsplit

from bench.scripted import LOOK_S, SLACK_MS, Target, listening

HELD_UP_S = 0.2


def connect(url: str) -> socket.socket:
    """Without a turn of the loop, like what is sent over it."""
    there = urlsplit(url)
    return socket.create_connection((there.hostname, there.port or 0), timeout=5)


def call(script: str, attempt: int) -> bytes:
    lines = (f"POST /{script} HTTP/1.1", "webhook-id: a task", f"ringwheel-attempt: {attempt}")
    return "\r\n".join([*lines, f"ringwheel-fence: 1.1.{attempt}", "Content-Length: 0", "", ""]).encode()


def hold_up() -> None:
    """Nobody has a turn meanwhile."""
    time.sleep(HELD_UP_S)


async def heard(target: Target, count: int) -> None:
    """Return when the target has read so many calls."""
    enough = asyncio.Event()

    def look() -> None:
        if sum(map(len, target.calls.values())) >= count:
            enough.set()

    target.heard = look
    async with asyncio.timeout(10):
        await enough.wait()


async def test_a_call_whose_caller_hung_up_arrived_when_its_bytes_did() -> None:
    target = Target()
    async with listening(target) as url:
        with connect(url) as kept:
            kept.sendall(call("hang", 1))
            await heard(target, 1)
            sent_ms = time.time() * 1e3
            with connect(url) as closed:
                closed.sendall(call("hang", 2))
            hold_up()
            kept.sendall(call("hang", 3))
            await heard(target, 3)
    _, second, third = target.calls["a task"]
    assert (second.attempt, third.attempt) == (2, 3)
    assert sent_ms <= second.arrived_ms <= sent_ms + 2 * SLACK_MS
    assert third.arrived_ms >= sent_ms + HELD_UP_S * 1e3
    assert target.hung_up == 1
    assert target.count == 3


async def test_a_call_whose_caller_is_there_arrived_when_its_bytes_did() -> None:
    target = Target()
    async with listening(target) as url:
        with connect(url) as connection:
            sent_ms = time.time() * 1e3
            connection.sendall(call("ok", 1))
            hold_up()
            await heard(target, 1)
    assert sent_ms <= target.calls["a task"][0].arrived_ms <= sent_ms + 2 * SLACK_MS
    assert target.hung_up == 0


async def test_a_pause_is_told_of_when_a_call_waited_for_its_end() -> None:
    target = Target()
    async with listening(target) as url:
        with connect(url) as connection:
            await asyncio.sleep(0)
            hold_up()
            await asyncio.sleep(3 * LOOK_S)
            assert target.pause_s == 0.0, "nobody called"
            connection.sendall(call("ok", 1))
            hold_up()
            await heard(target, 1)
            await asyncio.sleep(3 * LOOK_S)
    assert HELD_UP_S / 2 <= target.pause_s <= 10 * HELD_UP_S


async def test_cycles_are_left_alone_only_while_it_listens() -> None:
    async with listening(Target()):
        assert not gc.isenabled()
    assert gc.isenabled()
