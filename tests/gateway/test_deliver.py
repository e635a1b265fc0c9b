"""The courier: many webhooks, few callers, hosts that hang."""

import asyncio

from actors.core.events import Verdict
from actors.core.spec import HttpTarget, Spec
from gateway.hosts import MIN_AWAY_MS
from tests.support.dispatch import FakeNode, StillClock, courier, webhook
from tests.support.raw_target import OK, Exchange, hangs, raw_target, says


async def test_every_task_is_delivered_once() -> None:
    node = FakeNode()
    async with raw_target(says(OK)) as target, courier(node, callers=8) as running:
        node.offer([webhook(target.url(), n=n) for n in range(300)])
        outcomes = await node.until(300)
        ids = [exchange.headers["webhook-id"] for exchange in target.exchanges]
        assert target.connections <= 8
        assert (running.under_way, running.turned_away) == (0, 0)
    assert all(outcome.verdict is Verdict.SUCCEEDED for outcome in outcomes)
    assert len(ids) == len(set(ids)) == 300


async def test_one_connection_is_used_again() -> None:
    node = FakeNode()
    async with raw_target(says(OK)) as target, courier(node):
        for n in range(5):
            node.offer([webhook(target.url(), n=n)])
            await node.until(n + 1)
        assert target.connections == 1


async def test_outcomes_come_in_batches() -> None:
    node = FakeNode()
    bad = Spec(http=HttpTarget("http://[::1"))
    async with courier(node):
        tasks = [webhook("http://u.example/", n=n) for n in range(20)]
        for task in tasks:
            task.spec = bad
        node.offer(tasks)
        outcomes = await node.until(20)
    assert node.batches == [20]
    assert {outcome.verdict for outcome in outcomes} == {Verdict.NEVER}
    assert outcomes[0].error is not None
    assert outcomes[0].error.startswith("bad target: ")


async def test_calls_under_way_never_exceed_the_callers() -> None:
    node = FakeNode()
    gate = asyncio.Event()
    at_once = most = 0

    async def waits(exchange: Exchange) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await gate.wait()
        at_once -= 1
        await exchange.answer(OK)

    async with raw_target(waits) as one, raw_target(waits) as other, courier(node, callers=6) as running:
        node.offer([webhook(target.url(), n=n) for n in range(4) for target in (one, other)])
        await one.got.wait()
        await other.got.wait()
        assert running.under_way <= 6 + 3
        gate.set()
        await node.until(8)
    assert 2 <= most <= 6


async def test_a_host_that_hangs_does_not_stop_the_others() -> None:
    node = FakeNode()
    async with raw_target(hangs) as dead, raw_target(says(OK)) as good, courier(node, callers=8) as running:
        node.offer([webhook(dead.url(), n=n) for n in range(100)])
        await dead.got.wait()
        node.offer([webhook(good.url(), n=1_000 + n) for n in range(50)])
        await node.until(96 + 50)  # four calls hang, everything else has come back
        assert running.turned_away == 96
        assert len(dead.exchanges) == 4
    done = [outcome for outcome in node.outcomes if outcome.verdict is Verdict.SUCCEEDED]
    away = [outcome for outcome in node.outcomes if outcome.verdict is Verdict.UNSENT]
    assert (len(done), len(away)) == (50, 96)
    assert all((outcome.retry_after_ms or 0) >= MIN_AWAY_MS for outcome in away)


async def test_cancellation_drops_calls_and_gives_back_what_waits() -> None:
    node = FakeNode()
    async with raw_target(hangs) as target:
        async with courier(node, callers=2):
            node.offer([webhook(target.url(), n=n) for n in range(2)])
            await target.got.wait()
        await target.cut.wait()
    assert [(outcome.verdict, outcome.retry_after_ms) for outcome in node.outcomes] == [(Verdict.UNSENT, None)]


async def test_what_becomes_due_as_it_goes_away_is_not_taken() -> None:
    """To close what it has open takes some turns of the loop."""
    node = FakeNode()
    loop = asyncio.get_running_loop()
    left: list[int] = []

    def offer(turns: int) -> None:
        node.offer([webhook("http://127.0.0.1:9/", n=turns)])
        left.append(len(node.due))
        if turns:
            loop.call_soon(offer, turns - 1)

    async with raw_target(hangs) as target, courier(node):
        node.offer([webhook(target.url(scheme="https"))])  # its connection is being made until the end
        await asyncio.sleep(0.02)
        loop.call_soon(loop.call_soon, offer, 3)  # when it was cancelled
    await asyncio.sleep(0.02)
    assert left == [1, 2, 3, 4]
    assert node.outcomes == []


async def test_a_clock_that_moves_shows_in_the_outcome() -> None:
    clock = StillClock()
    node = FakeNode()

    async def takes_its_time(exchange: Exchange) -> None:
        clock.at_ms += 750
        await exchange.answer(OK)

    async with raw_target(takes_its_time) as target, courier(node, clock=clock):
        node.offer([webhook(target.url())])
        (outcome,) = await node.until(1)
    assert outcome.ended_ms - outcome.started_ms == 750
