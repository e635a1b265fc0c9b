"""Nothing of a task goes back behind what was told of it."""

import pytest

from actors.core import changes
from gateway.latest import Latest
from tests.gateway.watched import a_change

STEPS = 8


@pytest.fixture(autouse=True)
def few_steps(two_steps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "STEPS", STEPS)


def versions(latest: Latest, *told: int, number: int = 1) -> list[int]:
    return [change.version for change in latest.news([a_change(number, version) for version in told])]


def test_what_is_late_or_comes_twice_is_no_news() -> None:
    latest = Latest()
    assert versions(latest, 0, 2, 1, 2, 5) == [0, 2, 5]
    assert versions(latest, 4, 5, 6) == [6]
    assert versions(latest, 0, number=2) == [0]


def test_starts_beyond_those_that_are_told_apart_are_news() -> None:
    last = STEPS - 1
    told = versions(Latest(), last - 1, last, last - 1, last, last - 2, STEPS + 1, STEPS, last)
    assert told == [last - 1, last, last - 1, last, STEPS + 1]


def test_after_an_interruption_all_is_news() -> None:
    latest = Latest()
    assert versions(latest, 5) == [5]
    latest.clear()
    assert versions(latest, 1) == [1]


def test_it_remembers_as_many_as_it_should_and_no_more() -> None:
    latest = Latest(size=10)
    for number in range(100):
        assert versions(latest, 5, number=number) == [5]
    assert versions(latest, 5, number=90) == []
    assert versions(latest, 5, number=79) == [5]
    assert len(latest._recent) + len(latest._old) <= 20
