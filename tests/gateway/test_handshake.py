"""Who gets a link, and who gets none."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from actors.core.wire import Frame, encode
from actors.ports.leases import Peer
from gateway import handshake, link
from gateway.handshake import HANDSHAKE_BYTES, KNOCK, NONCE_BYTES, Refused, introduce, is_known, knock
from gateway.link import PATH
from gateway.link_socket import open_socket
from gateway.tls import trusting
from gateway.turn import Turn
from tests.gateway.linked import SECRET, end


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the log says."""
    said: list[str] = []
    monkeypatch.setattr(handshake.log, "warning", lambda words, **fields: said.append(words))
    return said


async def test_a_process_at_the_address_of_one_that_is_gone_is_no_stranger(
    warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash, until the old boot is declared dead: neither side warns, and there is no link."""
    monkeypatch.setattr(link, "PAUSES_S", (0.01,))
    async with end("boot-a") as a, end("boot-c") as c:
        c.see(a)
        gone = Peer("boot-b", "name", c.address, "up", 1)
        a.peers.see("boot-a", SECRET, [a.peer, c.peer, gone])
        await a.linked(c)
        for _ in range(3):
            assert (await refusal(c.address, "boot-b")) is Refused
        way = a.peers.link("boot-b")
        assert way is not None
        assert not way.up.is_set()
        assert warnings == []
        a.see()
        c.see()


async def test_a_stranger_who_says_another_name_is_a_stranger(warnings: list[str]) -> None:
    async with end("boot-b") as b:
        b.see(secret=b"x" * 32)
        assert (await refusal(b.address, "boot-a")) is not None
        assert len(warnings) >= 1


async def refusal(address: str, theirs: str) -> type[Exception] | None:
    """What a link to this boot ends with, at this address."""
    async with open_socket(f"ws://{address}{PATH}", trusting(None), {}, HANDSHAKE_BYTES, Turn()) as socket:
        try:
            await introduce(socket, SECRET, "boot-z", theirs)
        except Refused as error:
            return type(error)
    return None


async def test_nodes_of_the_last_version_are_linked_with() -> None:
    """They take the whole challenge for a nonce, and say nothing but a nonce."""
    async with end("boot-b") as b, aiohttp.ClientSession() as session:
        b.see()
        async with session.ws_connect(f"http://{b.address}{PATH}") as ws, asyncio.timeout(10):
            nonce = bytes(NONCE_BYTES)
            challenge = await ws.receive_bytes()
            proof = handshake._proof(SECRET, handshake._CLIENT, challenge, "boot-z", "boot-b")
            await ws.send_bytes(nonce + proof + b"boot-z")
            assert await ws.receive_bytes() == handshake._proof(SECRET, handshake._SERVER, nonce, "boot-b", "boot-z")


async def test_an_older_server_is_linked_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "_hello", lambda secret, nonce, mine: nonce)
    async with end("boot-a") as a, end("boot-b") as b:
        a.see(b)
        b.see(a)
        await a.linked(b)
        a.see()
        b.see()


@pytest.mark.parametrize("secret", [b"x" * 32, b""])
async def test_a_node_of_another_cluster_gets_no_link(secret: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "PAUSES_S", (0.01,))
    refused = asyncio.Event()
    monkeypatch.setattr(handshake.log, "warning", lambda *args, **fields: refused.set())
    async with end("boot-a") as a, end("boot-b") as b:
        a.see(b, secret=secret)
        b.see(a)
        async with asyncio.timeout(10):
            await refused.wait()
        way = a.peers.link("boot-b")
        assert way is not None
        assert not way.up.is_set()
        a.see()
        b.see()


async def test_a_server_that_is_not_of_the_cluster_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It accepts any proof, and has none of its own."""
    left = asyncio.Event()

    async def impostor(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        await ws.send_bytes(bytes(NONCE_BYTES))
        await ws.receive()
        await ws.send_bytes(bytes(NONCE_BYTES))
        async for _ in ws:
            raise AssertionError("nothing is said to it")
        left.set()
        return ws

    async with end("boot-a") as a, end("boot-b") as b:
        app = web.Application()
        app.router.add_get(PATH, impostor)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            b.address = f"127.0.0.1:{runner.addresses[0][1]}"
            a.see(b)
            async with asyncio.timeout(10):
                await left.wait()
        finally:
            await runner.cleanup()


@pytest.mark.parametrize(
    "first",
    [b"", b"x" * 64, b"x" * 1_000, encode(Frame("boot-b", "boot-a", [])), "text"],
    ids=lambda first: str(len(first)),
)
async def test_a_stranger_is_sent_away(first: bytes | str) -> None:
    async with end("boot-b") as b, aiohttp.ClientSession() as session:
        b.see()
        async with session.ws_connect(f"http://{b.address}{PATH}") as ws, asyncio.timeout(10):
            assert len(await ws.receive_bytes()) >= NONCE_BYTES
            await (ws.send_str(first) if isinstance(first, str) else ws.send_bytes(first))
            assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_S", 0.05)
    async with end("boot-b") as b, aiohttp.ClientSession() as session:
        b.see()
        async with session.ws_connect(f"http://{b.address}{PATH}") as ws, asyncio.timeout(10):
            await ws.receive_bytes()
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_before_it_has_joined_a_node_lets_nobody_in() -> None:
    async with (
        end("boot-b") as b,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"http://{b.address}{PATH}") as ws,
        asyncio.timeout(10),
    ):
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE


async def longest(address: str, headers: dict[str, str], size: int) -> int | None:
    """What a first message of so many bytes is closed with."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://{address}{PATH}", headers=headers) as ws:
        await ws.receive_bytes()
        await ws.send_bytes(bytes(size))
        async with asyncio.timeout(10):
            await ws.receive()
        return ws.close_code


async def test_a_stranger_sends_no_more_than_a_handshake_needs() -> None:
    """1009: the message was not taken in; 1008: it was, and is no proof."""
    async with end("boot-b") as b:
        b.see()
        knocks = knock(SECRET, "boot-a")
        strangers: tuple[dict[str, str], ...] = ({}, knock(b"x" * 32, "boot-a"), {KNOCK: "boot-z " + knocks[KNOCK][7:]})
        for stranger in (*strangers, {KNOCK: "boot-a"}, {KNOCK: "\u00e9 \u00e9"}):
            assert await longest(b.address, stranger, HANDSHAKE_BYTES) == 1009
            assert await longest(b.address, stranger, HANDSHAKE_BYTES - 1) == 1008
        assert await longest(b.address, knocks, HANDSHAKE_BYTES) == 1008


async def test_who_knows_no_secret_yet_knows_nobody() -> None:
    assert not is_known(knock(b"", "boot-a"), b"")
