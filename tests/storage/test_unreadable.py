"""Rows that can't be read: counted each time, named once, at a bounded rate, in bounded memory."""

import pytest
from structlog.testing import capture_logs

from storage import unreadable
from storage.unreadable import LINES, WINDOW_S, Unreadable


class Clock:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_row_is_named_once_and_counted_each_time() -> None:
    rows = Unreadable(Clock())
    with capture_logs() as lines:
        for _ in range(3):
            rows.note("id-1", "newer")
        rows.note("id-1", "no queue")
    assert [(line["id"], line["reason"]) for line in lines] == [("id-1", "newer"), ("id-1", "no queue")]
    assert rows.count == 4


def test_many_rows_are_named_little_by_little() -> None:
    clock = Clock()
    rows = Unreadable(clock)
    with capture_logs() as lines:
        for turn in range(1, 4):
            for number in range(10 * LINES):
                rows.note(f"id-{number}", "newer")
            assert len(lines) == turn * LINES
            clock.now_s += WINDOW_S
    assert len({line["id"] for line in lines}) == 3 * LINES


def test_only_so_many_rows_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unreadable, "KEPT", 5)
    rows = Unreadable(Clock())
    for number in range(LINES):
        rows.note(f"id-{number}", "newer")
        assert len(rows._named) <= 5
