"""What a snapshot after a gap leaves out."""

from typing import Any

import pytest

from gateway.cli import missing as module
from gateway.cli.missing import Missing

QUEUE = {"queue": "mail"}


def a_task(name: str, state: str = "scheduled") -> dict[str, Any]:
    return {"id": name, "state": state, "version": 1}


def snapshot(*names: str, sub: str = "0", state: str = "scheduled") -> dict[str, Any]:
    return {"type": "snapshot", "sub": sub, "tasks": [a_task(name, state) for name in names], "truncated": False}


def event(name: str, state: str = "scheduled") -> dict[str, Any]:
    return {"type": "event", "sub": "0", "task": a_task(name, state)}


def unknown(*names: str) -> dict[str, Any]:
    return {"type": "unknown", "sub": "0", "ids": list(names)}


def asked(missing: Missing) -> list[str]:
    """The tasks that are asked for now."""
    return [said["filter"]["id"] for said in missing.say() if said["type"] == "subscribe"]


def test_what_was_live_and_is_left_out_is_asked_for() -> None:
    missing = Missing([QUEUE])
    for told in (snapshot("a", "b"), event("c"), event("d"), event("d", "dead"), event("b", "running")):
        assert missing.hear(told) == [told]
        assert missing.say() == []
    again = snapshot("c", "e")
    assert missing.hear(again) == [again]
    assert missing.say() == [
        {"type": "subscribe", "sub": "?a", "filter": {"id": "a"}},
        {"type": "subscribe", "sub": "?b", "filter": {"id": "b"}},
    ]
    assert missing.hear(snapshot("a", sub="?a", state="succeeded")) == [event("a", "succeeded")]
    assert missing.say() == [{"type": "unsubscribe", "sub": "?a"}]
    assert missing.hear({"type": "unsubscribed", "sub": "?a"}) == []


def test_an_answer_that_is_live_is_not_forgotten() -> None:
    missing = Missing([QUEUE])
    missing.hear(snapshot("a"))
    for _ in range(2):
        missing.hear(snapshot())
        assert asked(missing) == ["a"]
        assert missing.hear(snapshot("a", sub="?a")) == [event("a")]


def test_what_the_service_does_not_know_is_unknown() -> None:
    missing = Missing([QUEUE])
    missing.hear(snapshot("a", "b", "c"))
    missing.hear(snapshot())
    assert asked(missing) == ["a", "b", "c"]
    assert missing.hear(snapshot(sub="?a")) == [unknown("a")]
    assert missing.hear({"type": "error", "sub": "?b", "problem": "overloaded"}) == [unknown("b")]
    assert missing.hear({"type": "error", "sub": "?c", "problem": "unavailable"}) == []
    assert missing.hear(snapshot("c", sub="?c")) == [event("c")]
    assert asked(missing) == []


def test_a_single_task_is_shown_by_its_own_snapshots() -> None:
    missing = Missing([{"id": "a"}])
    assert [missing.hear(told) for told in (snapshot("a"), snapshot())] == [[snapshot("a")], [snapshot()]]
    assert missing.say() == []


def test_questions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LIVE", 6)
    monkeypatch.setattr(module, "MOST_ASKED", 4)
    monkeypatch.setattr(module, "AT_ONCE", 2)
    missing = Missing([QUEUE])
    missing.hear(snapshot(*"abcdefg"))
    assert missing.hear(snapshot()) == [snapshot(), unknown("b", "c")]
    assert asked(missing) == ["d", "e"]
    assert asked(missing) == []
    missing.hear(snapshot("d", sub="?d"))
    assert asked(missing) == ["f"]


def test_a_second_gap_forgets_no_question() -> None:
    missing = Missing([QUEUE])
    missing.hear(snapshot("a", "b"))
    missing.hear(snapshot("c"))
    missing.hear(snapshot("a"))
    assert asked(missing) == ["b", "c"]


def test_a_new_connection_asks_again() -> None:
    missing = Missing([QUEUE])
    missing.hear(snapshot("a", "b"))
    missing.hear(snapshot())
    assert asked(missing) == ["a", "b"]
    missing.hear(snapshot("b", sub="?b", state="dead"))
    missing.ask_again()
    assert missing.say() == [{"type": "subscribe", "sub": "?a", "filter": {"id": "a"}}]
