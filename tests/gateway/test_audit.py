"""What administrators do over the API is in the audit log: what, to what, whose, by whom."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from actors.core.errors import Unavailable
from actors.core.events import Change, Command
from actors.core.keys import Scope
from gateway.logs import SHOWN
from tests.gateway.served import Served, served
from tests.gateway.test_auth import key
from tests.gateway.watched import a_change
from tests.support.keys import bearer

URL = "/v1/queues/emails"
ACTS = (
    ("PUT", URL, {"paused": True}, "queue put"),
    ("PATCH", URL, {"dispatch_deadline": 7}, "queue patched"),
    ("POST", f"{URL}:pause", None, "queue paused"),
    ("POST", f"{URL}:resume", None, "queue resumed"),
    ("POST", f"{URL}:purge", None, "queue purged"),
    ("DELETE", URL, None, "queue deleted"),
)


async def audited(world: Served, **options: Any) -> list[dict[str, Any]]:
    """The lines of all acts."""
    with capture_logs() as lines:
        for method, path, body, _ in ACTS:
            assert (await world.send(method, path, body, **options)).status < 300
    return [dict(line) for line in lines]


@pytest.mark.parametrize("keyed", [True, False])
async def test_what_is_done_to_queues(keyed: bool) -> None:
    async with served() as world:
        text = await key(world, *Scope) if keyed else ""
        lines = await audited(world, headers=bearer(text) if keyed else {})
        by, tenant = (text.split("_")[1], "acme") if keyed else ("dev", "default")
        assert [line["event"] for line in lines] == [event for _, _, _, event in ACTS]
        for line in lines:
            assert (line["by"], line["tenant"], line["queue"]) == (by, tenant, "emails")
            assert line.keys() <= SHOWN | {"log_level"}, "none is redacted"
            if keyed:
                assert text.rpartition("_")[2] not in str(line)
        assert (lines[4]["count"], lines[4]["done"]) == (0, True)


async def test_who_drains_a_node() -> None:
    async with served() as world:
        with capture_logs() as lines:
            for act in ("drain", "undrain"):
                assert (await world.send("POST", f"/v1/cluster:{act}", {"node": "node-1"})).status == 200
            assert (await world.send("POST", "/v1/cluster:drain", {"node": "nobody"})).status == 404
        assert [(line["event"], line["name"], line["by"]) for line in lines if "name" in line] == [
            ("node drained", "node-1", "dev"),
            ("node undrained", "node-1", "dev"),
        ]


async def test_what_was_refused_was_not_done() -> None:
    async with served() as world:
        with capture_logs() as lines:
            for method, path, _, _ in ACTS[1:]:
                assert (await world.send(method, path, {} if method == "PATCH" else None)).status == 404
            reader = await key(world, Scope.READ)
            for method, path, body, _ in ACTS:
                assert (await world.send(method, path, body, headers=bearer(reader))).status == 403
        assert [line for line in lines if "queue" in line] == []


async def test_a_purge_that_breaks_off_says_what_it_has_cancelled() -> None:
    async with served() as world:
        ids = [await world.create(queue="emails", delay="1h") for _ in range(3)]

        def answer(command: Command) -> Change | None:
            if command.id == ids[1]:
                raise Unavailable("no owner")
            return a_change(1)

        world.node.answer = answer
        with capture_logs() as lines:
            assert (await world.send("POST", f"{URL}:purge")).status == 503
        (line,) = [line for line in lines if line["event"] == "queue purged"]
        assert (line["count"], line["done"]) == (2, False)
