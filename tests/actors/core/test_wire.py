"""Messages between nodes: what goes in comes out, and what is not known harms nothing."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from actors.core.codec import SpecCodec
from actors.core.errors import Conflict, Invalid, KeyReused, Overloaded, RingwheelError, Unavailable, Unknown
from actors.core.events import Answer, Change, Command, Outcome, Verdict
from actors.core.lease import Extension, Kept, Report, Said, Word, lent
from actors.core.live import gone, live
from actors.core.queue import Queue, QueueBook
from actors.core.reach import Reach
from actors.core.task import Move, Phase, State
from actors.core.wire import (
    PAYLOAD_BYTES,
    Answered,
    Ask,
    Changes,
    Extend,
    Extended,
    Frame,
    Given,
    Got,
    Hint,
    Look,
    Measure,
    Measured,
    Message,
    Missed,
    Moved,
    Reports,
    Revoked,
    Shown,
    Supply,
    Take,
    Taken,
    Told,
    Want,
    Watch,
    Watching,
    Wire,
    WireTask,
    WireTopic,
    decode,
    encode,
)
from tests.support.builders import HASH, LABELS, SPEC, T0_MS, TRACE, make_task, task_id

QUEUE = Queue(7, "acme", "mail")


def make_wire(*queues: Queue) -> Wire:
    book = QueueBook()
    for queue in queues:
        book.put(queue)
    return Wire(book, SpecCodec())


WIRE = make_wire(QUEUE)


def carried(message: Message) -> Message:
    """As it arrives."""
    frame = decode(encode(Frame("to", "from", [message])))
    assert (frame.to, frame.sender) == ("to", "from")
    (heard,) = frame.messages
    return heard


@given(
    st.none() | st.binary(max_size=30),
    st.sampled_from([None, LABELS]),
    st.sampled_from([None, TRACE]),
    st.sampled_from([None, HASH]),
    st.integers(0, 10**10),
)
def test_tasks(payload: bytes | None, labels: str | None, trace: str | None, key: bytes | None, late_ms: int) -> None:
    task = make_task(
        3, QUEUE, shard=9, due_ms=T0_MS + late_ms, payload=payload, labels=labels, trace=trace, key_hash=key
    )
    task.budget = 11
    hint = carried(WIRE.hint([task], T0_MS, {7: 2}))
    assert isinstance(hint, Hint)
    assert (hint.at_ms, hint.epochs) == (T0_MS, {7: 2})
    (twin,) = WIRE.tasks(hint)
    assert asdict(twin) == asdict(task)


def test_a_large_payload_stays_in_the_tables() -> None:
    task = make_task(1, QUEUE, payload=b"x" * (PAYLOAD_BYTES + 1))
    (twin,) = WIRE.tasks(WIRE.hint([task], T0_MS, {}))
    assert (twin.payload, twin.payload_bytes) == (None, PAYLOAD_BYTES + 1)


def test_of_a_hint_what_is_not_known_is_passed_over() -> None:
    other = Queue(8, "acme", "other")
    hint = make_wire(QUEUE, other).hint([make_task(1, other), make_task(2, QUEUE), make_task(3, QUEUE)], T0_MS, {})
    assert WIRE.strange(hint) == {8}
    assert make_wire(other, QUEUE).strange(hint) == set()
    odd = msgspec.structs.replace(hint.tasks[2], spec=b'{"v":99}')
    assert [task.id for task in WIRE.tasks(Hint(T0_MS, [*hint.tasks[:2], odd]))] == [task_id(2)]


OUTCOME = Outcome(None, 4, 2, Verdict.NEVER, T0_MS, T0_MS + 1, 410, "gone", b"{}", 7, 0.25)  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", [None, OUTCOME])
@pytest.mark.parametrize("move", Move)
def test_commands(move: Move, outcome: Outcome | None) -> None:
    command = Command(move, task_id(1), None, T0_MS, outcome, "acme")
    ask = carried(WIRE.ask(5, command))
    assert isinstance(ask, Ask)
    assert ask.number == 5
    assert WIRE.command(ask) == command


def test_a_command_of_a_newer_program_is_refused() -> None:
    with pytest.raises(Invalid):
        WIRE.command(Ask(1, "dance", task_id(1), "acme"))
    ask = WIRE.ask(1, Command(Move.DIE, task_id(1), None, outcome=OUTCOME))
    assert ask.outcome is not None
    with pytest.raises(Invalid):
        WIRE.command(msgspec.structs.replace(ask, outcome=msgspec.structs.replace(ask.outcome, verdict=99)))


CHANGE = Change(task_id(1), QUEUE, State.CANCELLED, 2, 9, T0_MS, T0_MS - 5, T0_MS, LABELS, 503, "busy", 12)


def told(answer: Answer | None) -> Answer | None:
    message = carried(WIRE.told(5, answer))
    assert isinstance(message, Told)
    assert message.number == 5
    return WIRE.answer(message)


def test_answers() -> None:
    assert told(None) is None
    assert told(Answer("token", CHANGE)) == Answer(None, CHANGE)
    assert told(Answer("token", changed=False)) == Answer(None, changed=False)


@pytest.mark.parametrize(
    "error",
    [Unknown("x"), Conflict("a task that runs", "running"), Overloaded("full", 5), Unavailable("away", 7_000)],
)
def test_errors(error: RingwheelError) -> None:
    answer = told(Answer("token", error=error))
    assert answer is not None
    assert type(answer.error) is type(error)
    assert vars(answer.error) == vars(error)


def test_an_error_of_another_kind_is_unavailable() -> None:
    answer = told(Answer("token", error=KeyReused("x")))
    assert answer is not None
    assert isinstance(answer.error, Unavailable)


def test_what_an_owner_knows() -> None:
    task = make_task(1, QUEUE)
    task.phase, task.attempt, task.lateness_ms, task.started_ms, task.epoch = Phase.RUNNING, 2, 5, T0_MS, 3
    lives = [live(task), gone(task_id(2), 7)]
    look = carried(Look(3, [task_id(1), task_id(2)]))
    assert look == Look(3, [task_id(1), task_id(2)])
    shown = carried(Shown(3, lives))
    assert isinstance(shown, Shown)
    assert (shown.number, shown.tasks) == (3, lives)


def test_that_shards_were_given() -> None:
    heard = carried(Given())
    assert heard == Given()
    assert type(heard) is Given


def test_what_is_watched() -> None:
    topics = [WireTopic(task_id(1)), WireTopic(None, "acme", "mail"), WireTopic(None, "acme", None, (("a", "b"),))]
    for message in (Watch(3, topics, topics[:1]), Watching(3), Missed()):
        assert carried(message) == message


def test_what_is_held() -> None:
    reaches = [Reach(3, T0_MS, 7), Reach(4, -1, 0, {7: (T0_MS, task_id(1)), 9: (-1, task_id(2))})]
    for message in (Measure(5, T0_MS * 1_000), Measured(5, reaches)):
        assert carried(message) == message


@pytest.mark.parametrize("payload", [None, b"", b'{"a":1}', bytes(range(256))])
def test_tasks_that_are_lent(payload: bytes | None) -> None:
    task = make_task(1, QUEUE, payload=payload, labels=LABELS, trace=TRACE)
    task.attempt, task.epoch, task.lease_ms = 2, 3, T0_MS + 30_000
    given = lent(task)
    assert (given.id, given.queue, given.epoch, given.attempt, given.payload) == (task_id(1), 7, 3, 2, payload)
    assert carried(Taken(4, [given, given], more=True)) == Taken(4, [given, given], more=True)


WORKERS_SAY = [
    Want([]),
    Want([7, 9]),
    Take(4, 7, 500),
    Take(4, 7, 500, 20),
    Got(4),
    Got(4, 3, 2),
    Reports("acme", [Report(task_id(1), 3, 2, Verdict.SUCCEEDED.value, result=b"{}")]),
    Reports("acme", [Report(task_id(1), 3, 2, Verdict.FAILED.value, "why", None, 9_000, 0.25), Report("x", 0, 0, 6)]),
    Extend("acme", [Extension(task_id(1), 3, 2), Extension(task_id(2), 3, 1, 5_000)]),
    Moved([task_id(1)]),
]
WORKERS_HEAR = [
    Supply([7]),
    Taken(4, [], more=False),
    Taken(4, [], more=False, open=True),
    Answered(
        [Word(task_id(1), 3, 2, Said.RECORDED, "succeeded"), Word(task_id(2), 3, 1, Said.OVER, "dead", "too late")]
    ),
    Extended([Kept(task_id(1), 3, 2, Said.RECORDED, T0_MS), Kept(task_id(2), 3, 1, Said.UNSURE)]),
    Revoked([(task_id(1), 2)]),
]


@pytest.mark.parametrize("message", [*WORKERS_SAY, *WORKERS_HEAR], ids=lambda message: type(message).__name__)
def test_what_workers_say_and_hear(message: Message) -> None:
    heard = carried(message)
    assert heard == message
    assert type(heard) is type(message)


def test_a_report_of_an_older_program_has_defaults() -> None:
    short = msgspec.to_builtins(Reports("acme", [Report(task_id(1), 3, 2, 1)]))
    short[2][0] = short[2][0][:4]
    assert carried(msgspec.convert(short, Reports)) == Reports("acme", [Report(task_id(1), 3, 2, 1)])


def test_changes_are_told_as_far_as_they_are_known() -> None:
    message = carried(WIRE.changes([CHANGE, CHANGE._replace(version=9)]))
    assert isinstance(message, Changes)
    assert WIRE.told_changes(message) == [CHANGE, CHANGE._replace(version=9)]
    assert make_wire().told_changes(message) == [None, None]
    assert (WIRE.strange(message), make_wire().strange(message)) == (set(), {QUEUE.id})
    future = msgspec.structs.replace(message.changes[0], state="dreaming")
    assert WIRE.told_changes(Changes([future, message.changes[1]])) == [None, CHANGE._replace(version=9)]


@pytest.mark.parametrize(
    ("phase", "started_ms", "runs"),
    [
        (Phase.WAITING, 0, False),
        (Phase.RUNNING, T0_MS, True),
        (Phase.WRITING, T0_MS, True),
        (Phase.WRITING, 0, False),
        (Phase.GONE, T0_MS, False),
    ],
)
def test_whether_it_runs(phase: Phase, started_ms: int, runs: bool) -> None:
    task = make_task(1, QUEUE)
    task.phase, task.started_ms = phase, started_ms
    assert live(task).runs is runs


def test_of_an_answer_what_is_not_known_is_left_out() -> None:
    message = WIRE.told(1, Answer(None, CHANGE))
    assert make_wire().answer(message) == Answer(None, changed=True)
    assert message.change is not None
    odd = msgspec.structs.replace(message.change, state="dancing")
    assert WIRE.answer(msgspec.structs.replace(message, change=odd)) == Answer(None, changed=True)


def test_messages_of_a_newer_program_are_passed_over() -> None:
    ask = WIRE.ask(1, Command(Move.RUN, task_id(1), None))
    data = msgspec.msgpack.encode(["to", "from", [["wave", 1, 2], msgspec.to_builtins(ask), ["ask", "x"]]])
    assert decode(data).messages == [ask]
    longer = [*msgspec.to_builtins(ask), "a new field"]
    given = [*msgspec.to_builtins(Given()), {"shards": [3]}]
    assert decode(msgspec.msgpack.encode(["to", "from", [longer, given]])).messages == [ask, Given()]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x01\x02\x90", msgspec.msgpack.encode(["a", "b"])])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        decode(data)


def test_a_task_of_an_older_program_has_defaults() -> None:
    short = msgspec.to_builtins(WIRE.hint([make_task(1, QUEUE)], T0_MS, {}).tasks[0])[:8]
    assert msgspec.convert(short, WireTask).payload is None
    assert SPEC.http is not None
