"""How names of targets become addresses."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import AsyncResolver

from actors.core.events import Verdict
from gateway import client
from tests.support.dispatch import FakeNode, courier, deliver, webhook
from tests.support.name_server import NameServer, name_server
from tests.support.raw_target import OK, raw_target, says


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameServer]:
    """The name server that is asked; like the real resolver in all else."""
    async with name_server() as server:
        monkeypatch.setattr(
            client,
            "open_resolver",
            lambda: AsyncResolver(
                nameservers=[f"127.0.0.1:{server.port}"], timeout=client.DNS_ANSWER_S, tries=client.DNS_TRIES
            ),
        )
        yield server


async def test_names_that_hang_keep_nobody_waiting(names: NameServer) -> None:
    node = FakeNode()
    async with raw_target(says(OK)) as target, courier(node):
        hang = [f"n{n}.tarpit.test" for n in range(40)]
        node.offer([webhook(f"http://{name}/", n=n, deadline_ms=60_000) for n, name in enumerate(hang)])
        good = webhook(f"http://a.good.test:{target.port}/", n=999, deadline_ms=60_000)
        async with asyncio.timeout(30):
            await names.until_asked(set(hang))
            node.offer([good])
            outcomes = await node.until(1)
    assert [(outcome.task is good, outcome.verdict) for outcome in outcomes] == [(True, Verdict.SUCCEEDED)]


async def test_nothing_of_it_runs_in_the_threads_of_the_loop(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a thread was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    async with raw_target(says(OK)) as target:
        for host in ("localhost", "127.0.0.1", "b.good.test"):
            assert (await deliver(webhook(f"http://{host}:{target.port}/"))).verdict is Verdict.SUCCEEDED


async def test_the_deadline_bounds_the_look_up(names: NameServer) -> None:
    outcome = await deliver(webhook("http://a.tarpit.test/", deadline_ms=100))
    assert (outcome.verdict, outcome.error) == (Verdict.FAILED, "timed out after 0.1 s")


async def test_a_look_up_that_nobody_answers_ends_by_itself(names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "DNS_ANSWER_S", 0.25)
    outcome = await deliver(webhook("http://a.tarpit.test/", deadline_ms=60_000))
    assert outcome.error == "no address found for a.tarpit.test"


@pytest.mark.parametrize("host", ["nobody.bad.test", "a" * 64 + ".good.test"])
async def test_no_such_name(names: NameServer, host: str) -> None:
    outcome = await deliver(webhook(f"http://{host}/"))
    assert (outcome.verdict, outcome.error) == (Verdict.FAILED, f"no address found for {host}")


async def test_a_name_that_leads_to_refused_addresses_is_refused(names: NameServer) -> None:
    names.addresses = ["10.0.0.1", "10.0.0.2"]
    outcome = await deliver(webhook("http://looks.good.test/"))
    assert outcome.verdict is Verdict.NEVER
    assert outcome.error is not None
    assert "not allowed (private)" in outcome.error


async def test_names_of_the_hosts_file_are_known() -> None:
    """Without any name server: `localhost`, whatever the file says, and the first other name of this machine."""
    with open("/etc/hosts") as file:  # noqa: ASYNC230 - a small local file
        entries = [line.split("#")[0].split() for line in file]
    names = [name for address, *names in filter(None, entries) if address.startswith("127.") for name in names]
    async with raw_target(says(OK)) as target:
        for host in {"localhost", *names}:
            assert (await deliver(webhook(f"http://{host}:{target.port}/"))).verdict is Verdict.SUCCEEDED


async def test_words_for_a_target_with_addresses_of_two_kinds() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        outcome = await deliver(webhook(f"http://localhost:{taken.getsockname()[1]}/"), allow=("127.0.0.0/8",))
    assert outcome.verdict is Verdict.FAILED
    assert outcome.error is not None
    assert outcome.error.startswith("connect ")
    assert "Multiple" not in outcome.error
