import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from bench.traffic import Plan, Traffic


class Service:
    """Accepts by key, as a node would; `moods` are the statuses of the next answers."""

    def __init__(self) -> None:
        self.moods: list[int] = []
        self.bodies: list[list[dict[str, object]]] = []
        self.cancels: list[str] = []
        self.port = 0

    async def batch(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.moods:
            return web.json_response({}, status=self.moods.pop(0))
        self.bodies.append(body)
        return web.json_response({"results": [{"id": item["idempotency_key"]} for item in body]})

    async def cancel(self, request: web.Request) -> web.Response:
        if self.moods:
            return web.json_response({}, status=self.moods.pop(0))
        self.cancels.append(request.match_info["id"])
        return web.json_response({}, status=409 if request.match_info["id"].endswith("1") else 200)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    app = web.Application()
    app.router.add_post("/v1/tasks:batch", service.batch)
    app.router.add_post("/v1/tasks/{id}:cancel", service.cancel)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.port = runner.addresses[0][1]
    yield service
    await runner.cleanup()


def traffic_to(service: Service, **scripts: int) -> Traffic:
    return Traffic(Plan("http://there", scripts, span_s=2.0), lambda: [service.port])


async def test_what_is_refused_is_sent_again_until_it_is_accepted(service: Service) -> None:
    service.moods = [503, 503]
    traffic, told = traffic_to(service, ok=1), list[int]()
    await traffic.run(1_000, 25, told.append, batch=10)
    assert sorted(told) == [5, 10, 10]
    assert traffic.accepted == {f"trial-{number}": "ok" for number in range(25)}
    assert set(traffic.by_port.values()) == {service.port}
    assert (traffic.refused, traffic.submitted) == (2, 25)


async def test_the_same_plan_makes_the_same_requests(service: Service) -> None:
    for rate_hz in (10_000, 1_000):
        await traffic_to(service, ok=1, dead=1).run(rate_hz, 40, batch=20)
    first, second = service.bodies[:2], service.bodies[2:]
    key = str
    assert sorted(first, key=key) == sorted(second, key=key)


async def test_what_should_be_cancelled_is_due_late_and_asked_for(service: Service) -> None:
    traffic = traffic_to(service, cancel=1)
    service.moods = []
    await traffic.run(1_000, 2, batch=2)
    assert sorted(service.cancels) == ["trial-0", "trial-1"]
    assert set(traffic.cancelled) == {"trial-0"}, "the other one was refused: it runs"
    assert all(float(str(item["delay"])) >= 1 for item in service.bodies[0])


async def test_it_ends_when_it_is_told_to(service: Service) -> None:
    traffic = traffic_to(service, ok=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run(1_000, 1 << 40, lambda _: setattr(traffic, "over", True), batch=1))
    assert len(traffic.accepted) == traffic.submitted > 0
