from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.errors import Misconfigured
from actors.core.members import GAP_MS, GONE_MS, LATELY_MS, T_DEAD_MS, TWIN_MS, Members


@dataclass(frozen=True)
class Seen:
    boot: str
    beats: int
    name: str = "other"


ME = Seen("me", 7, "mine")
STEP_MS = 500


def beat(members: Members, start_ms: int, end_ms: int, *peers: Seen) -> list[tuple[str, int]]:
    """Heartbeats each half second from `start_ms` to `end_ms`, all with the same answer; the last one's suspects."""
    suspects: list[tuple[str, int]] = []
    for now_ms in range(start_ms, end_ms + 1, STEP_MS):
        suspects = members.observe([ME, *peers], now_ms)
    return suspects


@pytest.fixture
def members() -> Members:
    return Members("me", "mine")


def test_a_counter_that_stands_still_for_t_dead_is_suspect(members: Members) -> None:
    peer = Seen("p", 3)
    assert beat(members, 100, 100 + T_DEAD_MS - STEP_MS, peer) == []
    assert members.observe([peer], 99 + T_DEAD_MS) == []
    assert members.observe([peer], 100 + T_DEAD_MS) == [("p", 3)]


def test_a_suspect_is_named_until_it_moves(members: Members) -> None:
    assert beat(members, 0, 8_000, Seen("p", 3)) == [("p", 3)]
    assert beat(members, 8_500, 14_000, Seen("p", 4)) == []
    assert beat(members, 14_500, 14_500, Seen("p", 4)) == [("p", 4)]


def test_it_tells_how_long_a_counter_has_stood_still(members: Members) -> None:
    assert members.still_ms("me", 0) is None
    beat(members, 0, 1_000, Seen("p", 3))
    assert [members.still_ms(boot, 1_200) for boot in ("p", "me", "x")] == [1_200, 200, None]
    beat(members, 1_500, 1_500, Seen("p", 4))
    assert members.still_ms("p", 1_600) == 100
    beat(members, 2_000, 2_000)
    assert members.still_ms("p", 2_000) is None


def test_it_tells_how_long_ago_those_that_are_gone_last_moved(members: Members) -> None:
    beat(members, 0, 1_000, Seen("p", 3), Seen("q", 1))
    assert members.lost_ms(1_000) is None
    beat(members, 1_500, 2_000, Seen("q", 2))
    beat(members, 2_500, 2_500)
    assert members.lost_ms(3_000) == 3_000
    assert members.lost_ms(3_000) is None


def test_who_left_long_ago_is_not_mixed_up_with_who_is_gone_now(members: Members) -> None:
    beat(members, 0, 1_000, Seen("p", 3), Seen("q", 1))
    beat(members, 1_500, 10_000, Seen("q", 1))
    beat(members, 10_500, 10_500)
    assert members.lost_ms(10_600) == 10_600
    beat(members, 11_000, 11_000, Seen("p", 3))
    beat(members, 11_500, 11_500)
    assert members.lost_ms(11_500 + LATELY_MS + 1) is None


def test_i_never_suspect_myself(members: Members) -> None:
    assert beat(members, 0, 60_000) == []


def test_a_gap_in_my_own_heartbeats_is_nobodys_death(members: Members) -> None:
    peer = Seen("p", 3)
    assert beat(members, 0, 5_500, peer) == []
    assert beat(members, 5_500 + GAP_MS + 1, 5_501 + GAP_MS + T_DEAD_MS - STEP_MS, peer) == []
    assert members.observe([peer], 5_501 + GAP_MS + T_DEAD_MS) == [("p", 3)]


def test_a_shorter_gap_counts(members: Members) -> None:
    for now_ms in range(0, T_DEAD_MS, GAP_MS):
        assert members.observe([Seen("p", 3)], now_ms) == []
    assert members.observe([Seen("p", 3)], T_DEAD_MS) == [("p", 3)]


def test_a_boot_that_left_the_view_starts_anew(members: Members) -> None:
    beat(members, 0, 5_000, Seen("p", 3))
    beat(members, 5_500, 5_500)
    assert beat(members, 6_000, 11_500, Seen("p", 3)) == []
    assert beat(members, 12_000, 12_000, Seen("p", 3)) == [("p", 3)]


def test_my_name_is_mine_when_no_other_bears_it(members: Members) -> None:
    assert not members.named
    members.observe([ME, Seen("p", 3)], 0)
    assert members.named


def test_an_older_twin_that_moves_keeps_the_name(members: Members) -> None:
    members.observe([ME, Seen("old", 3, "mine")], 0)
    assert not members.named
    with pytest.raises(Misconfigured, match="name 'mine' is taken"):
        members.observe([ME, Seen("old", 4, "mine")], 500)


def test_an_older_twin_that_stands_still_is_suspected_early(members: Members) -> None:
    twin, peer = Seen("old", 3, "mine"), Seen("p", 9)
    assert beat(members, 0, TWIN_MS - STEP_MS, twin, peer) == []
    assert members.observe([ME, twin, peer], TWIN_MS) == [("old", 3)]
    assert not members.named
    members.observe([ME, peer], TWIN_MS + STEP_MS)
    assert members.named


def test_a_twins_lease_may_run_until_any_other_would_be_suspected(members: Members) -> None:
    twin = Seen("old", 3, "mine")
    beat(members, 0, TWIN_MS, twin)
    assert members.is_early("old")
    beat(members, TWIN_MS + STEP_MS, T_DEAD_MS - STEP_MS, twin)
    assert members.is_early("old")
    assert members.observe([ME, twin], T_DEAD_MS) == [("old", 3)]
    assert not members.is_early("old")
    assert not members.is_early("unknown")


def test_a_twin_that_comes_later_is_a_peer_like_others(members: Members) -> None:
    members.observe([ME], 0)
    assert members.observe([ME, Seen("new", 0, "mine")], 500) == []
    assert members.observe([ME, Seen("new", 1, "mine")], 1_000) == []
    assert members.named


def test_my_own_gap_restarts_a_twins_clock_too(members: Members) -> None:
    twin = Seen("old", 3, "mine")
    members.observe([twin], 0)
    assert beat(members, GAP_MS + 1, GAP_MS + 1 + TWIN_MS - STEP_MS, twin) == []
    assert members.observe([twin], GAP_MS + 1 + TWIN_MS) == [("old", 3)]


View = dict[str, int]
views = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(0, 1), max_size=3)
histories = st.lists(
    st.tuples(st.sampled_from([1, 500, GAP_MS - 1, GAP_MS, GAP_MS + 1, T_DEAD_MS]), views), min_size=1, max_size=30
)


def dumb(history: list[tuple[int, View]]) -> set[tuple[str, int]]:
    """Suspects by reading the whole past backwards, for each boot in view now."""
    now_ms, view = history[-1]
    suspects = set()
    for boot, beats in view.items():
        since_ms = later_ms = now_ms
        for at_ms, past in reversed(history):
            if past.get(boot) != beats or later_ms - at_ms > GAP_MS:
                break
            since_ms = later_ms = at_ms
        if now_ms - since_ms >= T_DEAD_MS:
            suspects.add((boot, beats))
    return suspects


@given(histories)
def test_agrees_with_a_reading_of_the_whole_past(history: list[tuple[int, View]]) -> None:
    members = Members("me", "mine")
    past: list[tuple[int, View]] = []
    now_ms = 0
    for step_ms, view in history:
        now_ms += step_ms
        past.append((now_ms, view))
        suspects = members.observe([Seen(boot, beats) for boot, beats in view.items()], now_ms)
        assert len(suspects) == len(set(suspects))
        assert set(suspects) == dumb(past)


@given(st.integers(0, 20_000), st.integers(1, STEP_MS))
def test_a_node_that_beats_is_never_suspect(start_ms: int, period_ms: int) -> None:
    members = Members("me", "mine")
    for beats in range(40):
        assert members.observe([Seen("p", beats)], start_ms + beats * period_ms) == []


def test_one_that_is_gone_is_suspect_early(members: Members) -> None:
    peer = Seen("p", 3)
    assert members.observe([ME, peer], 0, {"p"}) == []
    assert members.observe([ME, peer], GONE_MS - 1, {"p"}) == []
    assert members.observe([ME, peer], GONE_MS, {"p"}) == [("p", 3)]
    assert members.is_early("p")
    assert members.observe([ME, peer], GONE_MS + 1) == [], "it is back"
    assert members.observe([ME, Seen("p", 4)], GONE_MS + 2, {"p"}) == [], "it moves"
