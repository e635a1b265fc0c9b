"""Leases of shards that are taken over from an owner that died, or given away."""

import pytest

from actors.core.errors import Elsewhere
from actors.core.events import Ended, Extended, Keep, Reply, Verdict
from actors.core.inherited import OVERRUN_MS
from actors.core.lease import Extension, Kept, Said
from actors.core.queue import Unheard
from actors.core.settle import HELD_MS
from actors.core.task import Move, Phase, State, Task
from tests.actors.core.lease_stage import PERIOD_MS, TAKER, LeaseStage
from tests.actors.core.stage import EPOCH, over, row
from tests.support.builders import SPEC, T0_MS

# --- the shard is taken over


@pytest.mark.parametrize("boot", ["boot-b", "dead", "mine before"])
@pytest.mark.parametrize("in_ms", [0, 2_000])
def test_a_claimed_lease_has_one_fresh_period(boot: str, in_ms: int) -> None:
    """Whoever wrote the claim, and whether its clock was ahead."""
    stage = LeaseStage(living=("boot-b",))
    task = stage.taken_over(boot=boot, in_ms=in_ms)
    stage.tick(in_ms)
    assert (task.phase, task.attempt, task.epoch, stage.offers) == (Phase.RUNNING, 1, EPOCH - 1, [])
    began_ms = stage.now_ms - max(in_ms - 1_000, 0) if in_ms <= 1_000 else T0_MS + in_ms
    assert task.lease_ms == began_ms + PERIOD_MS
    stage.see("boot-c")
    assert stage.records == []
    stage.now_ms = task.lease_ms - 1
    stage.tick()
    assert (stage.records, task.phase) == ([], Phase.RUNNING)
    stage.tick(1)
    [record] = stage.records
    assert record.outcome is not None
    assert (record.outcome.verdict, record.due_ms, stage.shard.tally.lapsed) == (Verdict.LOST, task.due_ms, 1)


def test_a_lease_that_was_taken_over_has_its_period_however_long_ago_its_claim_ended() -> None:
    stage = LeaseStage()
    task = stage.taken_over(in_ms=-10 * PERIOD_MS)
    assert (task.phase, task.lease_ms) == (Phase.RUNNING, T0_MS + PERIOD_MS)


def test_a_lease_that_was_taken_over_goes_on_when_it_is_extended() -> None:
    stage = LeaseStage()
    task = stage.taken_over()
    stage.tick(PERIOD_MS - 1)
    assert stage.extend(task, epoch=EPOCH - 1).said == Said.RECORDED
    stage.tick(PERIOD_MS - 1)
    assert (stage.records, task.phase) == ([], Phase.RUNNING)
    stage.report(task, result=b"done")
    [record] = stage.records
    assert (record.state, record.epoch) == (State.SUCCEEDED, EPOCH)
    stage.record()
    assert stage.acknowledged == [(task.id, 1, "succeeded")]


def test_a_report_of_a_lease_that_was_taken_over_is_known_by_its_fence_when_it_is_said_again() -> None:
    stage = LeaseStage()
    task = stage.taken_over()
    stage.report(task)
    stage.record()
    stage.ask_report(task)
    stage.find(over(row(task), State.SUCCEEDED, EPOCH - 1))
    assert (stage.told.token, stage.told.error) == (Reply(TAKER, task.id, EPOCH - 1, 1), None)


def test_a_record_of_a_lease_that_was_taken_over_is_known_by_its_fence_when_its_answer_was_lost() -> None:
    stage = LeaseStage()
    task = stage.taken_over()
    stage.report(task)
    [record] = stage.records
    stage.refuse(record, over(row(task, rev=2), State.SUCCEEDED, EPOCH - 1))
    assert stage.acknowledged == [(task.id, 1, "succeeded")]


def test_a_lease_that_was_taken_over_is_cancelled_like_any_other() -> None:
    stage = LeaseStage()
    task = stage.taken_over()
    stage.ask(task, Move.CANCEL)
    stage.record()
    assert stage.revoked == [task]


def test_a_claim_of_a_pulled_task_that_is_completed_later_is_no_lease() -> None:
    stage = LeaseStage()
    task = row(stage.task(), rev=1, attempt=1, epoch=EPOCH - 1, claim_boot="boot-b")
    task.due_ms = task.claim_ms = T0_MS
    stage.read(task)
    [record] = stage.records
    assert record.outcome is not None
    assert (record.outcome.verdict, task.lease_ms) == (Verdict.FAILED, 0)


def test_a_held_attempt_has_no_lease_when_it_is_taken_over() -> None:
    stage = LeaseStage(unknown=Unheard.HOLD)
    task = stage.taken_over()
    stage.tick(PERIOD_MS)
    [record] = stage.records
    assert record.claim_ms == HELD_MS
    stage.record()
    assert stage.shard.tally.held == 1
    assert not stage.holds(task)


# --- the shard is given away


def test_a_shard_that_is_closed_claims_its_leases_and_parts_without_waiting_for_them() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.close()
    assert (stage.parted, [record.task for record in stage.records]) == (0, [task])
    stage.record()
    assert stage.parted == 1


def test_a_report_while_the_shard_closes_is_recorded() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.close()
    [claim] = stage.records
    stage.report(task)
    stage.record(claim)
    [record] = stage.records
    assert stage.parted == 0
    stage.record(record)
    assert (stage.acknowledged, stage.parted) == ([(task.id, 1, "succeeded")], 1)


def test_an_extension_while_the_shard_closes_is_kept() -> None:
    stage = LeaseStage()
    task = stage.running()
    stage.close()
    assert stage.extend(task).said == Said.RECORDED


def test_what_is_said_to_a_shard_that_has_parted_is_unsure() -> None:
    stage = LeaseStage()
    task = stage.claimed()
    stage.close()
    assert stage.parted == 1
    stage.report(task)
    assert (stage.told.token, type(stage.told.error)) == (Reply(TAKER, task.id, EPOCH, 1), Elsewhere)
    assert stage.forwarded == []
    assert stage.extend(task) == Kept(task.id, EPOCH, 1, Said.UNSURE)
    stage.ask_report(task)
    assert isinstance(stage.told.error, Elsewhere)


def test_of_ends_that_come_after_parting_only_those_of_workers_are_unsure() -> None:
    stage = LeaseStage()
    leased = stage.claimed()
    webhook = stage.task(spec=SPEC)
    stage.hint(webhook)
    stage.start(webhook)
    stage.close()
    stage.record()
    assert stage.parted == 1
    sent = stage.outcome(webhook)
    stage.apply(Ended([stage.outcome(leased, reply=TAKER), sent]))
    assert stage.forwarded == [sent]
    assert stage.told.token == Reply(TAKER, leased.id, EPOCH, 1)


def test_extensions_are_answered_together() -> None:
    stage = LeaseStage()
    task, other = stage.claimed(), stage.task()
    stage.apply(Extended([Extension(task.id, EPOCH, 1), Extension(other.id, EPOCH, 1)], TAKER))
    [keep] = stage.effects
    assert isinstance(keep, Keep)
    assert [kept.said for kept in keep.kept] == [Said.RECORDED, Said.OVER]


def test_a_webhook_is_given_up_after_its_overrun_as_before() -> None:
    stage = LeaseStage()
    task = stage.task(spec=SPEC)
    stage.hint(task)
    stage.start(task)
    stage.tick(500)
    stage.record()
    stage.tick(PERIOD_MS + OVERRUN_MS - 501)
    assert stage.records == []
    stage.tick(1)
    assert _verdicts(stage, task) == [Verdict.FAILED]


def _verdicts(stage: LeaseStage, task: Task) -> list[Verdict]:
    return [record.outcome.verdict for record in stage.records if record.task is task and record.outcome is not None]
