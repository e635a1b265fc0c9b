"""What waits for a worker: in chunks, in its order, and what of it can be had back."""

from gateway.outbox import CHUNK_BYTES, Outbox
from gateway.whole_frame import whole_frame
from gateway.worker_writer import _messages_of
from tests.gateway.lent import a_lent


def test_what_waits_is_taken_in_chunks_and_counted_until_it_is_written() -> None:
    box, large = Outbox(), bytes(CHUNK_BYTES - 10)
    for message in (b"a", large, b"b" * 20, b"c"):
        box.put(message)
    assert (box.bytes, box.news.is_set()) == (CHUNK_BYTES + 12, True)
    assert box.take() == whole_frame(b"a") + whole_frame(large) + whole_frame(b"b" * 20)
    assert (box.bytes, box.news.is_set()) == (CHUNK_BYTES + 12, True)
    box.written()
    assert box.bytes == 1
    assert box.take() == whole_frame(b"c")
    assert not box.news.is_set()
    box.written()
    assert (box.bytes, box.take()) == (0, b"")


def test_tasks_that_wait_can_be_had_back_and_all_else_is_said() -> None:
    box = Outbox()
    box.put(bytes(CHUNK_BYTES), [a_lent(1)])
    box.put(b"two", [a_lent(2), a_lent(3)])
    box.put(b"word")
    box.put(b"four", [a_lent(4)])
    box.take()
    assert box.withdraw() == [a_lent(n) for n in (2, 3, 4)], "the first was taken"
    assert box.bytes == CHUNK_BYTES + 4
    assert box.withdraw() == []
    assert box.take() == whole_frame(b"word")


def test_what_is_sealed_is_said_as_long_as_there_is_anybody_to_hear_it() -> None:
    box = Outbox()
    box.put(bytes(CHUNK_BYTES), [a_lent(1)])
    box.put(b"two", [a_lent(2)])
    box.put(b"word")
    box.seal()
    box.put(b"three", [a_lent(3)])
    assert box.withdraw() == [a_lent(3)]
    box.take()
    box.put(b"four", [a_lent(4)])
    assert box.withdraw() == [a_lent(4)], "one of three that were sealed is gone"
    assert box.withdraw(sealed=True) == [a_lent(2)]
    assert box.take() == whole_frame(b"word")
    box.put(b"five", [a_lent(5)])
    assert box.withdraw() == [a_lent(5)], "none is sealed any more"


def test_large_tasks_go_in_messages_of_a_usual_length() -> None:
    half = bytes(CHUNK_BYTES // 2)
    assert list(_messages_of([half, half, half])) == [(0, 2), (2, 3)]
    assert list(_messages_of([bytes(2 * CHUNK_BYTES)])) == [(0, 1)]
    assert list(_messages_of([b"x", bytes(2 * CHUNK_BYTES), b"x"])) == [(0, 1), (1, 2), (2, 3)]
