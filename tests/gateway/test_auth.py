"""Keys over HTTP: every route of the table asks for its scope, and no key is seen where it does not belong."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from actors.core.keys import Scope
from gateway.routes import ROUTES
from tests.gateway.served import Served, served
from tests.support.keys import bearer, new_key

TASK_ID = "018f0000-0000-7000-8000-000000000000"
PROBES = {"/livez", "/readyz", "/startupz", "/openapi.json", "/docs", "/docs/{file}"}
BY_MESSAGE = {"/v1/stream", "/v1/worker"}
GUIDE = Path(__file__).parents[2] / "docs" / "keys.md"
NO_ROUTE = "/{rest}"


def routes(world: Served) -> Iterator[tuple[str, str, str]]:
    """Method, pattern and a path of every route that the application has."""
    app = world.server.app  # type: ignore[attr-defined]
    assert isinstance(app, web.Application)
    for route in app.router.routes():
        assert route.resource is not None
        pattern = route.resource.canonical
        if pattern != NO_ROUTE:
            yield route.method, pattern, pattern.replace("{id}", TASK_ID).replace("{file}", "docs.css")


async def key(world: Served, *scopes: Scope, tenant: str = "acme", ttl_ms: int | None = None) -> str:
    """A key that the node has heard of."""
    new, text = new_key(tenant, frozenset(scopes), ttl_ms)
    await world.stores.keys.create(new)
    await world.gateway.keyring.refresh()
    return text


async def test_every_route_but_the_probes_asks_for_a_key() -> None:
    async with served() as world:
        revoked, expired = await key(world, *Scope), await key(world, *Scope, ttl_ms=-1)
        await world.stores.keys.revoke(revoked.split("_")[1])
        await world.gateway.keyring.refresh()
        forged = revoked[:-1] + ("x" if revoked[-1] != "x" else "y")
        seen = 0
        for method, pattern, path in routes(world):
            for headers in ({}, *map(bearer, (forged, revoked, expired)), {"Authorization": "Basic eDp5"}):
                if pattern in BY_MESSAGE and not headers:
                    continue  # it may still come by a message: test_stream_keys.py, test_worker_link.py
                answer = await world.send(method, path, headers=headers)
                if pattern in PROBES:
                    assert answer.status == 200, path
                    continue
                assert (answer.status, pattern) == (401, pattern)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
                if method != "HEAD":
                    assert answer.headers["Content-Type"] == "application/problem+json"
                    assert answer.json["type"] == "unauthenticated"
                seen += 1
        assert seen > 50


async def test_every_route_asks_for_one_scope_and_no_other_opens_it() -> None:
    async with served() as world:
        texts = {scope: await key(world, scope) for scope in Scope}
        for method, pattern, path in routes(world):
            if pattern in PROBES:
                continue
            answers = {scope: await world.send(method, path, headers=bearer(text)) for scope, text in texts.items()}
            opened = [scope for scope, answer in answers.items() if answer.status != 403]
            assert len(opened) == 1, (method, pattern, opened)
            for scope in set(Scope) - set(opened):
                challenge = answers[scope].headers["WWW-Authenticate"]
                assert f'error="insufficient_scope", scope="{opened[0]}"' in challenge
            changes = method not in ("GET", "HEAD")
            assert (opened[0] in (Scope.SUBMIT, Scope.WORK, Scope.ADMIN, Scope.OPERATE)) or not changes, (
                "reading changes nothing"
            )


def test_the_guide_has_every_route_in_the_row_of_its_scope() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", GUIDE.read_text(), re.MULTILINE)
    told = {Scope(scope): sorted(re.findall(r"`([A-Z]+ /\S+)`", opened)) for scope, opened in rows}
    assert told == {
        scope: sorted(f"{route.method} {route.path}" for route in ROUTES if route.scope is scope) for scope in Scope
    }


async def test_what_is_not_there_needs_no_key() -> None:
    async with served() as world:
        await key(world, *Scope)
        assert (await world.get("/nothing")).status == 404
        assert (await world.send("DELETE", "/v1/tasks")).status == 405


async def test_a_task_is_of_the_tenant_of_the_key() -> None:
    async with served() as world:
        mine, theirs = await key(world, *Scope), await key(world, *Scope, tenant="other")
        answer = await world.post("/v1/tasks", {"queue": "mail"}, headers=bearer(mine))
        path = f"/v1/tasks/{answer.json['id']}"
        assert (await world.get(path, headers=bearer(mine))).status == 200
        assert (await world.get(path, headers=bearer(theirs))).status == 404
        assert {draft.queue.tenant for draft in world.intake.drafts} == {"acme"}


async def test_a_node_that_can_not_tell_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served() as world:
        text = await key(world, *Scope)
        world.gateway.keyring._good_until = float("-inf")
        for headers in ({}, bearer(text)):
            answer = await world.get("/v1/tasks", headers=headers)
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert (await world.get("/metrics", headers=bearer(text))).status == 200
        assert (await world.get("/metrics")).status == 401


async def test_a_key_is_seen_nowhere(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    async with served() as world:
        text = await key(world, *Scope)
        secret = text.split("_")[2]
        said = []
        with caplog.at_level(logging.DEBUG):
            for method, _, path in routes(world):
                for headers in (bearer(text), bearer(text[:-1]), {"Authorization": text}):
                    answer = await world.send(method, path, headers=headers)
                    said.append(answer.body.decode() + str(answer.headers))
            world.intake.error = ZeroDivisionError("within")
            said.append((await world.post("/v1/tasks", b"{}", headers=bearer(text))).body.decode())
            said.append((await world.get("/metrics", headers=bearer(text))).body.decode())
        said += [record.getMessage() + str(record.exc_text) for record in caplog.records]
        said += [caplog.text, *capfd.readouterr()]
        assert "within" in caplog.text, "what went wrong is logged"
        for words in said:
            assert secret[:20] not in words


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Host": "localhost:7070"}, 201),
        ({"Host": "LOCALHOST"}, 201),
        ({"Host": "app.localhost:1"}, 201),
        ({"Host": "box"}, 201),
        ({"Host": "[::1]:7070"}, 201),
        ({"Host": "127.9.9.9", "Origin": "http://127.9.9.9"}, 201),
        ({"Host": "evil.test:7070"}, 403),
        ({"Host": "evil.test:7070", "Origin": "http://evil.test:7070"}, 403),
        ({"Host": "localhost.evil.test"}, 403),
        ({"Host": "10.0.0.1"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:7070", "Origin": "http://localhost:8000"}, 403),
    ],
)
async def test_without_a_key_no_foreign_page_gets_in(headers: dict[str, str], status: int) -> None:
    async with served() as world:
        assert (await world.post("/v1/tasks", {}, headers=headers)).status == status
        assert len(world.intake.drafts) == (status == 201)
        text = await key(world, *Scope)
        assert (await world.post("/v1/tasks", {}, headers=headers | bearer(text))).status == 201
