import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.errors import Conflict
from actors.core.queue import Queue
from actors.core.spec import Spec
from actors.core.task import MOVES, TERMINAL, Move, Phase, State, Task, after, by_shard, fence, fence_parts
from tests.support.builders import make_task

OWN_LIFE = (Move.START, Move.SUCCEED, Move.RETRY, Move.DIE, Move.EXPIRE)

TABLE = """
            start    succeed    retry      die   expire   cancel     run        reschedule  redrive
scheduled   running  -          -          -     expired  cancelled  scheduled  scheduled   -
running     -        succeeded  scheduled  dead  -        -          -          -           -
succeeded   -        -          -          -     -        -          -          -           -
dead        -        -          -          -     -        -          -          -           scheduled
expired     -        -          -          -     -        -          -          -           scheduled
cancelled   -        -          -          -     -        cancelled  -          -           scheduled
"""
_moves, *_rows = (line.split() for line in TABLE.strip().splitlines())
EXPECTED = {(State(row[0]), Move(move)): to for row in _rows for move, to in zip(_moves, row[1:], strict=True)}


def test_the_table_names_every_pair() -> None:
    assert set(EXPECTED) == {(state, move) for state in State for move in Move}


@pytest.mark.parametrize(("state", "move"), EXPECTED)
def test_every_pair(state: State, move: Move) -> None:
    expected = EXPECTED[state, move]
    if expected == "-":
        with pytest.raises(Conflict, match=r"can't [a-z]+ a task that (is|has|was) [a-z]+$") as caught:
            after(state, move)
        assert caught.value.state == state.value
    else:
        assert after(state, move) is State(expected)


@pytest.mark.parametrize(
    ("state", "move", "words"),
    [
        (State.RUNNING, Move.RUN, "can't run a task that is running"),
        (State.SUCCEEDED, Move.CANCEL, "can't cancel a task that has succeeded"),
        (State.CANCELLED, Move.RESCHEDULE, "can't reschedule a task that was cancelled"),
        (State.DEAD, Move.DIE, "can't complete a task that is dead"),
    ],
)
def test_a_refusal_is_said_in_words(state: State, move: Move, words: str) -> None:
    with pytest.raises(Conflict, match=words):
        after(state, move)


def test_terminal_is_left_by_redrive_alone() -> None:
    assert {move for (state, move), to in MOVES.items() if state in TERMINAL and to not in TERMINAL} == {Move.REDRIVE}


def test_no_move_of_its_own_life_leaves_a_terminal_state() -> None:
    assert not any(state in TERMINAL and move in OWN_LIFE for state, move in MOVES)


def test_every_state_can_be_reached() -> None:
    reached = {State.SCHEDULED}
    for _ in State:
        reached |= {to for (state, _), to in MOVES.items() if state in reached}
    assert reached == set(State)


fences = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**10 - 1), st.integers(0, 10**6 - 1))


@given(fences, fences)
def test_fences_compare_as_text(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    assert (fence(*one) < fence(*other)) == (one < other)
    assert (fence(*one) == fence(*other)) == (one == other)


@given(fences)
def test_a_fence_can_be_taken_apart(parts: tuple[int, int, int]) -> None:
    assert fence_parts(fence(*parts)) == parts


@pytest.mark.parametrize("change", ["+{}", "{}\n", " {}", "{}0", "x"])
def test_what_is_no_fence_has_no_parts(change: str) -> None:
    assert fence_parts(change.format(fence(1, 2, 3))) is None


@pytest.mark.parametrize("text", ["00000001.000000000٢.000003", "0000000G.0000000002.000003", ""])
def test_only_ascii_digits_count(text: str) -> None:
    assert fence_parts(text) is None


def test_fence_is_of_fixed_width() -> None:
    assert fence(1, 2, 3) == "00000001.0000000002.000003"
    assert len(fence(2**32 - 1, 10**10 - 1, 10**6 - 1)) == len(fence(0, 0, 0))


def test_a_new_task_waits_for_its_due_time() -> None:
    task = Task("id", 3, Queue(1, "default", "q"), 1_000, 2_000, 5, Spec())
    assert (task.phase, task.due_ms, task.slot, task.epoch) == (Phase.WAITING, 2_000, None, 0)
    assert (task.rev, task.attempt, task.budget, task.started_ms) == (0, 0, 5, 0)
    assert (task.payload, task.payload_bytes, task.labels, task.key_hash) == (None, 0, None, None)
    assert repr(task) == "<Task id WAITING due=2000 rev=0 attempt=0>"


def test_a_task_is_slim() -> None:
    task = Task("id", 3, Queue(1, "default", "q"), 1_000, 2_000, 5, Spec())
    assert not hasattr(task, "__dict__")


def test_tasks_go_by_shard_in_their_order() -> None:
    queue = Queue(1, "default", "q")
    tasks = [make_task(number, queue, shard=number % 2) for number in range(5)]
    assert by_shard(tasks) == {0: [tasks[0], tasks[2], tasks[4]], 1: [tasks[1], tasks[3]]}
