"""Reports without a word are said again: often while nobody is there to hear them, and else less and less often."""

import asyncio
from collections.abc import Sequence

import pytest

from actors import hand
from actors.core.ids import shard_of
from actors.core.lease import Report, Said, Word
from actors.ledger import RESEND_S
from actors.ports.lending import Taker
from actors.pulling import LOOK_S, SAY_FOR_S
from storage.memory import Fault
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

    def count(taker: Taker, tenant: str, reports: Sequence[Report]) -> None:
        times.append(loop.time() - began_s)
        report(taker, tenant, reports)

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


async def test_an_owner_that_is_unsure_is_asked_again_soon_and_then_each_second(cluster: Cluster) -> None:
    member, crew, delivery = await delivered(cluster)
    times = heard(member)
    member.node.lending._may_fire = lambda: len(times) > 6
    crew.report(delivery)
    await cluster.until(lambda: bool(delivery.words))
    assert delivery.said == [Said.RECORDED]
    assert times == pytest.approx([0, 0.1, 0.3, 0.7, 1.5, 2.5, 3.5], abs=6 * LOOK_S)


@pytest.mark.parametrize("unsaid_s", [0.5, 3.5, 5.5])
async def test_what_nobody_is_there_to_hear_is_said_again_each_second(cluster: Cluster, unsaid_s: float) -> None:
    """And who waits for a word has one in time, whenever somebody came."""
    member, crew, delivery = await delivered(cluster)
    times = heard(member)
    member.wire.hold_next("write")
    pulling, began_s = member.node.pulling, asyncio.get_running_loop().time()
    pulling._serves = lambda _: asyncio.get_running_loop().time() > began_s + unsaid_s
    crew.report(delivery)
    await cluster.until(lambda: bool(delivery.words))
    assert delivery.said == [Said.UNSURE]
    assert unsaid_s <= times[0] <= unsaid_s + 1 + 2 * LOOK_S
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(SAY_FOR_S, abs=2 * LOOK_S)


async def test_after_a_pause_of_the_whole_node_each_is_said_once(cluster: Cluster) -> None:
    member, crew, delivery = await delivered(cluster)
    times = heard(member)
    member.wire.hold_next("write")
    crew.report(delivery)
    await asyncio.sleep(0.01)
    pulling = member.node.pulling
    ((key, (report, saying)),) = pulling._open.items()
    pulling._open[key] = report, saying._replace(again_s=saying.again_s - 5, until_s=saying.until_s - 5)
    await asyncio.sleep(1.5)
    assert len(times) == 2
    await cluster.until(lambda: bool(delivery.words))
    assert (delivery.said, len(times)) == ([Said.UNSURE], 3)


async def doubted(cluster: Cluster, member: Member, delivery: Delivery) -> list[int]:
    """What the node hears of its reports when the task's shard is gone; in the end, the report is recorded."""
    heard: list[int] = []
    answer = member.node.pulling.answer

    def note(words: list[Word]) -> None:
        heard.extend(word.said for word in words)
        answer(words)

    member.node.pulling.answer = note  # type: ignore[method-assign]
    shard = shard_of(delivery.task.id, member.node.membership.shards)
    member.process.call(member.node._crashed, shard, RuntimeError("broken"))
    await asyncio.sleep(2 * RESEND_S)
    at_once = list(heard)
    await cluster.until(lambda: bool(delivery.words))
    assert delivery.said == [Said.RECORDED]
    return at_once


async def test_a_report_that_its_shard_has_not_read_is_answered_when_it_goes(cluster: Cluster) -> None:
    member, crew, delivery = await delivered(cluster)
    await cluster.until(lambda: cluster.row(delivery.task.id).claim_ms is not None)
    crew.report(delivery)
    assert await doubted(cluster, member, delivery) == [Said.UNSURE]


async def test_reports_whose_record_goes_with_its_shard_are_answered(cluster: Cluster) -> None:
    """The first, and the second that waits for its record."""
    member, crew, delivery = await delivered(cluster)
    await cluster.until(lambda: cluster.row(delivery.task.id).claim_ms is not None)
    member.wire.fail_next("write", Fault.LOST)
    crew.report(delivery)
    await cluster.until(lambda: len(member.node.ledger) > 0)
    crew.report(delivery)
    await asyncio.sleep(0.02)
    assert await doubted(cluster, member, delivery) == [Said.UNSURE, Said.UNSURE]


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
