"""Webhooks as a way into the network that ringwheel stands in: every road is closed, seen from the inside.

A canary listens on every address of this machine; the real client is told to call it in every way that we know of.
"""

import errno
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import AsyncResolver

from actors.core.events import Outcome, Verdict
from actors.core.queue import Queue
from gateway import client
from gateway.targets import TargetPolicy
from tests.support.canary import Canary, canary
from tests.support.dispatch import FakeNode, courier, webhook
from tests.support.name_server import NameServer, name_server
from tests.support.raw_target import OK, raw_target, says

_IPV4 = (
    "127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.254 0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 "
    "169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 "
    "192.168.0.1 192.168.255.255 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 "
    "255.255.255.255 100.100.100.200 168.63.129.16"
)
_IPV6 = (
    "::1 :: ::2 0:0:0:0:0:0:0:1 0000:0000:0000:0000:0000:0000:0000:0001 ::ffff:127.0.0.1 ::ffff:7f00:1 "
    "::FFFF:7F00:0001 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::127.0.0.1 ::7f00:1 ::10.0.0.1 ::8.8.8.8 "
    "::ffff:0:127.0.0.1 ::ffff:0:7f00:1 ::ffff:0:8.8.8.8 64:ff9b::127.0.0.1 64:ff9b::7f00:1 64:ff9b::10.0.0.1 "
    "64:ff9b::a9fe:a9fe 64:ff9b:1::127.0.0.1 64:ff9b:1:7f00:0:100:: 64:ff9b:1::8.8.8.8 2002:7f00:1:: 2002:7f00:1::1 "
    "2002:a00:1:: 2002:a9fe:a9fe:: 2001::1 2001:0:7f00:1::1 2001:0:4136:e378:8000:63bf:80ff:fffe "
    "2001:0:808:808:0:0:80ff:fffe 2001:0:808:808:0:0:f5ff:fffe fe80::1 fe80::5efe:127.0.0.1 fe80::200:5efe:10.0.0.1 "
    "2600::5efe:127.0.0.1 2600::200:5efe:10.0.0.1 fc00::1 fd00:ec2::254 fd20:ce::254 fd00:42::42 fec0::1 ff02::1 "
    "ff05::2 100::1 2001:db8::1 3fff::1 5f00::1 4000::1"
)
_SPELLINGS = (
    "127.1 127.0.1 0177.0.0.1 0177.0.0.01 0x7f.0.0.1 0x7f.1 0x7f000001 0X7F000001 2130706433 017700000001 127.0.0.1. "
    "127.000.000.001 0 0. 00000000 0x0 1 127.0.0.0x1 127.0.0.1.. localhost LOCALHOST localhost. localhost.. "
    "ip6-localhost localhost.localdomain foo.localhost %31%32%37.0.0.1 127%2e0%2e0%2e1 127.0.0.1%00 127.0.0.1%20 "
    "127。0。0。1 １２７.０.０.１ ①②⑦.⓪.⓪.① ⓛocalhost lOcaLhOst%2e user@127.0.0.1 user:password@127.0.0.1 "
    "example.com@127.0.0.1 127.0.0.1\\@example.com 127.0.0.1\t [::1%25lo] [::1%lo] [fe80::1%25lo] [fe80::1%251] "
    "[::ffff:127.0.0.1%25lo] [::1]. [[::1]] [::1 ::1 [0x7f.1] [::127.1]"
)
_SCHEMES = (
    "https://127.0.0.1:{port}/ http:127.0.0.1:{port}/ http:/127.0.0.1:{port}/ http:///127.0.0.1:{port}/ "
    "//127.0.0.1:{port}/ HTTP://127.0.0.1:{port}/ ftp://127.0.0.1:{port}/ file:///etc/passwd "
    "gopher://127.0.0.1:{port}/ unix://127.0.0.1:{port}/ ws://127.0.0.1:{port}/ "
    "http://127.0.0.1:{port}@example.test:{port}/ http://127.0.0.1:{port}#@example.test/ "
    "http://127.0.0.1:{port}?@example.test/ http://127.0.0.1:0{port}/ http://\\127.0.0.1:{port}/ "
    "http://example.test\\@127.0.0.1:{port}/"
)
IPV4, IPV6, SPELLINGS, SCHEMES = (text.split(" ") for text in (_IPV4, _IPV6, _SPELLINGS, _SCHEMES))


def urls(port: int) -> list[str]:
    hosts = [*IPV4, *(f"[{address}]" for address in IPV6), *SPELLINGS]
    return [*(f"http://{host}:{port}/" for host in hosts), *(url.format(port=port) for url in SCHEMES)]


@pytest.fixture
async def bird() -> AsyncIterator[Canary]:
    async with canary() as bird:
        yield bird


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NameServer]:
    """The name server that is asked, for every single connection."""
    async with name_server() as server:
        monkeypatch.setattr(client, "DNS_S", 0)
        monkeypatch.setattr(client, "open_resolver", lambda: AsyncResolver(nameservers=[f"127.0.0.1:{server.port}"]))
        server.ttl_s = 0
        yield server


class Offline(TargetPolicy):
    """The policy as it is, in a world without an internet: what it lets pass goes out here only if it is not public."""

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        made = super().socket(info)
        if info[4][0].startswith(("8.8.", "2001:4860:")):
            made.close()
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        return made


async def outcomes_of(targets: list[str], policy: TargetPolicy | None = None) -> list[Outcome]:
    """How one webhook to each ended, in their order."""
    node = FakeNode()
    tasks = [webhook(url, n=n, deadline_ms=20_000) for n, url in enumerate(targets)]
    place = {task.id: n for n, task in enumerate(tasks)}
    async with courier(node, allow=(), policy=policy, callers=2_048):
        node.offer(tasks)
        ended = await node.until(len(tasks))
    return sorted(ended, key=lambda outcome: place[outcome.task.id])


async def test_no_url_reaches_this_machine(names: NameServer, bird: Canary) -> None:
    hostile = urls(bird.port)
    assert len(set(hostile)) == len(hostile) >= 120
    ended = await outcomes_of(hostile, Offline())
    assert bird.hits == 0
    assert [o.error for o in ended if o.verdict not in (Verdict.NEVER, Verdict.FAILED) or o.status is not None] == []
    literal = ended[: len(IPV4) + len(IPV6)]
    assert [o.error for o in literal if o.verdict is not Verdict.NEVER or "is not allowed" not in str(o.error)] == []


@pytest.mark.parametrize("allowed", ["10.0.0.0/8", "fd12::/16"])
async def test_what_is_allowed_elsewhere_opens_no_way_here(names: NameServer, bird: Canary, allowed: str) -> None:
    near = [url for url in urls(bird.port) if "10." not in url]
    await outcomes_of(near, Offline([allowed]))
    assert bird.hits == 0


async def test_no_name_reaches_this_machine(names: NameServer, bird: Canary) -> None:
    addresses = [*IPV4, *IPV6]
    names.known = {f"n{n}.leads.test": [address] for n, address in enumerate(addresses)}
    ended = await outcomes_of([f"http://{name}:{bird.port}/" for name in names.known], Offline())
    assert bird.hits == 0
    assert [(a, o.error) for a, o in zip(addresses, ended, strict=True) if o.verdict is not Verdict.NEVER] == []
    for name, outcome in zip(names.known, ended, strict=True):
        assert str(outcome.error).startswith(f"target {name} is not allowed ("), "and not where it leads to"


async def test_no_failure_tells_where_a_name_leads_to(names: NameServer) -> None:
    """Also where some of its addresses are allowed: nobody listens, no way there, and one that is refused."""
    long = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 50}.test"
    names.known = {
        "closed.leads.test": ["127.0.0.9"],
        "far.leads.test": ["8.8.8.8"],
        "mixed.leads.test": ["8.8.8.8", "127.0.0.9", "10.1.2.3"],
        long: ["10.1.2.3"],
    }
    with socket.socket() as bound:
        bound.bind(("127.0.0.9", 0))
        port = bound.getsockname()[1]
        ended = await outcomes_of([f"http://{name}:{port}/" for name in names.known], Offline(["127.0.0.0/8"]))
    closed, far, mixed, refused = (str(outcome.error) for outcome in ended)
    assert (closed, far) == ("connect refused", "connect failed: Network is unreachable")
    assert not any(character.isdigit() for character in mixed)
    assert refused == f"target {long[:150]} is not allowed (private)"


async def test_a_name_that_changes_after_it_was_looked_at_gains_nothing(names: NameServer, bird: Canary) -> None:
    """DNS rebinding: public at first, then this machine; 500 names, 1,000 calls."""
    names.known = {f"n{n}.rebinds.test": ["8.8.8.8"] for n in range(500)}
    targets = [f"http://{name}:{bird.port}/" for name in names.known]
    node = FakeNode()
    async with courier(node, policy=Offline(), callers=16):  # of more questions at once some are lost
        node.offer([webhook(url, n=n, deadline_ms=60_000) for n, url in enumerate(targets)])
        first = list(await node.until(500))
        # Not "at the second question": a resolver asks twice when the first answer is late.
        names.known = {name: ["127.0.0.1"] for name in names.known}
        node.offer([webhook(url, n=1_000 + n, deadline_ms=60_000) for n, url in enumerate(targets)])
        second = (await node.until(1_000))[500:]
    assert bird.hits == 0
    assert {(outcome.verdict, outcome.error) for outcome in first} == {
        (Verdict.FAILED, "connect failed: Network is unreachable")
    }
    assert {(outcome.verdict, outcome.error) for outcome in second} == {
        (Verdict.NEVER, f"target {name} is not allowed (loopback)") for name in names.known
    }


@pytest.mark.parametrize("inside", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1"])
async def test_of_mixed_answers_only_the_public_one_is_tried(names: NameServer, bird: Canary, inside: str) -> None:
    for n, answer in enumerate([["8.8.8.8", inside], [inside, "8.8.8.8"], ["2001:4860:4860::8888", inside]] * 10):
        names.known[f"n{n}.mixed.test"] = answer
    ended = await outcomes_of([f"http://{name}:{bird.port}/" for name in names.known], Offline())
    assert bird.hits == 0
    assert {outcome.verdict for outcome in ended} <= {Verdict.FAILED, Verdict.NEVER}
    assert all(outcome.status is None for outcome in ended)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_proxies_of_the_environment_are_not_used(
    bird: Canary, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, f"http://127.0.0.1:{bird.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    node = FakeNode()
    async with raw_target(says(OK)) as target, courier(node):
        node.offer([webhook(target.url())])
        (outcome,) = await node.until(1)
        assert target.exchanges[0].lines[0] == "POST /hook HTTP/1.1"
    assert (outcome.verdict, bird.hits) == (Verdict.SUCCEEDED, 0)


async def test_passwords_of_the_environment_are_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "netrc").write_text("default login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    node = FakeNode()
    async with raw_target(says(OK)) as target, courier(node):
        node.offer([webhook(target.url())])
        await node.until(1)
        assert "authorization" not in target.exchanges[0].headers


async def test_a_connection_is_used_by_one_tenant_alone() -> None:
    node = FakeNode()
    queues = [Queue(1, "acme", "emails"), Queue(2, "other", "emails"), Queue(3, "acme", "bills")]
    connections = []
    async with raw_target(says(OK)) as target, courier(node):
        for n, queue in enumerate([*queues, *queues]):
            node.offer([webhook(target.url(), n=n, queue=queue)])
            await node.until(n + 1)
            connections.append(target.connections)
    assert connections == [1, 2, 2, 2, 2, 2]
