"""What a shard reads: pages, the probe, rows that are gone, and reads that are too old."""

import pytest

from actors.core.events import Ended, Loaded, LoadFailed, Op, Page, Probed, Recorded, Ticked, Vanished, Verdict
from actors.core.holding import GENERATION_MS
from actors.core.shard import HINT_MS, ShardState
from actors.core.task import Phase, State, Task
from tests.actors.core.stage import EPOCH, HORIZON_MS, Stage, row
from tests.support.builders import T0_MS

# --- loads


def test_a_new_shard_loads_everything_up_to_its_horizon() -> None:
    stage = Stage(loaded=False)
    assert stage.shard.next_ms(stage.now_ms) <= stage.now_ms
    stage.tick()
    [page] = stage.pages
    assert (page.shard, page.epoch, page.queue_id, page.limit) == (0, EPOCH, None, 100)
    assert (page.after_due_ms, page.until_ms, page.asked_ms) == (-1, T0_MS + HORIZON_MS, T0_MS)


def test_while_a_load_is_under_way_it_is_no_reason_to_tick() -> None:
    stage = Stage(loaded=False)
    stage.tick()
    assert stage.shard.next_ms(stage.now_ms) > stage.now_ms + 10 * HORIZON_MS


def test_loaded_rows_are_armed() -> None:
    stage = Stage(loaded=False)
    stage.tick()
    due, later = stage.task(in_ms=-5), stage.task(in_ms=5)
    stage.apply(Loaded(stage.pages[0], [due, later], {}))
    assert stage.offers == [due]
    stage.tick(5)
    assert stage.offers == [later]


def test_the_next_stretch_is_loaded_at_half_of_the_horizon() -> None:
    stage = Stage()
    half_ms = HORIZON_MS // 2
    assert stage.shard.next_ms(stage.now_ms) == stage.now_ms + half_ms
    stage.tick(half_ms - 1)
    assert stage.pages == []
    stage.tick(1)
    [page] = stage.pages
    assert (page.after_due_ms, page.until_ms) == (T0_MS + HORIZON_MS, T0_MS + half_ms + HORIZON_MS)


def test_a_load_that_failed_is_asked_again() -> None:
    stage = Stage(loaded=False)
    stage.tick()
    [page] = stage.pages
    stage.now_ms += 700
    stage.apply(LoadFailed(page))
    [again] = stage.pages
    assert (again.after_due_ms, again.until_ms) == (-1, stage.now_ms + HORIZON_MS)


def test_a_load_older_than_five_seconds_is_asked_again() -> None:
    stage = Stage(loaded=False)
    stage.tick()
    [page] = stage.pages
    task = stage.task()
    stage.now_ms += 5_001
    stage.apply(Loaded(page, [task], {}))
    assert stage.offers == []
    assert len(stage.pages) == 1


def test_a_page_of_another_epoch_changes_nothing() -> None:
    stage = Stage()
    task = stage.task()
    other = Page(0, EPOCH - 1, None, -1, "", T0_MS + 5, 100, T0_MS)
    stage.apply(Loaded(other, [task], {1: (task.due_ms, task.id)}))
    assert (stage.offers, stage.pages) == ([], [])
    stage.apply(LoadFailed(other))
    assert stage.pages == []
    assert stage.shard.holding.loaded_until_ms == T0_MS + HORIZON_MS


def test_a_loaded_claim_of_a_lost_owner_is_tried_again_at_once() -> None:
    stage = Stage(loaded=False)
    stage.tick()
    task, other = stage.task(in_ms=-900), stage.task(in_ms=-900)
    task.attempt, task.claim_ms, task.epoch = 1, T0_MS + 20_000, EPOCH - 1
    stage.apply(Loaded(stage.pages[0], [task, other], {}))
    [record] = stage.records
    assert (record.op, record.state, record.due_ms) == (Op.MOVE, State.SCHEDULED, T0_MS - 900)
    assert record.outcome is not None
    assert record.outcome.verdict is Verdict.LOST
    assert (record.outcome.epoch, record.outcome.attempt) == (EPOCH - 1, 1)
    assert stage.offers == [other]
    stage.record()
    assert stage.offers == [task]


def test_a_loaded_claim_of_the_later_kind_waits_for_its_deadline() -> None:
    stage = Stage(loaded=False)
    stage.tick()
    task = stage.task(in_ms=20_000)
    task.attempt, task.claim_ms = 1, task.due_ms
    stage.apply(Loaded(stage.pages[0], [task], {}))
    assert (stage.records, stage.offers) == ([], [])
    stage.tick(20_000)
    [record] = stage.records
    assert record.outcome is not None
    assert (record.outcome.verdict, record.outcome.error) == (Verdict.FAILED, "not completed in time")
    assert record.state is State.SCHEDULED


def test_a_loaded_claim_of_the_later_kind_whose_deadline_is_past_has_failed() -> None:
    stage = Stage(loaded=False)
    stage.tick()
    task = stage.task(in_ms=-1)
    task.attempt, task.claim_ms = 5, task.due_ms
    stage.apply(Loaded(stage.pages[0], [task], {}))
    assert [record.state for record in stage.records] == [State.DEAD]


# --- the probe


def test_the_probe_arms_what_memory_does_not_know_and_counts_it() -> None:
    stage = Stage()
    known, lost = stage.offered(), stage.task(in_ms=-4_000)
    copy = row(known)
    stage.apply(Probed([copy, lost], stage.now_ms))
    assert stage.offers == [lost]
    assert stage.shard.tally.found == 1


@pytest.mark.parametrize(("age_ms", "found"), [(5_000, 1), (5_001, 0)])
def test_a_probe_older_than_five_seconds_is_thrown_away(age_ms: int, found: int) -> None:
    stage = Stage()
    stage.now_ms += 6_000
    stage.apply(Probed([stage.task(in_ms=-4_000)], stage.now_ms - age_ms))
    assert (len(stage.offers), stage.shard.tally.found) == (found, found)


def test_what_the_probe_brings_beyond_the_memory_is_not_counted() -> None:
    stage = Stage(limit=2)
    tasks = [stage.task(in_ms=-4_000) for _ in range(5)]
    stage.apply(Probed(tasks, stage.now_ms))
    assert stage.offers == tasks[:4]
    assert stage.shard.tally.found == 4


def test_what_a_page_is_about_to_bring_is_not_taken_from_the_probe() -> None:
    """After a take-over both read the same rows; only those that no page brings were forgotten."""
    stage = Stage(loaded=False)
    stage.tick()
    [page] = stage.pages
    task = stage.task(in_ms=-4_000)
    stage.apply(Probed([row(task)], stage.now_ms))
    assert (stage.offers, stage.shard.tally.found) == ([], 0)
    stage.apply(Loaded(page, [task], {}))
    assert stage.offers == [task]
    # The stretch that is read now does not have this one: it lies before.
    stage.tick(HORIZON_MS // 2)
    assert stage.pages
    lost = stage.task(in_ms=-4_000)
    stage.apply(Probed([lost], stage.now_ms))
    assert (stage.offers, stage.shard.tally.found) == ([lost], 1)


def test_what_a_page_did_not_bring_after_all_is_taken_from_the_probe() -> None:
    stage = Stage(loaded=False)
    stage.tick()
    task = stage.task(in_ms=-4_000)
    stage.apply(LoadFailed(stage.pages[0]))
    [again] = stage.pages
    stage.apply(Loaded(again, [], {}))
    stage.apply(Probed([task], stage.now_ms))
    assert (stage.offers, stage.shard.tally.found) == ([task], 1)


@pytest.mark.parametrize("early_ms", [1, 900])
def test_a_probe_from_before_the_take_over_is_thrown_away(early_ms: int) -> None:
    """It may show what the owner in between has finished."""
    stage = Stage()
    stage.apply(Probed([stage.task(in_ms=-4_000)], T0_MS - early_ms))
    assert stage.offers == []


def test_the_probe_finds_a_claim_that_memory_lost() -> None:
    stage = Stage()
    task = stage.task(in_ms=-4_000)
    task.attempt, task.claim_ms = 1, T0_MS + 20_000
    stage.apply(Probed([task], stage.now_ms))
    assert [record.state for record in stage.records] == [State.SCHEDULED]


# --- spilling


def test_what_does_not_fit_is_a_row_until_there_is_room() -> None:
    stage = Stage(limit=4)
    tasks = [stage.task() for _ in range(11)]
    stage.hint(*tasks)
    assert stage.offers == tasks[:8]
    assert {task.phase for task in tasks[8:]} == {Phase.GONE}
    stage.start(*tasks[:5])
    assert stage.pages == []
    stage.start(tasks[5])
    [page] = stage.pages
    assert (page.queue_id, page.after_due_ms, page.after_id, page.limit) == (1, tasks[7].due_ms, tasks[7].id, 2)
    rest = [row(task) for task in tasks[8:10]]
    stage.apply(Loaded(page, rest, {1: (rest[-1].due_ms, rest[-1].id)}))
    assert stage.offers == rest
    assert stage.shard.holding.spilled[1].after == (rest[1].due_ms, rest[1].id)


def test_a_backlog_that_was_read_to_its_end_is_no_backlog() -> None:
    stage = Stage(limit=4)
    tasks = [stage.task() for _ in range(9)]
    stage.hint(*tasks)
    stage.start(*tasks[:6])
    [page] = stage.pages
    stage.apply(Loaded(page, [row(tasks[8])], {}))
    assert not stage.shard.holding.spilled


def test_an_urgent_task_pushes_those_out_that_are_due_last() -> None:
    stage = Stage(limit=2)
    later = [stage.waiting(in_ms=in_ms) for in_ms in (9_000, 8_000, 7_000, 6_000)]
    urgent = stage.offered()
    assert stage.offers == [urgent]
    assert [task.phase for task in later] == [Phase.GONE, Phase.GONE, Phase.WAITING, Phase.WAITING]
    assert stage.shard.holding.spilled[1].after == (later[2].due_ms, later[2].id)


def test_of_hints_that_come_together_the_urgent_ones_stay() -> None:
    stage = Stage(limit=2)
    later = [stage.task(in_ms=in_ms) for in_ms in (9_000, 8_000, 7_000, 6_000)]
    urgent = stage.task()
    stage.hint(*later, urgent)
    assert stage.offers == [urgent]
    assert len(stage.shard.holding.timers) == 2


def test_a_position_in_the_future_is_paged_forward_a_second_before() -> None:
    stage = Stage(limit=4)
    tasks = [stage.waiting(in_ms=in_ms) for in_ms in range(5_000, 14_000, 1_000)]
    assert stage.shard.holding.spilled[1].after == (tasks[3].due_ms, tasks[3].id)
    stage.tick(5_000)
    stage.start(tasks[0])
    stage.tick(1_999)
    assert stage.pages == []
    assert stage.shard.next_ms(stage.now_ms) == stage.now_ms + 1
    stage.tick(1)
    [page] = stage.pages
    assert (page.after_due_ms, page.after_id, page.limit) == (tasks[3].due_ms, tasks[3].id, 1)
    assert stage.shard.holding.next_refill_ms(stage.now_ms) is None, "it is under way"


def test_a_backlog_that_is_due_passes_by_those_that_wait_for_later() -> None:
    stage = Stage(limit=4)
    stage.hint(*(stage.task(in_ms=50_000) for _ in range(5)))
    overlooked = stage.task()
    stage.hint(overlooked, late_ms=HINT_MS + 1)
    [page] = stage.pages
    assert (page.after_due_ms, page.limit) == (overlooked.due_ms - 1, 3)


def test_a_refill_that_failed_is_asked_again() -> None:
    stage = Stage(limit=2)
    stage.hint(*(stage.task() for _ in range(5)))
    stage.start(*stage.offers[:3])
    [page] = stage.pages
    stage.now_ms += 500
    stage.apply(LoadFailed(page))
    [again] = stage.pages
    assert (again.after_due_ms, again.after_id) == (page.after_due_ms, page.after_id)
    assert again.asked_ms == stage.now_ms


# --- vanished


def test_a_vanished_row_is_forgotten() -> None:
    stage = Stage()
    task = stage.offered()
    stage.apply(Vanished([task]))
    assert (task.phase, stage.holds(task)) == (Phase.GONE, False)
    stage.hint(row(task))
    assert stage.offers == []


def test_of_a_vanished_row_that_is_being_written_the_ledger_will_tell() -> None:
    stage = Stage()
    task = stage.offered(ttl_ms=700)
    stage.tick(700)
    [record] = stage.records
    stage.apply(Vanished([task]))
    assert (task.phase, stage.holds(task)) == (Phase.WRITING, True)
    stage.record(record)
    assert [change.state for change in stage.changes] == [State.EXPIRED]


@pytest.mark.parametrize("name", ["waiting", "running", "claimed"])
def test_a_vanished_row_of_what_is_not_at_the_desk_says_nothing(name: str) -> None:
    stage = Stage()
    task: Task = getattr(stage, name)()
    phase = task.phase
    stage.apply(Vanished([task]))
    assert (task.phase, stage.holds(task)) == (phase, True)


# --- what is over stays over


def finished_at_once(stage: Stage) -> Task:
    task = stage.writing()
    stage.record()
    return task


@pytest.mark.parametrize("age_ms", [0, 4_999, 5_000])
def test_what_finished_is_not_armed_by_a_read_of_five_seconds(age_ms: int) -> None:
    stage = Stage()
    stage.tick(3_000)
    task = finished_at_once(stage)
    asked_ms = stage.now_ms
    for _ in range(age_ms // 1_000):
        stage.tick(1_000)
    stage.now_ms = asked_ms + age_ms
    stage.apply(Probed([row(task, rev=0)], asked_ms))
    assert stage.offers == []


def test_what_finished_is_forgotten_after_two_generations() -> None:
    stage = Stage()
    task = finished_at_once(stage)
    stage.tick(5_000)
    assert stage.shard.holding.knows(row(task, rev=0))
    stage.tick(5_000)
    assert not stage.shard.holding.knows(row(task, rev=0))


def test_answers_of_the_ledger_under_another_epoch_change_nothing() -> None:
    """The shard went and came back while they were on their way: they speak of what memory held before."""
    stage = Stage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    successor = Stage()
    successor.shard = ShardState(0, EPOCH + 2, successor.now_ms, limit=100, horizon_ms=HORIZON_MS)
    successor.apply(Recorded([claim]))
    assert successor.changes == []
    assert len(successor.shard.holding.timers) == 0
    assert (task.phase, task.claim_ms) == (Phase.RUNNING, None)


def test_an_idle_shard_asks_for_nothing() -> None:
    stage = Stage()
    stage.apply(Ticked())
    assert stage.effects == []
    stage.apply(Ended([]))
    assert stage.effects == []


# --- what waits again, and what has no place


@pytest.mark.parametrize(("size", "away_ms", "kept"), [(100, 1_000, True), (100, 30_000, False), (5_000, 1_000, False)])
def test_a_task_that_was_turned_away_keeps_a_payload_that_is_small_and_wanted_soon(
    size: int, away_ms: int, kept: bool
) -> None:
    stage = Stage()
    task = stage.task(payload=b"x" * size)
    stage.hint(task)
    stage.start(task)
    stage.end(task, Verdict.UNSENT, retry_after_ms=away_ms)
    assert (task.wake_ms - stage.now_ms, task.payload is not None) == (away_ms, kept)


def test_a_late_hint_that_finds_no_room_is_read_when_it_is_due() -> None:
    stage = Stage(limit=100)
    stage.hint(*(stage.task(in_ms=50_000) for _ in range(150)))
    late = stage.task(in_ms=10_000)
    stage.hint(late, late_ms=HINT_MS + 1)
    stage.now_ms = late.due_ms - 500
    stage.tick(0)
    assert stage.shard.next_ms(stage.now_ms) == late.due_ms - 1


def test_a_page_that_waited_for_its_turn_is_as_old_as_its_statement() -> None:
    stage = Stage(loaded=False)
    stage.tick(0)
    [page] = stage.pages
    stage.now_ms += 60_000
    page.asked_ms = stage.now_ms - GENERATION_MS
    task = stage.task()
    stage.apply(Loaded(page, [task], {}))
    assert stage.offers == [task]


def test_queues_that_have_nothing_here_are_forgotten() -> None:
    stage = Stage()
    task = stage.running()
    assert set(stage.shard.holding.shares) == {1}
    stage.end(task)
    stage.record()
    stage.tick(2 * GENERATION_MS)
    assert stage.shard.holding.shares == {}


def test_an_unsent_task_comes_back_though_its_queue_was_forgotten() -> None:
    stage = Stage()
    stage.now_ms += GENERATION_MS - 100
    task = stage.running()
    stage.tick(100)
    assert stage.shard.holding.shares == {}
    stage.end(task, Verdict.UNSENT)
    assert stage.offers == [task]
    assert stage.shard.holding.shares[1].held == 1
