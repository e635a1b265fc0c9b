"""Reports without a word are said again: often while nobody is there to hear them, and else less and less often."""

import asyncio
from collections.abc import Sequence

import pytest

from actors import hand
from actors.core.lease import Report, Said
from actors.ports.lending import Taker
from actors.pulling import LOOK_S
from tests.support.cluster import Cluster, Member
from tests.support.crew import Crew, Delivery, submit_pulled


async def delivered(cluster: Cluster) -> tuple[Member, Crew, Delivery]:
    """A node, its workers, and the task that they have."""
    member = await cluster.start()
    await submit_pulled(member, 1, period_ms=60_000)
    crew = Crew(cluster, member)
    await crew.take(1)
    (delivery,) = await crew.delivered(1)
    return member, crew, delivery


def heard(member: Member) -> list[float]:
    """When the node was told of attempts' ends, from now on, in seconds."""
    loop = asyncio.get_running_loop()
    began_s, times = loop.time(), list[float]()
    report = member.node.lending.report

    def count(taker: Taker, tenant: str, reports: Sequence[Report]) -> bool:
        times.append(loop.time() - began_s)
        return report(taker, tenant, reports)

    member.node.lending.report = count  # type: ignore[method-assign]
    return times


async def test_an_owner_that_is_slow_is_told_again_at_pauses_that_grow(cluster: Cluster) -> None:
    """Or it would be kept slow by what it is told."""
    member, crew, delivery = await delivered(cluster)
    times = heard(member)
    gate = member.wire.hold_next("write")
    crew.report(delivery)
    await asyncio.sleep(7.9)
    assert times == pytest.approx([0, 1, 3, 7], abs=2 * LOOK_S)
    assert delivery.said == []
    gate.open()
    await cluster.until(lambda: bool(delivery.words))
    assert delivery.said == [Said.RECORDED]
    await asyncio.sleep(2)
    assert len(times) == 4


async def test_what_nobody_is_there_to_hear_is_said_again_each_second(cluster: Cluster) -> None:
    member, crew, delivery = await delivered(cluster)
    times = heard(member)
    member.node.lending._may_fire = lambda: len(times) > 4
    crew.report(delivery)
    await cluster.until(lambda: bool(delivery.words))
    assert delivery.said == [Said.RECORDED]
    assert times == pytest.approx([0, 1, 2, 3, 4], abs=5 * LOOK_S)


async def test_no_more_is_taken_while_ends_wait_to_be_read(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "ENDS", 1)
    loop = asyncio.get_running_loop()
    member = await cluster.start()
    crew = Crew(cluster, member)

    def took(delivery: Delivery) -> None:
        assert not member.node.hand.full
        loop.call_soon(crew.report, delivery)

    crew.took = took
    await crew.take(100)
    for _ in range(20):
        await submit_pulled(member, 5)
    await cluster.until(lambda: sum(bool(delivery.words) for delivery in crew.deliveries) == 100)
    assert {tuple(delivery.said) for delivery in crew.deliveries} == {(Said.RECORDED,)}
