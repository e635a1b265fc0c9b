import asyncio

import pytest

from bench.websocket import CLOSE, PING, TEXT, Frames, connect, frame
from tests.bench.fake_service import fake_service


def unmasked(payload: bytes, opcode: int = TEXT) -> bytes:
    """The same frame as a server sends it."""
    data = frame(payload, opcode)
    head = len(data) - len(payload) - 4
    return bytes((data[0], data[1] & 0x7F)) + data[2:head] + payload


def fed(frames: Frames, data: bytes) -> list[tuple[int, bytes]]:
    return [(opcode, bytes(payload)) for opcode, payload in frames.feed(data)]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_of_every_length(size: int) -> None:
    payload = bytes(size)
    assert fed(Frames(), unmasked(payload)) == [(TEXT, payload)]


def test_frames_may_be_cut_anywhere() -> None:
    sent = [(TEXT, b"one"), (PING, b""), (TEXT, bytes(300)), (CLOSE, b"\x03\xe8")]
    data = b"".join(unmasked(payload, opcode) for opcode, payload in sent)
    for step in (1, 2, 3, 7, len(data)):
        frames = Frames()
        found = [each for first in range(0, len(data), step) for each in fed(frames, data[first : first + step])]
        assert found == sent


def test_what_no_service_sends_is_refused() -> None:
    with pytest.raises(ValueError, match="several frames"):
        Frames().feed(bytes((TEXT, 0)))
    with pytest.raises(ValueError, match="masks"):
        Frames().feed(frame(b"{}"))


async def test_messages_go_both_ways_until_the_service_closes() -> None:
    heard: asyncio.Queue[bytearray] = asyncio.Queue()
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with fake_service() as service, asyncio.timeout(30):
        socket = await connect(service.port, "/v1/worker", heard.put_nowait, lost.set_result)
        socket.send(b'{"type":"ready"}')
        assert await service.hear("ready") == {"type": "ready"}
        await service.say({"type": "drain"})
        assert bytes(await heard.get()) == b'{"type": "drain"}'
        await service.cut()
        assert await lost == "closed with 1000: "


async def test_a_link_that_is_closed_here_is_lost_too() -> None:
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with fake_service() as service, asyncio.timeout(30):
        socket = await connect(service.port, "/v1/worker", lambda _: None, lost.set_result)
        socket.close()
        socket.send(b"into nothing")
        assert await lost == "closed"


async def test_a_service_without_such_a_link() -> None:
    async with fake_service() as service:
        with pytest.raises(ConnectionError, match="404"):
            await connect(service.port, "/v1/other", lambda _: None, lambda _: None)
