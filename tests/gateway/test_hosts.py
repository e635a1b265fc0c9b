from collections import defaultdict
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.hosts import MAX_AWAY_MS, MIN_AWAY_MS, WINDOW_MS, Hosts

START, WAIT = (True, 0), (False, 0)


def filled(callers: int, room: int, name: str, calls: int) -> Hosts[int]:
    hosts: Hosts[int] = Hosts(callers, room)
    for call in range(calls):
        hosts.admit(name, call)
    return hosts


def test_one_host_gets_half_of_the_callers() -> None:
    hosts = filled(8, 100, "a", 50)
    assert hosts.free == 4
    assert hosts.waiting == 46


@given(st.integers(1, 20), st.integers(1, 256))
def test_while_fewer_hosts_hang_than_there_are_callers_another_gets_one(hanging: int, callers: int) -> None:
    hosts: Hosts[int] = Hosts(callers, 10_000)
    for call in range(callers):
        for host in range(hanging):
            hosts.admit(f"hangs-{host}", call)
    if hanging < callers:
        assert hosts.admit("good", 1) == START


def test_an_ended_call_starts_the_one_that_waits_longest() -> None:
    hosts = filled(4, 10, "a", 4)
    assert hosts.done("a") == [2]
    assert hosts.done("a") == [3]
    assert hosts.done("a") == []


def test_a_host_takes_what_others_free() -> None:
    hosts: Hosts[int] = Hosts(8, 10)
    for call in range(3):
        hosts.admit("a", call)
        hosts.admit("b", call)
    for call in range(3, 7):
        assert hosts.admit("a", call) == WAIT
    for _ in range(3):
        assert hosts.done("b") == []
    assert hosts.done("a") == [3, 4]


def test_a_host_that_ends_nothing_in_a_window_has_its_calls_turned_away() -> None:
    hosts = filled(4, 10, "a", 6)
    turned = hosts.review()
    assert sorted(call for call, _ in turned) == [2, 3, 4, 5]
    assert hosts.waiting == 0
    starts, away_ms = hosts.admit("a", 9)
    assert not starts
    assert MIN_AWAY_MS <= away_ms <= MAX_AWAY_MS


def test_a_host_that_ends_calls_keeps_as_many_waiting() -> None:
    hosts = filled(4, 10, "a", 9)
    hosts.done("a")
    hosts.done("a")
    assert [call for call, _ in hosts.review()] == [8, 7, 6]
    assert hosts.waiting == 2


def hanging(windows: int) -> Hosts[int]:
    """A host that was behind for so many windows: a call was turned away in each, and none was answered."""
    hosts = filled(2, 4, "a", 1)
    hosts.review()
    for _ in range(windows):
        hosts.admit("a", 1)
        hosts.review()
    return hosts


def test_the_more_are_away_the_longer_they_stay_up_to_a_bound() -> None:
    hosts = hanging(MAX_AWAY_MS // WINDOW_MS)
    away = [hosts.admit("a", call)[1] for call in range(1_000)]
    assert away == sorted(away)
    assert away[0] < away[-1] == MAX_AWAY_MS


@given(st.integers(MIN_AWAY_MS // WINDOW_MS, MAX_AWAY_MS // WINDOW_MS))
def test_none_stays_away_for_longer_than_its_host_has_been_behind(windows: int) -> None:
    hosts = hanging(windows)
    assert max(hosts.admit("a", call)[1] for call in range(1_000)) == windows * WINDOW_MS


def test_a_window_without_an_answer_does_not_make_a_fast_host_slow() -> None:
    hosts: Hosts[int] = Hosts(2, 1_000)
    for call in range(1_000):
        hosts.admit("a", call)
    for _ in range(400):
        hosts.done("a")
    hosts.review()
    turned = hosts.review()
    assert len(turned) == 400
    assert max(away_ms for _, away_ms in turned) == MIN_AWAY_MS


def test_a_host_that_went_on_without_an_answer_is_slow() -> None:
    hosts = filled(2, 4, "a", 5)
    for _ in range(4):
        hosts.done("a")
    for _ in range(4):
        hosts.review()
    for _ in range(MAX_AWAY_MS // WINDOW_MS):
        hosts.admit("a", 5)
        hosts.review()
    assert [hosts.admit("a", call)[1] for call in range(1_000)][-1] == MAX_AWAY_MS


def outage(hosts: Hosts[int], windows: int, rate: int, hangs: range) -> tuple[int, int]:
    """`rate` calls come in each window, and the host answers all at once, but in those in which it hangs. In the end
    none is away; answers by how many windows a call was late at most, and for how many ms it was put off.
    """
    back: dict[int, list[int]] = defaultdict(list)
    calling: list[int] = []
    late = longest_ms = 0
    for window in range(windows):
        turned: list[tuple[int, int]] = []
        for call in [*back.pop(window, []), *[window] * rate]:
            starts, away_ms = hosts.admit("a", call)
            if starts:
                calling.append(call)
            elif away_ms:
                turned.append((call, away_ms))
            while window not in hangs and calling:
                late = max(late, window - calling.pop())
                calling += hosts.done("a")
        for call, away_ms in turned + hosts.review():
            longest_ms = max(longest_ms, away_ms)
            back[window - -away_ms // WINDOW_MS].append(call)
    assert not back
    return late, longest_ms


@given(rate=st.integers(1, 80), stalled=st.integers(2, 40))
def test_calls_away_are_back_soon_after_their_host_answers_again(rate: int, stalled: int) -> None:
    late, _ = outage(Hosts(64, 32), 4 * stalled + 40, rate, range(8, 8 + stalled))
    assert late <= 2 * stalled + 2 * MIN_AWAY_MS // WINDOW_MS


def test_a_long_outage_is_over_once_all_calls_are_back() -> None:
    hosts = filled(64, 32, "a", 1)  # one is always under way, so that the host is never forgotten
    assert outage(hosts, 1_200, 20, range(8, 808))[1] == MAX_AWAY_MS
    assert outage(hosts, 40, 20, range(8, 16))[1] <= 2_000


def test_a_host_that_hangs_is_not_forgotten_while_calls_are_away() -> None:
    hosts = filled(4, 4, "a", 2)
    hosts.review()
    for _ in range(8):
        hosts.admit("a", 9)
        hosts.review()
    hosts.done("a")
    hosts.done("a")
    hosts.review()
    assert len(hosts) == 1, "its calls are still away"
    for _ in range(MAX_AWAY_MS // WINDOW_MS):
        hosts.review()
    assert len(hosts) == 0


def test_an_idle_host_is_forgotten() -> None:
    hosts = filled(4, 4, "a", 1)
    hosts.done("a")
    hosts.review()
    assert len(hosts) == 0


def test_leaving_empties_the_room() -> None:
    hosts = filled(2, 4, "a", 4)
    assert hosts.leave() == [1, 2, 3]
    assert hosts.waiting == 0


class Sharing(RuleBasedStateMachine):
    """Whatever happens, no call is lost, doubled or started beyond the bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: Hosts[int] = Hosts(6, 5)
        self.numbers: Iterator[int] = iter(range(10**9))
        self.running: dict[str, list[int]] = {"a": [], "b": [], "c": []}
        self.waiting: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    @rule(name=st.sampled_from("abc"))
    def admit(self, name: str) -> None:
        call = next(self.numbers)
        starts, away_ms = self.hosts.admit(name, call)
        if starts:
            self.running[name].append(call)
        elif not away_ms:
            self.waiting[name].append(call)

    @precondition(lambda self: any(self.running.values()))
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name, calls in self.running.items() if calls]))
        self.running[name].pop()
        for call in self.hosts.done(name):
            assert call == self.waiting[name].pop(0)
            self.running[name].append(call)

    @rule()
    def review(self) -> None:
        for call, away_ms in self.hosts.review():
            assert MIN_AWAY_MS <= away_ms <= MAX_AWAY_MS
            next(calls for calls in self.waiting.values() if call in calls).remove(call)

    @invariant()
    def adds_up(self) -> None:
        assert self.hosts.free == 6 - sum(map(len, self.running.values())) >= 0
        assert self.hosts.waiting == sum(map(len, self.waiting.values())) <= 5

    @invariant()
    def nobody_waits_for_a_host_that_is_not_called(self) -> None:
        for name, calls in self.waiting.items():
            assert not calls or self.running[name]


TestSharing = Sharing.TestCase
