"""A shard that is given away: closed, it lets what is under way end; parted, it writes nothing any more."""

from collections.abc import Callable

import pytest

from actors.core.claims import NEVER_MS
from actors.core.errors import Elsewhere
from actors.core.events import (
    NO_ID,
    Asked,
    Close,
    Ended,
    Event,
    Extended,
    HandedOut,
    Living,
    Loaded,
    LoadFailed,
    Looked,
    Op,
    Page,
    Probed,
    Recorded,
    Refused,
    Started,
    Submitted,
    Ticked,
    Vanished,
    Verdict,
    Write,
)
from actors.core.inherited import OVERRUN_MS
from actors.core.task import Move, Phase, State, Task
from tests.actors.core.stage import EPOCH, Stage, live, nowhere, over, row
from tests.support.builders import T0_MS

# --- closing


def test_a_shard_that_holds_nothing_parts_at_once() -> None:
    stage = Stage()
    stage.close()
    assert (stage.parted, stage.records, stage.pages) == (1, [], [])
    assert stage.shard.next_ms(stage.now_ms) == NEVER_MS


def test_a_shard_that_was_never_visited_parts_at_once() -> None:
    stage = Stage(loaded=False)
    stage.close()
    assert (stage.parted, stage.pages) == (1, [])


def test_closing_lets_go_what_waits_and_what_is_offered() -> None:
    stage = Stage()
    waiting, offered, mortal = stage.waiting(), stage.offered(), stage.offered(ttl_ms=2_000)
    stage.close()
    assert stage.parted == 1
    assert {task.phase for task in (waiting, offered, mortal)} == {Phase.GONE}
    assert not stage.shard.holding.known
    assert len(stage.shard.holding.timers) == 0


def test_closing_forgets_the_backlog_in_the_tables() -> None:
    stage = Stage(limit=2)
    stage.hint(*[stage.task() for _ in range(6)])
    assert stage.shard.holding.ends()
    stage.close()
    assert stage.shard.holding.ends() == {}
    assert stage.shard.holding.next_refill_ms(stage.now_ms) is None


def test_closing_claims_what_runs_at_once_and_parts_when_that_is_written() -> None:
    stage = Stage()
    task = stage.running()
    stage.close()
    [record] = stage.records
    assert (stage.parted, record.op, record.state) == (0, Op.MOVE, State.RUNNING)
    assert (record.claim_ms, record.due_ms) == (T0_MS + 30_000, T0_MS)
    stage.record()
    assert (stage.parted, stage.records) == (1, [])
    assert [change.state for change in stage.changes] == [State.RUNNING]
    assert (task.phase, task.rev) == (Phase.GONE, 1)


def test_closing_claims_nothing_twice() -> None:
    stage = Stage()
    stage.claimed()
    under_way = stage.running()
    stage.tick(500)
    [claim] = stage.records
    stage.close()
    assert (stage.parted, stage.records) == (0, [])
    stage.record(claim)
    assert (claim.task, stage.parted) == (under_way, 1)


def test_an_attempt_that_is_claimed_already_keeps_nobody() -> None:
    stage = Stage()
    stage.claimed()
    stage.close()
    assert (stage.parted, stage.records) == (1, [])


def test_claims_that_are_written_one_by_one_are_all_waited_for() -> None:
    stage = Stage()
    stage.running()
    stage.running()
    stage.close()
    first, second = stage.records
    stage.record(first)
    assert stage.parted == 0
    stage.record(second)
    assert stage.parted == 1


def test_a_command_that_came_before_is_carried_out_and_answered_before_the_shard_parts() -> None:
    stage = Stage()
    task = stage.waiting()
    command = stage.ask(task, Move.CANCEL)
    [record] = stage.records
    stage.close()
    assert (stage.parted, stage.answer(command)) == (0, None)
    stage.record(record)
    assert (stage.parted, stage.error(command)) == (1, None)


# --- closed: what is under way ends


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Verdict.SUCCEEDED, State.SUCCEEDED),
        (Verdict.FAILED, State.SCHEDULED),
        (Verdict.NEVER, State.DEAD),
        (Verdict.LATER, State.RUNNING),
        (Verdict.UNSENT, State.SCHEDULED),
    ],
)
@pytest.mark.parametrize("early", [False, True], ids=["claimed before", "claimed by closing"])
def test_an_end_that_comes_before_it_has_parted_is_its_own_to_write(
    verdict: Verdict, state: State, early: bool
) -> None:
    stage = Stage()
    task = stage.running() if early else stage.claimed()
    stage.running()
    stage.close()
    claims = stage.records
    stage.end(task, verdict, jitter=0.0)
    if early:
        assert (stage.parted, stage.records) == (0, [])
        stage.record(*claims)
    [record] = stage.records
    assert (stage.parted, record.task, record.state) == (0, task, state)
    stage.record(record)
    assert (task.phase, stage.offers) == (Phase.GONE, [])
    if not early:
        stage.record(*claims)
    assert (stage.parted, stage.records, stage.offers) == (1, [], [])


def test_a_retry_that_is_due_at_once_is_left_to_the_next_owner() -> None:
    stage = Stage()
    task = stage.running()
    stage.end(task, Verdict.FAILED, jitter=0.0)
    [record] = stage.records
    stage.close()
    assert stage.parted == 0
    stage.now_ms = record.due_ms
    stage.record(record)
    assert (stage.offers, stage.parted, task.phase) == ([], 1, Phase.GONE)


def test_a_redrive_is_left_to_the_next_owner() -> None:
    stage = Stage()
    task = stage.task()
    command = stage.ask(task, Move.REDRIVE)
    stage.look((command, over(row(task, rev=3), State.DEAD)))
    [record] = stage.records
    stage.close()
    stage.record(record)
    assert (stage.error(command), stage.offers, stage.parted) == (None, [], 1)


def test_a_stale_end_is_counted_while_it_is_closed() -> None:
    stage = Stage()
    task = stage.running()
    stage.close()
    stage.apply(Ended([stage.outcome(task, epoch=EPOCH - 1)]))
    assert (stage.shard.tally.stale, stage.effects) == (1, [])


def test_a_claimed_attempt_that_nobody_reports_on_ends_while_it_is_closed() -> None:
    stage = Stage()
    task = stage.claimed()
    stage.now_ms = T0_MS + 30_000 + OVERRUN_MS - 1
    blocker = stage.running()
    stage.close()
    assert stage.shard.next_ms(stage.now_ms) <= stage.now_ms + 1
    [claim] = stage.records
    stage.tick(1)
    [record] = stage.records
    assert (record.task, record.state) == (task, State.SCHEDULED)
    stage.record(record)
    assert (stage.parted, task.phase) == (0, Phase.GONE)
    stage.record(claim)
    assert (stage.parted, claim.task) == (1, blocker)


@pytest.mark.parametrize("outcome", ["mine", "finished", "live", "gone"])
def test_a_refused_record_settles_a_closed_shard_too(outcome: str) -> None:
    stage = Stage()
    task = stage.running()
    stage.close()
    [claim] = stage.records
    found = {
        "mine": live(row(task, rev=1, claim_ms=claim.claim_ms)),
        "finished": over(row(task, rev=4), epoch=EPOCH + 1),
        "live": live(row(task, rev=4), EPOCH + 1),
        "gone": nowhere(task),
    }[outcome]
    stage.refuse(claim, found)
    assert (stage.parted, stage.offers, stage.records) == (1, [], [])
    assert task.phase is Phase.GONE
    assert not stage.shard.lost


def test_a_shard_that_is_lost_while_it_is_closed_says_so() -> None:
    stage = Stage()
    task = stage.running()
    stage.close()
    stage.refuse(stage.records[0], live(row(task), EPOCH - 1))
    assert stage.shard.lost


def test_commands_go_elsewhere_from_a_closed_shard() -> None:
    stage = Stage()
    task = stage.running()
    stage.close()
    for move in (Move.CANCEL, Move.RUN, Move.REDRIVE):
        command = stage.ask(task, move)
        assert isinstance(stage.error(command), Elsewhere)
        assert (stage.records, stage.finds, stage.parted) == ([], [], 0)


def test_a_command_that_is_being_looked_up_goes_elsewhere() -> None:
    stage = Stage()
    stage.running()
    task = stage.task(in_ms=10**7)
    command = stage.ask(task, Move.CANCEL)
    assert stage.finds == [command]
    stage.close()
    stage.look((command, live(row(task))))
    assert isinstance(stage.error(command), Elsewhere)
    assert stage.records == []


@pytest.mark.parametrize("refused", [False, True])
def test_commands_that_waited_for_a_record_go_elsewhere_when_it_is_settled(refused: bool) -> None:
    stage = Stage()
    task = stage.writing()
    [record] = stage.records
    commands = [stage.ask(task, Move.CANCEL), stage.ask(task, Move.REDRIVE)]
    stage.close()
    assert [stage.answer(command) for command in commands] == [None, None]
    if refused:
        stage.refuse(record, nowhere(task))
    else:
        stage.record(record)
    assert all(isinstance(stage.error(command), Elsewhere) for command in commands)
    assert (stage.parted, stage.shard.commands.waiting) == (1, {})


def test_a_command_waits_on_for_the_end_that_was_kept_behind_a_claim() -> None:
    stage = Stage()
    task = stage.running()
    stage.tick(500)
    [claim] = stage.records
    command = stage.ask(task, Move.CANCEL)
    stage.end(task)
    stage.close()
    stage.record(claim)
    [finish] = stage.records
    assert (stage.answer(command), stage.parted) == (None, 0)
    stage.record(finish)
    assert isinstance(stage.error(command), Elsewhere)
    assert stage.parted == 1


def test_nothing_begins_in_a_closed_shard() -> None:
    stage = Stage(loaded=False)
    stage.tick()
    [page] = stage.pages
    runner = stage.task()
    stage.apply(Loaded(page, [runner], {}))
    stage.start(runner)
    late, ready = stage.task(), stage.task()
    stage.hint(ready)
    stage.close()
    [claim] = stage.records
    beginnings: list[Event] = [
        Submitted([late], stage.now_ms, EPOCH),
        Loaded(page, [late], {1: (late.due_ms, late.id)}),
        LoadFailed(page),
        Started([ready]),
        Probed([late], stage.now_ms),
        Vanished([ready, late]),
        Close(),
    ]
    for event in beginnings:
        assert stage.apply(event) == [], event
    stage.tick(100_000)
    assert stage.pages == []
    assert [*stage.shard.holding.known] == [runner.id]
    assert (claim.task, stage.parted) == (runner, 0)


def test_the_books_of_a_closed_shard_balance() -> None:
    """What it let go is in no share any more, and one that comes to an end leaves none."""
    stage = Stage(limit=2)
    tasks = [stage.task() for _ in range(6)]
    stage.hint(*tasks)
    stage.start(tasks[0])
    stage.close()
    assert stage.shard.holding.shares == {}


# --- parted: nothing is written


PAGE = Page(0, EPOCH, None, -1, NO_ID, T0_MS + 60_000, 100, 100)
EVENTS: dict[str, Callable[[Stage, Task], Event]] = {
    "submitted": lambda stage, task: Submitted([row(task)], stage.now_ms, EPOCH),
    "ticked": lambda stage, task: Ticked(),
    "failed": lambda stage, task: LoadFailed(PAGE),
    "loaded": lambda stage, task: Loaded(PAGE, [row(task)], {}),
    "started": lambda stage, task: Started([task]),
    "handed out": lambda stage, task: HandedOut([task]),
    "recorded": lambda stage, task: Recorded([]),
    "refused": lambda stage, task: Refused([], []),
    "probed": lambda stage, task: Probed([row(task)], stage.now_ms),
    "vanished": lambda stage, task: Vanished([task]),
    "close": lambda stage, task: Close(),
    "living": lambda stage, task: Living(frozenset()),
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("kind", ["claimed", "waiting", "goes on"])
def test_a_shard_that_has_parted_answers_nothing(event: str, kind: str) -> None:
    stage = Stage(living=("boot-b",))
    kinds: dict[str, Callable[[], Task]] = {
        "claimed": stage.claimed,
        "waiting": stage.waiting,
        "goes on": stage.goes_on,
    }
    task = kinds[kind]()
    stage.close()
    assert stage.parted == 1
    stage.now_ms += 100_000
    assert stage.apply(EVENTS[event](stage, task)) == []
    assert task.phase is Phase.GONE
    assert stage.shard.next_ms(stage.now_ms) == NEVER_MS


def test_every_event_is_one_of_those_above_or_below() -> None:
    assert len(EVENTS) + len({Ended, Asked, Looked, Extended}) == len(Stage().shard._handlers)


@pytest.mark.parametrize("verdict", Verdict)
def test_an_end_is_passed_on_as_it_was(verdict: Verdict) -> None:
    stage = Stage()
    task = stage.running()
    stage.close()
    stage.record()
    outcome = stage.outcome(task, verdict)
    stage.apply(Ended([outcome]))
    assert stage.forwarded == [outcome]
    assert not any(isinstance(effect, Write) for effect in stage.effects)
    assert (outcome.epoch, outcome.attempt, stage.shard.tally.stale) == (EPOCH, 1, 0)


def test_commands_go_elsewhere_from_a_shard_that_has_parted() -> None:
    stage = Stage()
    task = stage.claimed()
    far = stage.task(in_ms=10**7)
    looked = stage.ask(far, Move.RUN)
    stage.close()
    asked = stage.ask(task, Move.CANCEL)
    stage.look((looked, live(row(far))))
    assert isinstance(stage.error(asked), Elsewhere)
    assert isinstance(stage.error(looked), Elsewhere)
    assert stage.records == []


# --- attempts of other nodes that go on


def test_a_shard_that_is_given_on_leaves_the_attempt_to_the_third_owner() -> None:
    stage = Stage(living=("boot-b",))
    task = stage.goes_on()
    stage.close()
    assert (stage.parted, stage.records) == (1, [])
    assert task.claim_boot == "boot-b"


def test_an_attempt_that_is_lost_while_the_shard_is_closed_is_written_first() -> None:
    stage = Stage(living=("boot-b",))
    task = stage.goes_on()
    stage.running()
    stage.close()
    [claim] = stage.records
    stage.see()
    [lost] = stage.records
    assert lost.task is task
    stage.record(claim)
    assert stage.parted == 0
    stage.record(lost)
    assert (stage.parted, task.phase) == (1, Phase.GONE)
