"""When those write who have something to say because of what one read brought."""

import pytest

from gateway.turn import Turn


def test_outside_a_turn_nothing_is_put_off() -> None:
    turn, done = Turn(), list[int]()
    assert not turn.put_off(lambda: done.append(1))
    with turn:
        pass
    assert not turn.put_off(lambda: done.append(2))
    assert done == []


def test_what_is_put_off_is_done_at_the_end_once_however_often_it_was() -> None:
    turn, done = Turn(), list[int]()

    def write() -> None:
        done.append(len(done))

    with turn:
        assert all(turn.put_off(write) for _ in range(3))
        assert done == []
    assert done == [0]
    with turn:
        pass
    assert done == [0], "nor in the next turn"


def test_each_who_put_something_off_does_it_in_the_order_in_which_they_began() -> None:
    turn, done = Turn(), list[str]()
    first, second = (lambda: done.append("first")), (lambda: done.append("second"))
    with turn:
        for do in (first, second, first):
            turn.put_off(do)
    assert done == ["first", "second"]


class Writer:
    """Puts off a method of its own, which is another object each time it is asked for."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.said = 0
        self.written: list[int] = []

    def say(self) -> None:
        self.said += 1
        if not self._turn.put_off(self.write):
            self.write()

    def write(self) -> None:
        self.written.append(self.said)


def test_a_method_is_put_off_once_for_each_who_has_it() -> None:
    turn = Turn()
    one, other = Writer(turn), Writer(turn)
    with turn:
        for writer in (one, other, one, one):
            writer.say()
        assert (one.written, other.written) == ([], [])
    assert (one.written, other.written) == ([3], [1])


def test_what_is_said_while_that_is_done_is_not_put_off_any_more() -> None:
    turn = Turn()
    writer = Writer(turn)
    with turn:
        turn.put_off(writer.say)
    assert writer.written == [1]
    with turn:
        pass
    assert writer.written == [1]


def test_a_turn_that_fails_ends_all_the_same() -> None:
    turn = Turn()
    writer = Writer(turn)

    def fail() -> None:
        with turn:
            writer.say()
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert writer.written == [1]
    writer.say()
    assert writer.written == [1, 2], "it is over"
