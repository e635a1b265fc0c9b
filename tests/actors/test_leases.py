"""Pulled tasks through whole nodes: they flow to where there are credits, and what workers say finds their owner."""

import asyncio
from collections.abc import Collection

import msgspec
import pytest
from structlog.testing import capture_logs

from actors.core.errors import Conflict
from actors.core.events import Command, Verdict
from actors.core.lease import LAPSED, Kept, Said
from actors.core.queue import Unheard
from actors.core.task import Move, State
from actors.lending import _Nobody
from tests.support.builders import task_id as id_of
from tests.support.cluster import Cluster, submit_some
from tests.support.crew import Crew, Delivery, submit_pulled

PERIOD_S = 4.0
PERIOD_MS = 4_000
BEAT_S = 0.5


def now_s() -> float:
    return asyncio.get_running_loop().time()


def ids_of(deliveries: list[Delivery]) -> list[str]:
    return [delivery.task.id for delivery in deliveries]


# --- one node


async def test_tasks_go_to_a_worker_and_their_ends_are_recorded(cluster: Cluster) -> None:
    a = await cluster.start()
    ids = await submit_pulled(a, 100)
    crew = Crew(cluster, a)
    await crew.take(100)
    await crew.delivered(100)
    assert sorted(ids_of(crew.deliveries)) == sorted(ids)
    assert {each.task.attempt for each in crew.deliveries} == {1}
    assert {each.task.payload for each in crew.deliveries} == {b"%d" % n for n in range(100)}
    await crew.finish(*crew.deliveries)
    assert {cluster.state(one) for one in ids} == {State.SUCCEEDED}
    assert {tuple(each.said) for each in crew.deliveries} == {(Said.RECORDED,)}
    assert all(cluster.row(each.task.id).result == each.fence.encode() for each in crew.deliveries)
    assert {row.rev for row in cluster.database.finished.values()} == {1}, "one write each"


async def test_a_slow_database_keeps_no_word_back_for_long(cluster: Cluster) -> None:
    """No more is given out than can be recorded within seconds: 2,000 in each 1.1 s here."""
    a = await cluster.start()
    await submit_pulled(a, 20_000)
    crew = Crew(cluster, a)

    def end(delivery: Delivery) -> None:
        crew.report(delivery)
        crew.grant(next(iter(crew.credits)), 1)

    def begin(delivery: Delivery) -> None:
        asyncio.get_running_loop().call_later(0.01, end, delivery)

    crew.took = begin
    cluster.way_ms = lambda: 550.0
    await crew.take(2_000)
    await cluster.until(lambda: sum(len(each.words) for each in crew.deliveries) >= 20_000, 60)
    assert {tuple(each.said) for each in crew.deliveries} == {(Said.RECORDED,)}


class Elsewhere(_Nobody):
    """Who takes for workers at another node, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[set[int]] = []

    def supply(self, queues: Collection[int]) -> None:
        self.told.append(set(queues))


async def test_nobody_is_told_of_what_workers_that_waited_for_it_have_taken(cluster: Cluster) -> None:
    a = await cluster.start()
    crew, elsewhere = Crew(cluster, a), Elsewhere()
    await crew.take(3)
    a.node.lending.want(elsewhere, crew.credits)
    for count in range(3):
        await submit_pulled(a, 1)
        await crew.delivered(count + 1)
    assert elsewhere.told == []
    await submit_pulled(a, 1)
    await cluster.until(lambda: bool(elsewhere.told))
    assert (elsewhere.told, len(crew.deliveries)) == ([set(crew.credits)], 3)


async def test_who_fails_to_take_takes_nobody_else_down(cluster: Cluster) -> None:
    a = await cluster.start()
    broken, crew = Elsewhere(), Crew(cluster, a)
    broken.told = None  # type: ignore[assignment]
    await crew.take(3)
    a.node.lending.part(a.node.pulling)
    a.node.lending.want(broken, crew.credits)
    a.node.lending.want(a.node.pulling, crew.credits)
    with capture_logs() as logs:
        await submit_pulled(a, 3)
        await crew.finish(*await crew.delivered(3))
    assert [line["event"] for line in logs if line.get("exc_info")] == [
        "a taker could not be told of tasks, or not take them"
    ]


async def test_workers_and_webhooks_share_a_queue(cluster: Cluster) -> None:
    a = await cluster.start()
    crew = Crew(cluster, a)
    await crew.take(50)
    sent, pulled = await submit_some(a, 50), await submit_pulled(a, 50)
    await crew.delivered(50)
    await crew.finish(*crew.deliveries)
    await cluster.ended(sent)
    assert sorted(ids_of(crew.deliveries)) == sorted(pulled)
    assert sorted(run.id for run in cluster.runs) == sorted(sent)


async def test_nothing_comes_above_the_credits(cluster: Cluster) -> None:
    a = await cluster.start()
    ids = await submit_pulled(a, 30)
    crew = Crew(cluster, a)
    await crew.take(7)
    await asyncio.sleep(1)
    assert len(crew.deliveries) == 7
    assert [cluster.row(one).attempt for one in ids].count(1) == 7, "no more have started"
    await crew.take(3)
    await asyncio.sleep(1)
    assert len(crew.deliveries) == 10


async def test_a_task_waits_for_credits_and_goes_at_once_when_they_come(cluster: Cluster) -> None:
    a = await cluster.start()
    crew = Crew(cluster, a)
    await crew.take(1)
    await crew.delivered(0)
    await asyncio.sleep(5)
    began_s = now_s()
    await submit_pulled(a, 1)
    (delivery,) = await crew.delivered(1)
    assert delivery.at_s - began_s < 0.02


async def test_a_task_that_is_due_later_comes_at_its_time(cluster: Cluster) -> None:
    a = await cluster.start()
    crew = Crew(cluster, a)
    await crew.take(1)
    began_s = now_s()
    await submit_pulled(a, 1, delay_ms=3_000)
    (delivery,) = await crew.delivered(1)
    assert delivery.at_s - began_s == pytest.approx(3, abs=0.02)


async def test_only_queues_that_are_wanted_are_taken_from(cluster: Cluster) -> None:
    a = await cluster.start()
    await submit_pulled(a, 3, "images")
    emails = await submit_pulled(a, 3)
    crew = Crew(cluster, a)
    await crew.take(10)
    await crew.delivered(3)
    await asyncio.sleep(1)
    assert sorted(ids_of(crew.deliveries)) == sorted(emails)


async def test_a_paused_queue_gives_nothing_until_it_goes_on(cluster: Cluster) -> None:
    a = await cluster.start()
    await submit_pulled(a, 3)
    queue = await a.queues.ensure("default", "emails")
    queue.paused = True
    crew = Crew(cluster, a)
    await crew.take(3)
    await asyncio.sleep(2)
    assert crew.deliveries == []
    queue.paused = False
    await crew.delivered(3)
    assert len(crew.deliveries) == 3


async def test_a_lease_that_nobody_extends_goes_to_another_worker_and_its_late_end_is_refused(
    cluster: Cluster,
) -> None:
    a = await cluster.start()
    (task_id,) = await submit_pulled(a, 1, period_ms=PERIOD_MS)
    crew = Crew(cluster, a)
    await crew.take(2)
    first, second = await crew.delivered(2)
    assert second.at_s - first.at_s == pytest.approx(PERIOD_S, abs=0.05)
    assert (first.task.attempt, second.task.attempt, a.node.stats.tally.lapsed) == (1, 2, 1)
    assert cluster.row(task_id).last_error == LAPSED
    crew.report(first)
    await cluster.until(lambda: bool(first.words))
    assert first.said == [Said.OVER]
    await crew.finish(second)
    assert cluster.row(task_id).result == second.fence.encode()


async def test_a_task_that_is_held_for_twelve_periods_comes_once(cluster: Cluster) -> None:
    a = await cluster.start()
    (task_id,) = await submit_pulled(a, 1, period_ms=PERIOD_MS)
    crew = Crew(cluster, a)
    await crew.take(5)
    (delivery,) = await crew.delivered(1)
    await crew.hold(delivery, for_s=12 * PERIOD_S, every_s=PERIOD_S / 3)
    assert {kept.said for kept in delivery.kept} == {Said.RECORDED}
    await crew.finish(delivery)
    assert (len(crew.deliveries), cluster.row(task_id).attempt, cluster.row(task_id).rev) == (1, 1, 2)


@pytest.mark.parametrize(("verdict", "after_s"), [(Verdict.SNOOZED, 3.0), (Verdict.FAILED, 3.0), (Verdict.LOST, 0.0)])
async def test_what_is_given_back_comes_again(cluster: Cluster, verdict: Verdict, after_s: float) -> None:
    a = await cluster.start()
    await submit_pulled(a, 1)
    crew = Crew(cluster, a)
    await crew.take(2)
    (first,) = await crew.delivered(1)
    crew.report(first, verdict=verdict, retry_after_ms=3_000, error="why")
    _, second = await crew.delivered(2)
    assert second.at_s - first.at_s == pytest.approx(after_s, abs=0.05)
    assert (second.task.attempt, second.task.budget - first.task.budget) == (2, int(verdict is Verdict.SNOOZED))
    crew.report(first, verdict=Verdict.SUCCEEDED)
    await cluster.until(lambda: len(first.words) == 2)
    assert first.said == [Said.RECORDED, Said.OVER]


async def test_what_comes_back_goes_before_what_waits(cluster: Cluster) -> None:
    a = await cluster.start()
    ids = await submit_pulled(a, 30, period_ms=PERIOD_MS)
    crew = Crew(cluster, a)
    await crew.take(10)
    first = ids_of(await crew.delivered(10))
    await asyncio.sleep(PERIOD_S + 0.5)
    await crew.take(10)
    assert sorted(ids_of((await crew.delivered(20))[10:])) == sorted(first), "their leases ran out"
    await crew.take(20)
    assert sorted(ids_of((await crew.delivered(40))[20:])) == sorted(set(ids) - set(first))


async def test_a_report_that_is_said_again_is_recorded_once(cluster: Cluster) -> None:
    a = await cluster.start()
    ids = await submit_pulled(a, 3)
    crew = Crew(cluster, a)
    await crew.take(3)
    done, dead, again = await crew.delivered(3)
    ends = [(done, Verdict.SUCCEEDED), (dead, Verdict.NEVER), (again, Verdict.SNOOZED)]
    for _ in range(3):
        for delivery, verdict in ends:
            crew.report(delivery, verdict=verdict, error=None, retry_after_ms=60_000)
        await asyncio.sleep(1)
    assert {tuple(delivery.said) for delivery, _ in ends} == {(Said.RECORDED,) * 3}
    assert sorted(cluster.row(one).rev for one in ids) == [1, 1, 1]


async def test_a_task_that_is_cancelled_while_it_runs_is_revoked_and_its_end_refused(cluster: Cluster) -> None:
    a = await cluster.start()
    (task_id,) = await submit_pulled(a, 1)
    crew = Crew(cluster, a)
    await crew.take(1)
    (delivery,) = await crew.delivered(1)
    change = await a.node.ask(Command(Move.CANCEL, task_id, None))
    assert change is not None
    assert (change.state, delivery.revoked) == (State.CANCELLED, True)
    crew.report(delivery)
    crew.extend(delivery)
    await cluster.until(lambda: bool(delivery.words and delivery.kept))
    assert (delivery.said, delivery.kept) == ([Said.OVER], [Kept(task_id, delivery.task.epoch, 1, Said.OVER)])
    assert (delivery.words[0].state, cluster.row(task_id).rev) == ("cancelled", 1)


async def test_a_webhook_that_runs_is_still_not_cancelled(cluster: Cluster) -> None:
    a = await cluster.start()
    a.dispatcher.script = lambda task: (_ for _ in ()).throw(AssertionError("not sent"))
    a.dispatcher.working.clear()
    (task_id,) = await submit_some(a, 1)
    await cluster.until(lambda: bool(a.node.desk))
    (task,) = a.node.take(1)
    assert task.id == task_id
    with pytest.raises(Conflict):
        await a.node.ask(Command(Move.CANCEL, task_id, None))


async def test_another_tenants_workers_know_nothing_of_it(cluster: Cluster) -> None:
    a = await cluster.start()
    await submit_pulled(a, 1)
    crew = Crew(cluster, a)
    await crew.take(1)
    (delivery,) = await crew.delivered(1)
    holdings = [actor.state.holding for actor in a.node.hand.actors.values()]
    await cluster.until(lambda: all(holding.sure_ms > a.node.clock.now_ms() for holding in holdings))
    crew.report(delivery, tenant="other")
    crew.extend(delivery, tenant="other")
    await cluster.until(lambda: bool(delivery.words and delivery.kept))
    assert (delivery.said, delivery.kept[0].said) == ([Said.UNKNOWN], Said.OVER)
    none = Delivery(msgspec.structs.replace(delivery.task, id=id_of(7)), "a", now_s())
    crew.last[none.task.id, none.task.epoch, none.task.attempt] = none
    crew.report(none)
    crew.extend(none)
    await cluster.until(lambda: bool(none.words and none.kept))
    assert (none.said, none.kept[0].said) == ([Said.UNKNOWN], Said.OVER), "as of a task that nobody has"
    await crew.finish(delivery)


@pytest.mark.parametrize("unknown", [Unheard.HOLD, Unheard.WAIT_DEADLINE])
async def test_in_queues_that_hold_or_wait_a_task_comes_with_its_claim(cluster: Cluster, unknown: Unheard) -> None:
    a = await cluster.start()
    queue = await a.queues.ensure("default", "emails")
    queue.unknown = unknown
    ids = await submit_pulled(a, 5)
    crew = Crew(cluster, a)
    crew.took = lambda delivery: claims.append(cluster.row(delivery.task.id).claim_ms)
    claims: list[int | None] = []
    await crew.take(3)
    await crew.delivered(3)
    await asyncio.sleep(1)
    assert (len(crew.deliveries), None in claims) == (3, False)
    await crew.take(2)
    await crew.delivered(5)
    await crew.finish(*crew.deliveries)
    assert {cluster.state(one) for one in ids} == {State.SUCCEEDED}


async def test_a_lease_that_lapses_in_a_queue_that_holds_waits_for_a_decision(cluster: Cluster) -> None:
    a = await cluster.start()
    queue = await a.queues.ensure("default", "emails")
    queue.unknown = Unheard.HOLD
    (task_id,) = await submit_pulled(a, 1, period_ms=PERIOD_MS)
    crew = Crew(cluster, a)
    await crew.take(2)
    (delivery,) = await crew.delivered(1)
    await asyncio.sleep(5 * PERIOD_S)
    assert (len(crew.deliveries), a.node.stats.tally.held) == (1, 1)
    await crew.finish(delivery)
    assert cluster.row(task_id).result == delivery.fence.encode(), "who has it may still say how it ended"
