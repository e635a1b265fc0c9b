"""Pulled tasks of three nodes, whose workers are at one of them: when all is well, and when owners die, leave, or are
silent."""

import asyncio
from collections import Counter

import msgspec
import pytest

from actors.core.events import Command, Verdict
from actors.core.lease import Kept, Said
from actors.core.members import T_DEAD_MS
from actors.core.task import Move, State
from actors.pulling import SAY_FOR_S
from storage.memory import Fault
from tests.support.cluster import Cluster, Member
from tests.support.crew import Crew, Delivery, submit_pulled

PERIOD_S = 4.0
PERIOD_MS = 4_000
BEAT_S = 0.5


@pytest.fixture
async def three(cluster: Cluster) -> list[Member]:
    """Three nodes that have their parts."""
    members = [cluster.join(name) for name in "abc"]
    await cluster.until(lambda: all(member.node.ready for member in members))
    return members


def now_s() -> float:
    return asyncio.get_running_loop().time()


def ids_of(deliveries: list[Delivery]) -> list[str]:
    return [delivery.task.id for delivery in deliveries]


def owner(members: list[Member], task_id: str) -> Member:
    """The node that has the task in memory."""
    (member,) = [member for member in members if member.task(task_id) is not None]
    return member


async def held_by_owner(cluster: Cluster, members: list[Member], at: Member) -> tuple[Crew, Delivery, Member]:
    """A task that a worker at `at` has of another node, which owns it."""
    crew = Crew(cluster, at)
    while True:
        (task_id,) = await submit_pulled(at, 1, period_ms=PERIOD_MS)
        await crew.take(1)
        delivery = (await crew.delivered(len(crew.deliveries) + 1))[-1]
        if (owning := owner(members, task_id)) is not at:
            return crew, delivery, owning
        await crew.finish(delivery)


async def claimed(cluster: Cluster, *deliveries: Delivery) -> None:
    """Wait until their attempts are in the tables."""
    await cluster.until(lambda: all(cluster.row(each.task.id).claim_ms is not None for each in deliveries))


# --- three nodes


async def test_workers_at_one_node_are_given_the_tasks_of_all(cluster: Cluster, three: list[Member]) -> None:
    crew = Crew(cluster, three[0])
    await crew.take(300)
    ids = [one for member in three for one in await submit_pulled(member, 100)]
    await crew.delivered(300)
    owners = {owner(three, one).name for one in ids}
    await crew.finish(*crew.deliveries)
    assert owners == {"a", "b", "c"}
    assert Counter(ids_of(crew.deliveries)) == Counter(ids)
    assert {cluster.state(one) for one in ids} == {State.SUCCEEDED}
    assert max(row.lateness_ms or 0 for row in cluster.database.finished.values()) < 50


async def test_workers_that_come_later_are_given_what_waits(cluster: Cluster, three: list[Member]) -> None:
    ids = await submit_pulled(three[0], 300)
    await asyncio.sleep(5)
    crew = Crew(cluster, three[2])
    began_s = now_s()
    await crew.take(300)
    await crew.delivered(300)
    assert now_s() - began_s < 0.1
    assert Counter(ids_of(crew.deliveries)) == Counter(ids)


async def test_a_backlog_never_comes_above_the_credits(cluster: Cluster, three: list[Member]) -> None:
    """The crew counts them itself."""
    await submit_pulled(three[0], 600)
    crew = Crew(cluster, three[1])
    for credits_ in (1, 1, 2, 10, 100):
        before = len(crew.deliveries)
        await crew.take(credits_)
        await crew.delivered(before + credits_)
        await asyncio.sleep(1)
        assert len(crew.deliveries) == before + credits_
    started = [task for member in three for actor in member.node.hand.actors.values() for task in _running(actor)]
    assert len(started) == len(crew.deliveries)


def _running(actor: object) -> list[object]:
    known = actor.state.holding.known.values()  # type: ignore[attr-defined]
    return [task for task in known if task.lease_ms]


@pytest.mark.parametrize("credits_", [1, 7, 60])
async def test_no_node_is_starved_by_the_backlog_of_another(
    cluster: Cluster, three: list[Member], credits_: int
) -> None:
    await submit_pulled(three[0], 600)
    await asyncio.sleep(1)
    crew = Crew(cluster, three[0])
    for count in range(credits_, 241, credits_):
        await crew.take(credits_)
        await crew.delivered(count)
        await asyncio.sleep(0.01)
    shares = Counter(owner(three, one).name for one in ids_of(crew.deliveries))
    assert set(shares) == {"a", "b", "c"}
    assert min(shares.values()) >= 40


async def test_two_crews_share_what_there_is(cluster: Cluster, three: list[Member]) -> None:
    crews = [Crew(cluster, member) for member in three[:2]]
    for crew in crews:
        await crew.take(1_000)
    for _ in range(20):
        await submit_pulled(three[2], 30)
    await cluster.until(lambda: sum(len(crew.deliveries) for crew in crews) == 600)
    assert min(len(crew.deliveries) for crew in crews) > 100


async def test_a_cancel_reaches_a_worker_at_another_node(cluster: Cluster, three: list[Member]) -> None:
    crew, delivery, _ = await held_by_owner(cluster, three, three[0])
    await three[1].node.ask(Command(Move.CANCEL, delivery.task.id, None))
    await cluster.until(lambda: delivery.revoked)
    crew.report(delivery)
    await cluster.until(lambda: bool(delivery.words))
    assert delivery.said == [Said.OVER]


async def test_a_task_of_another_node_is_held_for_twelve_periods(cluster: Cluster, three: list[Member]) -> None:
    crew, delivery, _ = await held_by_owner(cluster, three, three[0])
    count = len(crew.deliveries)
    await crew.take(5)
    await crew.hold(delivery, for_s=12 * PERIOD_S, every_s=PERIOD_S / 3)
    await crew.finish(delivery)
    assert (len(crew.deliveries), cluster.row(delivery.task.id).attempt) == (count, 1)


# --- an owner dies


async def test_a_lease_that_nobody_claimed_is_given_again_when_its_owner_dies(
    cluster: Cluster, three: list[Member]
) -> None:
    crew, delivery, owning = await held_by_owner(cluster, three, three[0])
    await crew.take(1)
    await owning.kill()
    second = (await crew.delivered(len(crew.deliveries) + 1))[-1]
    assert (second.task.id, second.task.attempt) == (delivery.task.id, 1)
    assert second.task.epoch > delivery.task.epoch
    crew.report(second)
    crew.report(delivery)
    await cluster.until(lambda: bool(delivery.words and second.words))
    assert (delivery.said, second.said) == ([Said.OVER], [Said.RECORDED]), "each hears its own"
    assert cluster.row(delivery.task.id).result == second.fence.encode()


async def test_a_claimed_lease_that_is_extended_runs_once_when_its_owner_dies(
    cluster: Cluster, three: list[Member]
) -> None:
    crew, delivery, owning = await held_by_owner(cluster, three, three[0])
    count = len(crew.deliveries)
    await crew.take(5)
    await claimed(cluster, delivery)
    await owning.kill()
    await crew.hold(delivery, for_s=12 * PERIOD_S, every_s=PERIOD_S / 4)
    assert Said.OVER not in {kept.said for kept in delivery.kept}
    await crew.finish(delivery)
    row = cluster.row(delivery.task.id)
    assert (row.attempt, row.result, len(crew.deliveries)) == (1, delivery.fence.encode(), count)
    crew.report(delivery)
    await cluster.until(lambda: len(delivery.words) == 2)
    assert delivery.said == [Said.RECORDED] * 2, "said again, it was recorded before"


async def test_a_claimed_lease_that_nobody_extends_has_one_fresh_period_when_its_owner_dies(
    cluster: Cluster, three: list[Member]
) -> None:
    crew, delivery, owning = await held_by_owner(cluster, three, three[0])
    await crew.take(5)
    await claimed(cluster, delivery)
    epoch = cluster.database.shards[cluster.row(delivery.task.id).shard].epoch
    await owning.kill()
    await cluster.until(lambda: cluster.database.shards[cluster.row(delivery.task.id).shard].epoch > epoch)
    took_s = now_s()
    second = (await crew.delivered(len(crew.deliveries) + 1))[-1]
    assert (second.task.id, second.task.attempt) == (delivery.task.id, 2)
    assert PERIOD_S <= second.at_s - took_s < PERIOD_S + 1
    assert not any(run.id == delivery.task.id for run in cluster.runs)


async def test_a_result_while_nobody_owns_its_task_is_said_until_somebody_does(
    cluster: Cluster, three: list[Member]
) -> None:
    crew, delivery, owning = await held_by_owner(cluster, three, three[0])
    await claimed(cluster, delivery)
    owning.process.stop()
    crew.report(delivery)
    await asyncio.sleep(1)
    assert delivery.words == []
    await crew.finish(delivery)
    assert cluster.row(delivery.task.id).result == delivery.fence.encode()
    assert delivery.at_s + T_DEAD_MS / 1_000 - 2 < now_s()
    owning.process.resume()
    await asyncio.sleep(2)
    assert (delivery.said, cluster.row(delivery.task.id).rev) == ([Said.RECORDED], 2)


async def test_a_worker_whose_node_dies_goes_on_at_another(cluster: Cluster, three: list[Member]) -> None:
    crew, delivery, owning = await held_by_owner(cluster, three, three[0])
    count = len(crew.deliveries)
    await claimed(cluster, delivery)
    (other,) = [member for member in three[1:] if member is not owning]
    await three[0].kill()
    crew.attach(other)
    await crew.hold(delivery, for_s=3 * PERIOD_S, every_s=1)
    await crew.finish(delivery)
    assert (len(crew.deliveries), cluster.row(delivery.task.id).attempt) == (count, 1)


# --- a shard is given away


async def test_a_node_that_leaves_does_not_wait_for_leases_and_their_ends_go_to_the_next_owner(
    cluster: Cluster, three: list[Member]
) -> None:
    crew, delivery, owning = await held_by_owner(cluster, three, three[0])
    count = len(crew.deliveries)
    await crew.take(5)
    began_s = now_s()
    assert await owning.node.drain(60)
    await owning.node.membership.leave()
    await owning.kill()
    assert now_s() - began_s < 2
    assert cluster.row(delivery.task.id).claim_ms is not None
    await crew.hold(delivery, for_s=3 * PERIOD_S, every_s=PERIOD_S / 3)
    await crew.finish(delivery)
    row = cluster.row(delivery.task.id)
    assert (row.attempt, row.result, len(crew.deliveries)) == (1, delivery.fence.encode(), count)


async def test_a_node_that_leaves_alone_does_not_wait_for_leases(cluster: Cluster) -> None:
    a = await cluster.start()
    ids = await submit_pulled(a, 20)
    crew = Crew(cluster, a)
    await crew.take(10)
    await crew.delivered(10)
    began_s = now_s()
    assert await a.node.drain(60)
    assert now_s() - began_s < 1
    await crew.take(10)
    await asyncio.sleep(1)
    assert len(crew.deliveries) == 10, "nothing more is lent"
    assert sum(cluster.row(one).claim_ms is not None for one in ids) == 10


async def test_ends_that_come_amid_a_hand_over_are_recorded(cluster: Cluster) -> None:
    a = await cluster.start("a")
    a.keep()
    ids = await submit_pulled(a, 400)
    crew = Crew(cluster, a)
    await crew.take(400)
    await crew.delivered(400)
    del a.node.handover.look
    cluster.way_ms = lambda: 20
    b = cluster.join("b")
    for delivery in crew.deliveries:
        crew.report(delivery)
        await asyncio.sleep(0.01)
    await cluster.until(lambda: all(delivery.words for delivery in crew.deliveries))
    assert b.owned
    assert Counter(tuple(delivery.said) for delivery in crew.deliveries) == {(Said.RECORDED,): 400}
    assert {cluster.state(one) for one in ids} == {State.SUCCEEDED}
    assert len(crew.deliveries) == 400


# --- what is lost on the way


async def test_reports_whose_words_are_lost_are_said_again_and_recorded_once(
    cluster: Cluster, three: list[Member]
) -> None:
    a = three[0]
    crew = Crew(cluster, a)
    await crew.take(200)
    ids = await submit_pulled(a, 200)
    await crew.delivered(200)
    said: Counter[tuple[str, str]] = Counter()

    def loses(sender: str, to: str) -> bool:
        """The first reports, and then the first words, of each way."""
        said[sender, to] += 1
        return said[sender, to] <= 2

    cluster.network.loses = loses
    crew.report(*crew.deliveries[:100])
    for delivery in crew.deliveries[100:]:
        crew.report(delivery, verdict=Verdict.SNOOZED, retry_after_ms=60_000)
    await cluster.until(lambda: all(delivery.words for delivery in crew.deliveries))
    assert cluster.network.lost > 2
    assert {tuple(delivery.said) for delivery in crew.deliveries} == {(Said.RECORDED,)}
    assert Counter((cluster.state(one), cluster.row(one).budget) for one in ids) == {
        (State.SUCCEEDED, 5): 100,
        (State.SCHEDULED, 6): 100,  # each snooze that is recorded makes it one more
    }


async def test_reports_whose_writes_are_not_known_are_recorded_once(cluster: Cluster) -> None:
    a = await cluster.start()
    ids = await submit_pulled(a, 20)
    crew = Crew(cluster, a)
    await crew.take(20)
    await crew.delivered(20)
    for fault in (Fault.LOST, Fault.REPLY_LOST, Fault.REPLY_LOST):
        a.wire.fail_next("write", fault)
    await crew.finish(*crew.deliveries)
    assert {tuple(delivery.said) for delivery in crew.deliveries} == {(Said.RECORDED,)}
    assert Counter(cluster.row(one).rev for one in ids) == {1: 20}


@pytest.mark.parametrize("way", ["the owner is silent", "the database is away"])
async def test_what_nobody_answers_ends_in_unsure(cluster: Cluster, three: list[Member], way: str) -> None:
    crew, delivery, owning = await held_by_owner(cluster, three, three[0])
    if way == "the owner is silent":
        cluster.network.loses = lambda sender, to: True
    else:
        cluster.cut(away=True)
    began_s = now_s()
    crew.report(delivery)
    await cluster.until(lambda: bool(delivery.words))
    assert delivery.said == [Said.UNSURE]
    assert SAY_FOR_S - 0.5 < now_s() - began_s <= SAY_FOR_S + 0.2
    assert owning.node.membership.boot


async def test_an_extension_that_can_not_be_said_is_unsure_at_once(cluster: Cluster, three: list[Member]) -> None:
    crew, delivery, _ = await held_by_owner(cluster, three, three[0])
    cluster.network.loses = lambda sender, to: True
    crew.extend(delivery)
    await asyncio.sleep(0.01)
    assert delivery.kept == [Kept(delivery.task.id, delivery.task.epoch, 1, Said.UNSURE)]


async def test_who_is_overtaken_by_another_that_says_the_same_is_unsure(cluster: Cluster) -> None:
    """A call that waits for a word does not wait for ever."""
    a = await cluster.start()
    await submit_pulled(a, 1)
    crew, other = Crew(cluster, a), Crew(cluster, a)
    await other.take(1)
    (delivery,) = await other.delivered(1)
    twin = Delivery(delivery.task, "a", now_s())
    crew.last[delivery.task.id, delivery.task.epoch, 1] = twin
    gate = a.wire.hold_next("write")
    crew.report(twin)
    await gate.reached.wait()
    other.report(delivery)
    await cluster.until(lambda: bool(twin.words))
    assert (twin.said, delivery.said) == ([Said.UNSURE], [])
    gate.open()
    await cluster.until(lambda: bool(delivery.words))
    assert delivery.said == [Said.RECORDED]


async def test_who_may_not_be_the_owner_any_more_says_nothing_for_sure(cluster: Cluster, three: list[Member]) -> None:
    """A node that is cut off does not know that another has taken over what it has."""
    a = three[0]
    crew = Crew(cluster, a)
    await crew.take(3)
    while not (mine := [each for each in crew.deliveries if a.task(each.task.id)]):
        await submit_pulled(a, 1, period_ms=PERIOD_MS)
        await asyncio.sleep(0.1)
        await crew.take(1)
    await claimed(cluster, mine[0])
    a.wire.cut()
    await cluster.until(lambda: not a.node.may_fire())
    assert a.task(mine[0].task.id) is not None
    crew.extend(mine[0])
    await cluster.until(lambda: bool(mine[0].kept))
    assert [kept.said for kept in mine[0].kept] == [Said.UNSURE]
    stale = Delivery(mine[0].task, "a", now_s())
    crew.last[stale.task.id, stale.task.epoch + 1, stale.task.attempt] = stale
    stale.task = msgspec.structs.replace(stale.task, epoch=stale.task.epoch + 1)
    crew.report(stale)
    await asyncio.sleep(1)
    assert stale.said == []
