"""Results on their way."""

import msgspec

from ringwheel.frames import MOST_RESULTS, Result
from ringwheel.outbox import FRAME_BYTES, Outbox


def result(number: int, data: bytes = b"1") -> Result:
    return Result(f"t{number}", "l", ok=True, result=msgspec.Raw(data))


def frames_of(outbox: Outbox) -> list[list[Result]]:
    frames = []
    while taken := outbox.take():
        frames.append(taken)
    return frames


def test_a_frame_has_no_more_results_than_the_service_takes() -> None:
    outbox = Outbox()
    for number in range(2 * MOST_RESULTS + 1):
        outbox.put(result(number))
    frames = frames_of(outbox)
    assert [len(frame) for frame in frames] == [MOST_RESULTS, MOST_RESULTS, 1]
    assert [one.id for frame in frames for one in frame] == [f"t{number}" for number in range(2 * MOST_RESULTS + 1)]


def test_a_frame_is_not_longer_than_the_service_takes() -> None:
    """Or it would end each new link, for ever."""
    outbox = Outbox()
    large = b'"%b"' % (b"x" * 65_000)
    for number in range(500):
        outbox.put(result(number, large))
    frames = frames_of(outbox)
    assert sum(map(len, frames)) == 500
    assert max(sum(len(one.result) for one in frame) for frame in frames) <= FRAME_BYTES
    assert len(frames) < 40, "as few as can be"


def test_nothing_is_said_twice_in_a_frame() -> None:
    outbox = Outbox()
    first, second = result(1), result(2)
    outbox.put(first)
    outbox.put(second)
    assert outbox.take() == [first, second]
    outbox.say_all_again()
    outbox.say_again(first)
    assert outbox.take() == [first, second]
    outbox.say_again(first)
    outbox.put(later := result(1, b"2"))
    assert outbox.take() == [later]


def test_what_has_no_answer_yet() -> None:
    outbox = Outbox()
    first, second, third = result(1), result(2), result(3)
    outbox.put(first)
    outbox.put(second)
    outbox.take()
    outbox.recorded(["t1", "unknown"])
    outbox.put(third)
    assert outbox.unanswered == [second]
    assert outbox.find("t1", "l") is None
    outbox.recorded(["t2", "t3"])
    assert outbox.empty.is_set()
