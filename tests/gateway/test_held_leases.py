"""Leases by id and by holder: what is kept, what is forgotten, and what that costs."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.lease import Extension, Lent
from gateway import held_leases
from gateway.held_leases import HeldLeases
from tests.gateway.lent import EPOCH, MemberDouble, a_kept, a_lent, a_report
from tests.support.builders import task_id


def test_who_has_a_lease_last_has_it_alone() -> None:
    held, one, other = HeldLeases(), MemberDouble(), MemberDouble()
    held.add(one, [a_lent(1), a_lent(2)])
    held.add(other, [a_lent(2, attempt=2)])
    held.add(other, [Extension(task_id(2), EPOCH, 3)])
    assert (held.holder_of(task_id(1)), held.holder_of(task_id(2)), held.holder_of(task_id(3))) == (one, other, None)
    assert (held.attempt_of(task_id(2)), held.attempt_of(task_id(3)), len(held)) == (3, None, 2)
    assert held.forget(one) == [(task_id(1), EPOCH, 1)]
    assert (held.forget(one), len(held)) == ([], 1)


def test_only_what_is_named_as_it_is_ends() -> None:
    held, one = HeldLeases(), MemberDouble(tenant="acme")
    held.add(one, [a_lent(n, attempt=2) for n in range(4)])
    assert held.of(one, [a_lent(0, attempt=2), a_lent(1), a_lent(9)]) == [a_lent(0, attempt=2)]
    assert held.of(MemberDouble(), [a_lent(0, attempt=2)]) == []
    held.end("other", [a_report(0, attempt=2)])
    held.end("acme", [a_report(1, attempt=1), a_report(9), a_kept(2, attempt=2), a_lent(3, attempt=2)])
    assert len(held) == 2


def test_of_whom_nothing_is_left_nothing_is_kept() -> None:
    held, one, other = HeldLeases(), MemberDouble(), MemberDouble()
    held.add(one, [])
    assert one not in held
    held.add(one, [a_lent(1), a_lent(2)])
    held.add(other, [a_lent(1)])
    assert one in held
    held.drop(task_id(2))
    assert one not in held
    held.add(other, [a_lent(1, attempt=2)])
    held.end("acme", [a_report(1, attempt=2)])
    assert (other in held, len(held), held._by_holder) == (False, 0, {})


def test_who_takes_more_and_more_and_ends_nothing_costs_no_more_than_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_leases, "MOST", 10)
    held, one = HeldLeases(), MemberDouble()
    for start in range(0, 100, 7):
        held.add(one, [a_lent(n) for n in range(start, start + 7)])
        assert len(held) <= 10
    assert held.forget(one) == [(task_id(n), EPOCH, 1) for n in range(95, 105)], "the newest are known"


def test_to_forget_a_link_looks_at_none_of_the_others() -> None:
    held, small = HeldLeases(), MemberDouble()
    held.add(small, [a_lent(0)])
    held.add(MemberDouble(), [a_lent(n) for n in range(1, 1_000)])
    by_id = Watched(held._by_id)
    held._by_id = by_id
    assert held.forget(small) == [(task_id(0), EPOCH, 1)]
    assert by_id.deleted == [task_id(0)]


class Watched(dict[str, Any]):
    """Knows no way to look at all that it has."""

    def __init__(self, other: dict[str, Any]) -> None:
        super().__init__(other)
        self.deleted: list[str] = []

    def __iter__(self) -> None:  # type: ignore[override]
        raise AssertionError("all of them were looked at")

    items = values = __iter__  # type: ignore[assignment]

    def __delitem__(self, key: str) -> None:
        self.deleted.append(key)
        super().__delitem__(key)


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "end", "drop", "forget"]), st.integers(0, 2), st.integers(0, 5)), max_size=60
    )
)
def test_it_is_as_one_list_of_leases_would_be(steps: list[tuple[str, int, int]]) -> None:
    held, members = HeldLeases(), [MemberDouble() for _ in range(3)]
    model: dict[str, tuple[MemberDouble, Lent]] = {}
    for what, who, number in steps:
        member, lease = members[who], a_lent(number)
        if what == "add":
            held.add(member, [lease])
            model[lease.id] = member, lease
        elif what == "forget":
            gone = {key for key, (other, _) in model.items() if other is member}
            assert {lease_id for lease_id, _, _ in held.forget(member)} == gone
            model = {key: one for key, one in model.items() if key not in gone}
        else:
            held.end("acme", [lease]) if what == "end" else held.drop(lease.id)
            model.pop(lease.id, None)
        assert len(held) == len(model)
        assert all(held.holder_of(key) is other for key, (other, _) in model.items())
        assert {member for member in members if member in held} == {other for other, _ in model.values()}
