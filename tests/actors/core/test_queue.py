import pytest

from actors.core.errors import Invalid
from actors.core.queue import (
    DAY_MS,
    MAX_RETENTION_MS,
    RETENTION_MS,
    Queue,
    QueueBook,
    QueueSettings,
    Unheard,
    check_new,
)
from actors.core.retry import DEFAULT, RetryPolicy
from actors.core.task import TERMINAL


def test_a_new_queue_has_the_defaults() -> None:
    queue = Queue(1, "default", "emails")
    assert (queue.paused, queue.retry, queue.dispatch_deadline_ms, queue.version) == (False, DEFAULT, 30_000, 0)
    assert repr(queue) == "<Queue default/emails #1>"


def test_no_queue_is_made_that_no_path_reaches() -> None:
    for name in (".", ".."):
        with pytest.raises(Invalid, match="out of a path"):
            check_new(name)
    check_new("...")


def test_every_terminal_state_is_kept_for_a_day_at_least() -> None:
    assert set(RETENTION_MS) == TERMINAL
    assert min(RETENTION_MS.values()) == DAY_MS
    assert max(RETENTION_MS.values()) == MAX_RETENTION_MS


def test_the_book_finds_by_number_and_by_name() -> None:
    book = QueueBook()
    assert len(book) == 0
    one, two = book.put(Queue(1, "a", "q")), book.put(Queue(2, "b", "q"))
    assert book.by_id(1) is book.by_name("a", "q") is one
    assert book.by_id(2) is book.by_name("b", "q") is two
    assert book.by_id(3) is None
    assert book.by_name("a", "other") is None
    assert len(book) == 2


def test_newer_settings_reach_everyone_who_holds_the_queue() -> None:
    book = QueueBook()
    queue = book.put(Queue(1, "a", "q", version=4))
    retry = RetryPolicy(max_attempts=1)
    assert book.put(Queue(1, "a", "q", paused=True, retry=retry, dispatch_deadline_ms=5, version=5)) is queue
    assert (queue.paused, queue.retry, queue.dispatch_deadline_ms, queue.version) == (True, retry, 5, 5)
    assert len(book) == 1
    book.put(Queue(1, "a", "q", unknown=Unheard.HOLD, version=6))
    assert queue.unknown is Unheard.HOLD


def test_a_deleted_queue_has_a_number_and_no_name_until_it_is_used_again() -> None:
    book = QueueBook()
    queue = book.put(Queue(1, "a", "q", version=1))
    book.put(Queue(1, "a", "q", version=2, deleted=True))
    assert book.by_name("a", "q") is None
    assert book.by_id(1) is queue
    book.put(Queue(1, "a", "q", version=3))
    assert book.by_name("a", "q") is queue


def test_what_can_be_set_is_shown_as_one() -> None:
    retry = RetryPolicy(max_attempts=2)
    settings = Queue(1, "a", "q", paused=True, retry=retry, dispatch_deadline_ms=7, unknown=Unheard.HOLD).settings
    assert settings == QueueSettings(True, retry, 7, RETENTION_MS, Unheard.HOLD)


def test_older_settings_change_nothing() -> None:
    book = QueueBook()
    queue = book.put(Queue(1, "a", "q", paused=True, version=5))
    assert book.put(Queue(1, "a", "q", version=4)) is queue
    assert (queue.paused, queue.version) == (True, 5)
