"""API keys of a running service: made and revoked by the command line, seen by every node, needed to start."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from actors.core.errors import Misconfigured
from gateway.__main__ import Service, in_url
from gateway.settings import ServeSettings
from tests.service.api import LIMIT_S, Api
from tests.service.keys import client, make_key, revoke_key, status
from tests.service.programs import RINGWHEEL, ringwheel, serve
from tests.service.served import serving, starting
from tests.support.keys import bearer

SEEN_S = 5.0
"""Within which every node knows of a revocation."""


async def command(dsn: str, *words: str, **environment: str) -> tuple[int, str, str]:
    """Exit code and both outputs of `ringwheel <words>`."""
    process = await asyncio.create_subprocess_exec(
        RINGWHEEL,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "RINGWHEEL_DATABASE_URL": dsn, **environment},
    )
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def created(dsn: str, *words: str) -> dict[str, Any]:
    """The key that `key create` shows, after the line that is kept of it."""
    code, out, err = await command(dsn, "key", "create", "--json", *words)
    assert code == 0, err
    made: dict[str, Any] = orjson.loads(out)
    line = orjson.loads(err)
    assert (line["event"], line["prefix"], line["tenant"]) == ("key created", made["prefix"], made["tenant"])
    assert line["by"] == "database"
    assert made["key"].rpartition("_")[2] not in err
    return made


async def test_the_life_of_a_key(database_url: str) -> None:
    async with serving(database_url) as node:
        await status(node, 200)
        made = await created(database_url, "--tenant", "acme", "--scope", "submit,read", "--name", "ci")
        await status(node, 401)  # from now on a key is needed, on the loopback interface as well
        async with client(node.url, made["key"]) as api:
            task = await api.submit(queue="mail", delay="1h")
            assert (await api.call("GET", "/metrics")).status == 403
            code, out, _ = await command(database_url, "list", "--json", "--url", node.url, RINGWHEEL_KEY=made["key"])
            assert (code, orjson.loads(out)["id"]) == (0, task["id"])
            code, _, err = await command(database_url, "list", "--url", node.url)
            assert (code, "Not authenticated" in err) == (1, True)
            code, _, err = await command(database_url, "key", "revoke", made["prefix"])
            assert (code, orjson.loads(err.splitlines()[0])["event"]) == (0, "key revoked")
            await status(api, 401)
        code, out, _ = await command(database_url, "key", "list", "--json")
        [listed] = [orjson.loads(line) for line in out.splitlines()]
        assert listed["revoke_time"] is not None
        assert listed == {name: made[name] for name in listed} | {"revoke_time": listed["revoke_time"]}
        assert (await node.call("GET", "/v1/tasks")).status == 401, "revoking the last key opens no door"


async def test_revoked_on_every_node_within_5_s(database_url: str) -> None:
    text, other = await make_key(database_url, "acme"), await make_key(database_url, "acme")
    async with serving(database_url) as one, serving(database_url, name="node-b") as two:
        async with client(one.url, text) as first, client(two.url, text) as second, second.stream() as stream:
            await stream.subscribe("q", queue="mail")
            assert (await stream.hear())["type"] == "snapshot"
            await revoke_key(database_url, text)
            began = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for wait in (status(first, 401), status(second, 401), ended(stream.socket)):
                    group.create_task(wait)
            assert time.monotonic() - began < SEEN_S
            assert stream.socket.close_code == 4401
        async with client(one.url, other) as api:
            assert (await api.call("GET", "/v1/tasks")).status == 200


async def ended(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Return once it is closed."""
    async for message in socket:
        assert message.type is aiohttp.WSMsgType.TEXT


async def test_an_expired_key(database_url: str) -> None:
    text = await make_key(database_url, "acme", ttl_ms=1_500)
    async with serving(database_url) as node, aiohttp.ClientSession(headers=bearer(text)) as session:
        await status(Api(node.url, session), 401)
        assert (await node.call("GET", "/readyz")).status == 200


async def refused(dsn: str) -> None:
    service = Service(ServeSettings(dsn, bind="0.0.0.0", port=0))
    with pytest.raises(Misconfigured, match="ringwheel key create"):
        await service.run()


async def test_nobody_can_connect_before_a_key_was_seen(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def listen(_: Service) -> None:
        raise AssertionError("listens")

    monkeypatch.setattr(Service, "_listen", listen)
    for bind in ("0.0.0.0", "::"):
        service = Service(ServeSettings(database_url, bind=bind, port=0))
        with pytest.raises(Misconfigured, match="ringwheel key create"):
            await service.run()
    await make_key(database_url, "acme")
    with pytest.raises(AssertionError, match="listens"):
        await Service(ServeSettings(database_url, bind="0.0.0.0", port=0)).run()


async def test_a_server_for_others_listens_while_the_database_is_away() -> None:
    async with starting("postgresql://ringwheel@127.0.0.1:1/none", bind="0.0.0.0") as node:
        assert (await node.call("GET", "/livez")).status == 200
        assert (await node.call("GET", "/v1/tasks")).status == 503


def test_addresses_in_urls() -> None:
    assert [in_url(host) for host in ("127.0.0.1", "::", "fe80::1", "a.example")] == [
        *("127.0.0.1", "[::]", "[fe80::1]", "a.example")
    ]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_where_a_server_listens_is_a_url_in_ipv6_too(database_url: str) -> None:
    async with serving(database_url, bind="::1") as node:
        assert node.url.startswith("http://[::1]:")
        assert (await node.call("GET", "/livez")).status == 200


async def test_no_server_for_others_without_a_key(database_url: str) -> None:
    async with ringwheel(*serve(database_url, "node-a", "--bind", "0.0.0.0")) as program:
        assert await program.ended() == 2
        assert "no API key is in use" in program.output
        assert "run `ringwheel migrate`" not in program.output
        assert "start refused" in program.output
    revoked = await make_key(database_url, "acme")
    await revoke_key(database_url, revoked)
    await make_key(database_url, "acme", ttl_ms=-1)
    await refused(database_url)
    text = await make_key(database_url, "acme")
    async with serving(database_url, bind="0.0.0.0") as node:
        assert (await node.call("GET", "/v1/tasks")).status == 401
        async with client(node.url, text) as api:
            assert (await api.call("GET", "/v1/tasks")).status == 200


async def test_a_key_is_in_no_line_and_no_file(database_url: str, tmp_path: Path) -> None:
    text = (await created(database_url))["key"]
    secret = text.rpartition("_")[2]
    keyfile = tmp_path / "key"
    keyfile.write_text(f"{text}\n")
    async with ringwheel(*serve(database_url), RINGWHEEL_KEY=text) as program:
        url = await program.url()
        for words in (
            ("get", "x"),
            ("list",),
            ("watch", "--json", "x"),
            ("submit", "--queue", "mail", "--delay", "1h"),
        ):
            for given in (f"@{keyfile}", text[:-1]):
                _, out, err = await command(database_url, *words, "--url", url, "--key", given)
                assert secret[:-1] not in out + err
        async with aiohttp.ClientSession(headers=bearer(text + "x")) as session:
            await status(Api(url, session), 401)
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0
        assert secret not in program.output
