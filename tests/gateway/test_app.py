"""Routes that no handler takes, probes, metrics, and what clients see of an unexpected error."""

import asyncio
import logging

import orjson
import pytest

from actors.core.events import Verdict
from actors.core.lease import Extension
from actors.core.queue import Queue
from actors.core.task import State
from gateway.metrics import CountCollector
from tests.gateway.lent import MemberDouble
from tests.gateway.served import raw, served


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/", 404, None),
        ("GET", "/v2/tasks", 404, None),
        ("POST", "/v1/tasks/x:fly", 404, None),
        ("POST", "/v1/tasks:fly", 404, None),
        ("GET", "/v1/tasks/x/y", 404, None),
        ("GET", "/docs/a%0Ab", 404, None),
        ("GET", "/%0D%0A/%C2%80", 404, None),
        ("DELETE", "/v1/tasks", 405, "GET, HEAD, POST"),
        ("GET", "/v1/tasks:batch", 405, "POST"),
        ("PUT", "/livez", 405, "GET, HEAD"),
        ("PROPFIND", "/livez", 405, "GET, HEAD"),
        ("POST", "/v1/events", 405, "GET"),
    ],
)
async def test_what_is_not_there_is_a_problem_too(method: str, path: str, status: int, allow: str | None) -> None:
    async with served() as world:
        answer = await world.send(method, path)
        assert (answer.status, answer.headers.get("Allow")) == (status, allow)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json["status"] == status
        assert set(answer.json) == {"type", "title", "status", "detail", "instance", "errors"}


@pytest.mark.parametrize("line", ["OPTIONS *", "CONNECT a:80", "CONNECT a.example:443", "OPTIONS http://a"])
async def test_what_is_no_path_is_a_problem_too(line: str) -> None:
    async with served() as world, asyncio.timeout(10):
        request = f"{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        head, _, body = (await raw(world.server, request.encode())).partition(b"\r\n\r\n")
        assert b"Content-Type: application/problem+json" in head
        problem = orjson.loads(body)
        assert (problem["status"], problem["type"], problem["instance"]) == (404, "not-found", line.split()[1])


@pytest.mark.parametrize("path", ["/v1/events", "/v1/events?queue=emails", "/v1/stream"])
async def test_there_is_no_head_of_what_does_not_end(path: str) -> None:
    upgrade = b"Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    fields = b"Host: a\r\n" + upgrade + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    async with served() as world, asyncio.timeout(10):
        answer = await raw(world.server, b"HEAD %b HTTP/1.1\r\n%b" % (path.encode(), fields))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405 ")
        assert (b"Allow: GET\r\n" in head, body) == (True, b"")


async def test_an_unexpected_error_shows_nothing_but_its_id(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as world:
        world.intake.error = ZeroDivisionError("secret")
        with caplog.at_level(logging.ERROR):
            answer = await world.post("/v1/tasks", b"{}")
        assert (answer.status, answer.json["type"]) == (500, "internal")
        assert b"secret" not in answer.body
        assert b"Traceback" not in answer.body
        (record,) = caplog.records
        assert record.exc_info is not None
        assert record.getMessage().split()[-1] in answer.json["detail"]


async def test_probes_follow_the_node() -> None:
    async with served() as world:
        world.node.ready = False
        for path, status in (("/livez", 200), ("/startupz", 503), ("/readyz", 503)):
            assert (await world.get(path)).status == status
        world.node.ready = True
        for path in ("/startupz", "/readyz"):
            assert (await world.get(path)).status == 200
        world.node.ready = False
        assert (await world.get("/startupz")).status == 200
        assert (await world.send("HEAD", "/livez")).status == 200


async def test_a_node_that_goes_away_is_not_ready() -> None:
    async with served() as world:
        world.gateway.draining = True
        answer = await world.get("/readyz")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_metrics_show_the_counters_of_the_node() -> None:
    async with served() as world:
        stats = world.node.stats
        stats.accepted += 5
        stats.tally.lapsed += 3
        worker = MemberDouble()
        world.gateway.crew.credit(worker, 1, 5, 10)
        world.gateway.crew.come_back(worker, [Extension("a", 1, 1), Extension("b", 1, 1)])
        world.node.census.shards, world.node.membership.orphaned = 85, 2
        queue = stats.of(Queue(7, "acme", "emails"))
        queue.attempts[Verdict.FAILED] += 2
        stats.finished[State.DEAD] += 1
        for lateness_ms in (0, 2, 3, 4_000_000):
            queue.late(lateness_ms)
        answer = await world.get("/metrics")
        lines = answer.body.decode().splitlines()
        for line in (
            "ringwheel_accepted_tasks_total 5.0",
            'ringwheel_attempts_total{outcome="failed"} 2.0',
            'ringwheel_finished_tasks_total{state="dead"} 1.0',
            'ringwheel_lateness_seconds_bucket{le="0.001"} 1.0',
            'ringwheel_lateness_seconds_bucket{le="0.005"} 3.0',
            'ringwheel_lateness_seconds_bucket{le="+Inf"} 4.0',
            "ringwheel_lateness_seconds_count 4.0",
            "ringwheel_lateness_seconds_sum 4000.005",
            'ringwheel_queue_attempts_total{outcome="failed",queue="emails",tenant="acme"} 2.0',
            'ringwheel_queue_attempts_total{outcome="failed",queue="",tenant=""} 0.0',
            'ringwheel_queue_lateness_seconds_bucket{le="0.005",queue="emails",tenant="acme"} 3.0',
            'ringwheel_queue_lateness_seconds_sum{queue="emails",tenant="acme"} 4000.005',
            "ringwheel_probe_finds_total 0.0",
            "ringwheel_lapsed_leases_total 3.0",
            "ringwheel_workers 1.0",
            "ringwheel_leases 2.0",
            "ringwheel_ready 1.0",
            "ringwheel_lease_margin_seconds 3.5005",
            "ringwheel_take_over_seconds_count 3.0",
            "ringwheel_take_over_seconds_sum 4.5",
            "ringwheel_owned_shards 85.0",
            "ringwheel_orphan_shards 2.0",
        ):
            assert line in lines
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")


async def test_metrics_show_counters_of_others() -> None:
    async with served() as world:
        world.gateway.registry.register(CountCollector("some_rows", "Some rows", lambda: 7))
        assert "ringwheel_some_rows_total 7.0" in (await world.get("/metrics")).body.decode().splitlines()
