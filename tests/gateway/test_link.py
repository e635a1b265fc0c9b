"""What a link that is down, broken or full means for those who use it."""

import asyncio
import socket
from typing import Any

import pytest

from actors.core.errors import Unavailable
from actors.core.wire import PAYLOAD_BYTES, Message, WireTopic
from actors.ports.leases import Peer
from gateway import link
from gateway.guest import Guest
from gateway.link import OUTBOX, WATCHED
from tests.gateway.linked import EPOCHS, QUEUE, SECRET, command, end, error_of, pair
from tests.gateway.watched import id_of
from tests.support.builders import T0_MS, make_task


async def test_who_is_not_linked_is_not_asked() -> None:
    async with end("boot-a") as a, end("boot-b") as b:
        assert await a.peers.ask("boot-b", command()) is None
        a.peers.hint("boot-b", [make_task(1, QUEUE)], T0_MS, EPOCHS)
        a.see(b)
        assert await a.peers.ask("boot-b", command()) is None, "not before it is up"


async def test_a_hint_waits_for_a_link_that_is_opened_for_the_first_time() -> None:
    """As when a node comes back under a new boot: what it accepted meanwhile is told at once."""
    async with end("boot-a") as a, end("boot-b") as b:
        b.see(a)
        a.see(b)
        for n in range(3):
            a.peers.hint("boot-b", [make_task(n, QUEUE)], T0_MS, EPOCHS)
        assert a.peers.lost == 0
        await b.node.until(lambda: len(b.node.hinted) == 3)
        await (await a.linked(b)).cut()
        a.see()
        b.see()


async def test_a_living_node_that_can_not_be_reached_is_told_of_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once, not each time, and no more once it is reached."""
    monkeypatch.setattr(link, "PAUSES_S", (0.001,))
    monkeypatch.setattr(link, "PATIENCE_S", 0.05)
    monkeypatch.setattr(link, "SILENCE_S", 0.2)
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    monkeypatch.setattr(link.log, "warning", lambda event, **fields: said.put_nowait(fields), raising=False)
    with socket.socket() as nobody:  # bound, and not listening
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        async with end("boot-a") as a, asyncio.timeout(10):
            began_s = asyncio.get_running_loop().time()
            a.peers.see("boot-a", SECRET, [Peer("boot-b", "b", address, "up", 0)])
            first, _ = await said.get(), await said.get()
            assert asyncio.get_running_loop().time() - began_s >= 0.25
            assert said.empty()
            assert (first["boot"], first["url"]) == ("boot-b", f"http://{address}/peer/v1")
            assert first["reason"] == "ConnectionRefusedError: Connection refused"
            a.see()


async def test_no_hint_waits_for_a_link_that_fell() -> None:
    async with pair() as (a, b):
        way = await a.linked(b)
        way.end()
        a.peers.hint("boot-b", [make_task(1, QUEUE)], T0_MS, EPOCHS)
        assert a.peers.lost == 1


async def test_a_link_that_breaks_answers_its_questions_and_is_opened_anew() -> None:
    async with pair() as (a, b), asyncio.TaskGroup() as group:
        b.node.held.clear()
        asked = group.create_task(error_of(a, command()))
        await b.node.until(lambda: len(b.node.asked) == 1)
        await (await a.linked(b)).cut()
        assert isinstance(await asked, Unavailable)
        b.node.held.set()
        await a.linked(b)
        assert await a.peers.ask("boot-b", command()) is not None


async def test_a_dead_boot_is_let_go_and_its_questions_are_answered() -> None:
    async with pair() as (a, b), asyncio.TaskGroup() as group:
        b.node.held.clear()
        asked = group.create_task(error_of(a, command()))
        await b.node.until(lambda: len(b.node.asked) == 1)
        a.see()
        assert isinstance(await asked, Unavailable)
        assert a.peers.link("boot-b") is None
        b.node.held.set()


async def test_a_full_link_loses_hints_and_refuses_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "OUTBOX", 3)
    async with pair() as (a, b):
        for n in range(10):
            a.peers.hint("boot-b", [make_task(n, QUEUE)], T0_MS, EPOCHS)
        assert await a.peers.ask("boot-b", command()) is None
        await b.node.until(lambda: len(b.node.hinted) == 3)
        assert a.peers.lost == 7


async def test_many_large_tasks_go_in_frames_that_fit() -> None:
    async with pair() as (a, b):
        many = [make_task(n, QUEUE, payload=bytes(PAYLOAD_BYTES)) for n in range(OUTBOX)]
        a.peers.hint("boot-b", many, T0_MS, EPOCHS)
        await b.node.until(lambda: len(b.node.hinted) == OUTBOX)
        assert a.peers.lost == 0


async def test_however_much_is_watched_a_link_tells_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Message] = []
    say = Guest._say

    def listen(guest: Guest, message: Message) -> None:
        said.append(message)
        say(guest, message)

    monkeypatch.setattr(Guest, "_say", listen)
    async with pair() as (a, b):
        way = await a.linked(b)
        await way.watch([WireTopic(task=id_of(n)) for n in range(2 * WATCHED + 1)])
        assert all(b.hub.feeds(id_of(n)) == 1 for n in range(2 * WATCHED + 1))
        assert len(said) == 1, "not before it tells of all"
        way.forget([WireTopic(task=id_of(n)) for n in range(2 * WATCHED)])
        await b.hub.until(lambda: b.hub.feeds(id_of(2 * WATCHED - 1)) == 0)
        assert (b.hub.watchers, b.hub.feeds(id_of(2 * WATCHED))) == (1, 1)


async def test_what_is_watched_is_told_over_a_full_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "OUTBOX", 0)
    monkeypatch.setattr(link, "ASKED", 0)
    async with pair() as (a, b):
        assert await error_of(a, command())
        await (await a.linked(b)).watch([WireTopic(task=id_of(1))])
        assert b.hub.feeds(id_of(1)) == 1


async def test_a_link_that_breaks_keeps_nobody_waiting_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "WATCH_S", 60.0)
    monkeypatch.setattr(Guest, "_say", lambda guest, message: None)
    async with pair() as (a, b), asyncio.TaskGroup() as group, asyncio.timeout(10):
        way = await a.linked(b)
        waiting = group.create_task(way.watch([WireTopic(task=id_of(1))]))
        await b.hub.until(lambda: b.hub.feeds(id_of(1)) == 1)
        await way.cut()
        await waiting
        await b.hub.until(lambda: b.hub.feeds(id_of(1)) == 0)


async def test_a_link_that_fell_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "WATCH_S", 0.0)
    async with pair() as (a, b):
        way = await a.linked(b)
        await way.watch([WireTopic(task=id_of(1))])
        way.forget([WireTopic(task=id_of(1))])
        assert (len(way._late), len(way._watches)) == (1, 1)
        way.end()
        assert (len(way._late), len(way._watches)) == (0, 0)
        way.forget([WireTopic(task=id_of(1))])
        await way.watch([WireTopic(task=id_of(1))])
        assert not way._watches


async def test_a_boot_that_is_not_where_it_was_is_gone() -> None:
    """Nobody listens there any more: the node is told to look."""
    async with end("boot-a") as a:
        async with end("boot-b") as b:
            a.see(b)
            b.see(a)
            await a.linked(b)
            assert not a.peers.is_gone("boot-b")
            b.see()
        await a.node.until(lambda: a.peers.is_gone("boot-b"))
        assert a.node.given == 1
        a.see()
        assert not a.peers.is_gone("boot-b")


async def test_a_boot_whose_place_another_one_has_taken_is_gone() -> None:
    async with end("boot-a") as a, end("boot-b") as b:
        a.see(b)
        b.boot = "boot-c"
        b.see(a)
        await a.node.until(lambda: a.peers.is_gone("boot-b"))
        a.see()
        b.see()


async def test_one_that_says_nothing_is_not_gone() -> None:
    """As a process that is stopped: it takes connections, and never answers."""
    async with end("boot-a") as a:
        writers: list[asyncio.StreamWriter] = []
        silent = await asyncio.start_server(lambda reader, writer: writers.append(writer), "127.0.0.1", 0)
        async with silent:
            host, port = silent.sockets[0].getsockname()[:2]
            a.peers.see("boot-a", SECRET, [a.peer, Peer("boot-b", "b", f"{host}:{port}", "up", 1)])
            way = a.peers.link("boot-b")
            assert way is not None
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await way.up.wait()
            assert not way.gone
            a.see()
            for writer in writers:
                writer.close()
