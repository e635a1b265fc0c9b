"""The clock hand: who is visited when, in which order, and how often."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from actors.clock import Clock
from actors.core.events import Answer, Effect, Ended, Event, Outcome, Publish, Submitted, Ticked, Verdict
from actors.core.queue import Queue
from actors.core.shard import ShardState
from actors.hand import BUSY_EVENTS, BUSY_ROUND_S, ENDS, HINTED, ROUND_S, SLICE_EVENTS, STALE_TIMES, TICK, Hand
from tests.support.builders import T0_MS, make_task

NEVER_MS = 1 << 60
POISON = Ended([])


class ShardDouble(ShardState):
    """Notes what it is given; wants to be visited at `times`, one after the other."""

    def __init__(self, shard: int, *times: int) -> None:
        super().__init__(shard, 1, T0_MS, limit=16, horizon_ms=60_000)
        self.times = list(times)
        self.seen: list[tuple[Event, int]] = []
        self.reply: list[Effect] = []

    def apply(self, event: Event, now_ms: int) -> list[Effect]:
        self.seen.append((event, now_ms))
        if isinstance(event, Ended) and not event.outcomes:
            raise ValueError("poison")
        while self.times and self.times[0] <= now_ms:
            self.times.pop(0)
        return self.reply

    def next_ms(self, now_ms: int) -> int:
        return self.times[0] if self.times else NEVER_MS

    @property
    def ticks(self) -> list[int]:
        """When it was visited without mail, after the first visit."""
        return [now_ms for event, now_ms in self.seen if isinstance(event, Ticked)][1:]


class TrueClock(Clock):
    """A clock that needs no samples."""

    def _estimate_ms(self) -> float:
        return T0_MS + self.boot_ms()


class World:
    """A hand and what came of it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.late_ms = 0
        self.clock = TrueClock(lambda: loop.time() * 1_000 + self.late_ms)
        self.carried: list[list[Effect]] = []
        self.crashes: list[tuple[int, Exception]] = []
        self.lost: list[int] = []
        self.done = 0
        self.late: list[Event] = []
        """Mail of shards that had gone."""
        self.hand = Hand(
            self.clock,
            carry_out=self._carry,
            done=self._done,
            lost=self._lose,
            crashed=self._crash,
            late=self.late.extend,
        )
        self.carry: Callable[[list[Effect]], object] = self.carried.append

    def add(self, shard: int, *times: int) -> ShardDouble:
        state = ShardDouble(shard, *times)
        self.hand.add(shard, state)
        return state

    def _carry(self, effects: list[Effect]) -> None:
        self.carry(effects)

    def _done(self) -> None:
        self.done += 1

    def _lose(self, shard: int) -> None:
        self.lost.append(shard)
        self.hand.remove(shard)

    def _crash(self, shard: int, error: Exception) -> None:
        self.crashes.append((shard, error))
        self.hand.remove(shard)

    @asynccontextmanager
    async def turning(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.hand.run())
            yield
            running.cancel()


@pytest.fixture
async def world() -> World:
    return World()


def hint(at_ms: int = T0_MS) -> Submitted:
    return Submitted([], at_ms, 1)


async def test_a_new_shard_is_visited_at_once(world: World) -> None:
    async with world.turning():
        await asyncio.sleep(5)
        state = world.add(3)
        await asyncio.sleep(0.001)
    assert state.seen == [(Ticked(), T0_MS + 5_000)]


async def test_events_of_a_shard_are_applied_in_their_order(world: World) -> None:
    a, b = world.add(1), world.add(2)
    hints = [hint(number) for number in range(20)]
    for number, event in enumerate(hints):
        assert world.hand.post(1 + number % 2, event)
    async with world.turning():
        await asyncio.sleep(1)
    assert [event for event, _ in a.seen[1:]] == hints[::2]
    assert [event for event, _ in b.seen[1:]] == hints[1::2]


async def test_mail_wakes_an_idle_hand_at_once(world: World) -> None:
    state = world.add(1)
    async with world.turning():
        await asyncio.sleep(100)
        world.hand.post(1, hint())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert state.seen[-1] == (hint(), T0_MS + 100_000)


async def test_under_load_it_comes_round_every_two_milliseconds(world: World) -> None:
    state = world.add(1)
    async with world.turning():
        for _ in range(1_000):
            world.hand.post(1, hint())
            await asyncio.sleep(0.0001)
    rounds = len({now_ms for _, now_ms in state.seen})
    assert 0.1 / ROUND_S - 2 <= rounds <= 0.1 / ROUND_S + 2


async def test_rounds_after_busy_ones_begin_later(world: World) -> None:
    state = world.add(1)
    async with world.turning():
        for _ in range(1_000):
            for _ in range(1 + BUSY_EVENTS // 20):
                world.hand.post(1, hint())
            await asyncio.sleep(0.0001)
    rounds = len({now_ms for _, now_ms in state.seen})
    assert 0.1 / BUSY_ROUND_S - 2 <= rounds <= 0.1 / BUSY_ROUND_S + 2


async def test_it_sleeps_until_the_next_expiry_exactly(world: World) -> None:
    times = [T0_MS + ms for ms in (7, 1_000, 1_003, 3_600_000)]
    a, b = world.add(1, *times), world.add(2, T0_MS + 500)
    async with world.turning():
        await asyncio.sleep(4_000)
    assert b.ticks == [T0_MS + 500]
    assert a.ticks == times


async def test_an_earlier_expiry_set_from_outside_shortens_the_sleep(world: World) -> None:
    state = world.add(1, T0_MS + 60_000)
    async with world.turning():
        await asyncio.sleep(10)
        state.times.insert(0, T0_MS + 10_500)
        world.hand.apply([(1, hint())])
        await asyncio.sleep(100)
    assert state.ticks == [T0_MS + 10_500, T0_MS + 60_000]


async def test_a_time_that_was_given_up_costs_no_visit(world: World) -> None:
    state = world.add(1, T0_MS + 1_000)
    async with world.turning():
        await asyncio.sleep(0.1)
        state.times = [T0_MS + 5_000]
        world.hand.post(1, hint())
        await asyncio.sleep(10)
    assert state.ticks == [T0_MS + 5_000]


async def test_times_that_were_given_up_do_not_pile_up(world: World) -> None:
    state = world.add(1)
    async with world.turning():
        for number in range(10_000):
            state.times = [T0_MS + 3_600_000 + number]
            world.hand.post(1, hint())
            await asyncio.sleep(0.003)
        assert len(world.hand._times) <= 2 * STALE_TIMES


async def test_of_all_that_happens_to_a_shard_in_a_visit_the_next_one_is_planned_once(world: World) -> None:
    state = world.add(1)
    planned: list[tuple[int, int]] = []

    def next_ms(now_ms: int) -> int:
        planned.append((len(state.seen), now_ms))
        return NEVER_MS

    def carry(effects: list[Effect]) -> None:
        if len(state.seen) < 3:
            world.hand.apply([(1, hint())])
        world.late_ms += 5  # what is carried out takes its time

    state.next_ms = next_ms  # type: ignore[method-assign]
    state.reply = [Publish([])]
    world.carry = carry
    async with world.turning():
        await asyncio.sleep(0.01)
        assert len(state.seen) == 3, "a tick, and what it led to, and what that led to"
        assert planned == [(3, state.seen[-1][1])], "a time between the visit and now must not be passed over"
        world.hand.apply([(1, hint())])
        assert planned[1:] == [(4, state.seen[-1][1])]


async def test_a_shard_that_always_has_work_left_does_not_stop_the_others_nor_the_clock(world: World) -> None:
    busy, calm = world.add(1), world.add(2, T0_MS + 1_000)
    async with world.turning():
        await asyncio.sleep(0.01)
        busy.next_ms = lambda now_ms: now_ms  # type: ignore[method-assign]
        world.hand.post(1, hint())
        await asyncio.sleep(2)
    assert calm.ticks == [T0_MS + 1_000]
    assert 2 / ROUND_S * 0.9 <= len(busy.ticks) <= 2 / ROUND_S + 2


async def test_mail_that_makes_more_mail_does_not_hold_up_a_neighbour_or_the_timers(world: World) -> None:
    noisy, quiet, timed = world.add(1), world.add(2), world.add(3, T0_MS + 50)
    noisy.reply = [Publish([])]
    world.carry = lambda effects: bool(world.hand.post(1, hint()))
    for _ in range(2 * SLICE_EVENTS):
        world.hand.post(1, hint())
    async with world.turning():
        await asyncio.sleep(0.02)
        world.hand.post(2, hint())
        await asyncio.sleep(0.1)
        noisy.reply = []
    assert quiet.seen[-1][1] <= T0_MS + 25
    assert timed.ticks == [T0_MS + 50]


async def test_the_loop_gets_a_turn_after_each_slice(world: World) -> None:
    state = world.add(1)
    others = [world.add(shard) for shard in range(2, 40)]
    for shard in range(1, 40):
        for _ in range(SLICE_EVENTS // 4):
            world.hand.post(shard, hint())
    async with world.turning():
        most = before = 0
        while len(state.seen) + sum(len(other.seen) for other in others) < 39 * (SLICE_EVENTS // 4 + 1):
            await asyncio.sleep(0)
            applied = len(state.seen) + sum(len(other.seen) for other in others)
            most, before = max(most, applied - before), applied
        assert most <= SLICE_EVENTS + SLICE_EVENTS // 4 + 1


async def test_the_loop_gets_a_turn_among_many_expiries(world: World) -> None:
    states = [world.add(shard, T0_MS + 1_000) for shard in range(3 * SLICE_EVENTS)]
    turns = []
    async with world.turning():
        await asyncio.sleep(0.99)
        asyncio.get_running_loop().call_later(0.0105, lambda: turns.append(sum(bool(state.ticks) for state in states)))
        await asyncio.sleep(0.1)
    assert all(state.ticks == [T0_MS + 1_000] for state in states)
    assert turns
    assert turns[0] <= SLICE_EVENTS


async def test_a_full_mailbox_drops_hints_and_nothing_else(world: World) -> None:
    state = world.add(1)
    tasks = [make_task(number, Queue(1, "default", "q")) for number in range(10)]
    hints = HINTED // len(tasks)
    for _ in range(hints):
        assert world.hand.post(1, Submitted(tasks, T0_MS, 1))
    assert not world.hand.post(1, Submitted(tasks, T0_MS, 1))
    assert world.hand.dropped_hints == len(tasks)
    assert world.hand.post(1, Ticked())
    async with world.turning():
        await asyncio.sleep(1)
        assert world.hand.post(1, Submitted(tasks, T0_MS, 1))
        await asyncio.sleep(1)
    assert len(state.seen) == hints + 3


async def test_it_is_full_while_many_ends_wait_to_be_read(world: World) -> None:
    state = world.add(1)
    outcome = Outcome(make_task(1, Queue(1, "default", "q")), 1, 1, Verdict.SUCCEEDED, T0_MS, T0_MS)
    for _ in range(2 * SLICE_EVENTS):
        world.hand.post(1, Ended([outcome] * (ENDS // SLICE_EVENTS // 2)))
        full = world.hand.full
    assert not full
    world.hand.post(1, Ended([outcome] * ENDS))
    assert world.hand.full
    seen = []
    world.hand._done = lambda: seen.append((len(state.seen), world.hand.full))
    async with world.turning():
        await asyncio.sleep(1)
    assert seen == [(SLICE_EVENTS, True), (2 * SLICE_EVENTS, True), (2 * SLICE_EVENTS + 2, False)]


async def test_ends_of_a_shard_that_went_keep_it_full_for_a_round_at_most(world: World) -> None:
    state = world.add(1)
    world.add(2)
    outcome = Outcome(make_task(1, Queue(1, "default", "q")), 1, 1, Verdict.SUCCEEDED, T0_MS, T0_MS)
    for _ in range(SLICE_EVENTS + 1):
        world.hand.post(1, Ended([outcome]))
    full = []

    def amid_a_round() -> None:
        if len(state.seen) == SLICE_EVENTS:
            world.hand.post(2, Ended([outcome] * ENDS))
            world.hand.remove(2)
            full.append(world.hand.full)

    world.hand._done = amid_a_round
    async with world.turning():
        await asyncio.sleep(1)
    assert full == [True]
    assert not world.hand.full


async def test_mail_for_a_shard_that_is_not_here_is_refused(world: World) -> None:
    assert not world.hand.post(1, hint())
    world.add(1)
    actor = world.hand.remove(1)
    assert not world.hand.post(1, hint())
    world.hand.apply([(1, hint())])
    async with world.turning():
        await asyncio.sleep(1)
    assert isinstance(actor.state, ShardDouble)
    assert actor.state.seen == []


async def test_a_shard_that_went_is_not_visited_and_its_successor_is(world: World) -> None:
    old = world.add(1, T0_MS + 1_000)
    async with world.turning():
        await asyncio.sleep(0.5)
        world.hand.remove(1)
        new = world.add(1, T0_MS + 2_000)
        await asyncio.sleep(5)
    assert old.ticks == []
    assert new.ticks == [T0_MS + 2_000]


async def test_a_shard_that_fails_takes_nobody_else_down(world: World) -> None:
    bad, good = world.add(1), world.add(2)
    world.hand.post(1, Ended([]))
    world.hand.post(1, hint())
    world.hand.post(2, hint())
    async with world.turning():
        await asyncio.sleep(1)
    [(shard, error)] = world.crashes
    assert shard == 1
    assert isinstance(error, ValueError)
    assert len(bad.seen) == 2
    assert len(good.seen) == 2


# --- what shards ask for


def said(number: int) -> list[Effect]:
    return [Answer(number)]


async def test_what_shards_ask_for_in_a_slice_is_carried_out_together_and_in_order(world: World) -> None:
    for shard in range(3):
        world.add(shard).reply = said(shard)
    async with world.turning():
        await asyncio.sleep(1)
    assert world.carried == [said(0) + said(1) + said(2)]
    assert world.done == 1


async def test_each_slice_is_carried_out_before_the_loop_gets_a_turn(world: World) -> None:
    states = [world.add(shard) for shard in range(2 * SLICE_EVENTS + 1)]
    for state in states:
        state.reply = said(state.shard)
    async with world.turning():
        while world.done < 3:
            await asyncio.sleep(0)
            assert sum(len(effects) for effects in world.carried) == sum(len(state.seen) for state in states)
    assert [len(effects) for effects in world.carried] == [SLICE_EVENTS, SLICE_EVENTS, 1]


async def test_a_long_mail_of_one_shard_is_cut_into_slices(world: World) -> None:
    state = world.add(1)
    state.reply = said(1)
    events = [hint(number) for number in range(2 * SLICE_EVENTS)]
    for event in events:
        world.hand.post(1, event)
    async with world.turning():
        await asyncio.sleep(1)
    assert [event for event, _ in state.seen[1:]] == events
    assert max(len(effects) for effects in world.carried) == SLICE_EVENTS


async def test_a_shard_that_fails_in_a_slice_leaves_what_was_asked_for_before_and_after(world: World) -> None:
    first, bad, last = (world.add(shard) for shard in range(3))
    for state in (first, bad, last):
        state.reply = said(state.shard)
    world.hand.post(1, Ended([]))
    seen: list[object] = []
    world.carry = seen.extend
    crash = world.hand._crashed

    def crashed(shard: int, error: Exception) -> None:
        seen.append(shard)
        crash(shard, error)

    world.hand._crashed = crashed
    async with world.turning():
        await asyncio.sleep(1)
    assert seen == [*said(0), *said(1), 1, *said(2)], "what was said before it failed is true"
    assert world.done == 1


async def test_a_lost_shard_gets_no_more_of_its_mail_and_its_last_words_are_heard_first(world: World) -> None:
    lost, other = world.add(1), world.add(2)
    lost.reply, other.reply = said(1), said(2)
    lost.lost = True
    world.hand.post(1, hint())
    async with world.turning():
        await asyncio.sleep(1)
    assert len(lost.seen) == 1
    assert world.lost == [1]
    assert world.carried == [said(1), said(2)]
    assert len(other.seen) == 1


async def test_mail_that_a_shard_did_not_read_is_given_back(world: World) -> None:
    """Whether it waited, or lay behind the event that the shard failed of."""
    world.add(0)
    world.hand.post(0, hint(1))
    world.hand.remove(0)
    assert world.late == [TICK, hint(1)]
    world.late.clear()
    world.add(1)
    for event in (hint(2), POISON, hint(3)):
        world.hand.post(1, event)
    async with world.turning():
        await asyncio.sleep(0.01)
    assert world.late == [POISON, hint(3)]


async def test_what_went_while_its_mail_was_cut_into_slices_is_given_back_too(world: World) -> None:
    world.add(0)
    world.add(1)
    for shard in (0, 1):
        for at_ms in range(SLICE_EVENTS - 1):
            world.hand.post(shard, hint(at_ms))
    async with world.turning():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen = len(world.hand.actors[1].state.seen)  # type: ignore[attr-defined]
        world.hand.remove(1)
        await asyncio.sleep(0.01)
    assert len(world.late) == SLICE_EVENTS - seen


async def test_what_is_applied_at_once_is_carried_out_at_once_and_together(world: World) -> None:
    for shard in range(2):
        world.add(shard).reply = said(shard)
    world.hand.apply([(0, hint()), (7, hint()), (1, hint())])
    assert world.carried == [said(0) + said(1)]
    assert world.done == 0, "whoever applies knows"


async def test_who_is_told_of_a_slice_may_apply_events_in_it(world: World) -> None:
    state = world.add(1)
    state.reply = said(1)
    world.hand._done = lambda: world.hand.apply([(1, hint(7))])
    async with world.turning():
        await asyncio.sleep(1)
    assert [event for event, _ in state.seen] == [Ticked(), hint(7)]
    assert world.carried == [said(1), said(1)]


async def test_an_expiry_just_after_a_round_waits_for_the_next_one(world: World) -> None:
    state = world.add(1, T0_MS + 101)
    async with world.turning():
        await asyncio.sleep(0.1)
        world.hand.post(1, hint(1))
        await asyncio.sleep(0.0001)
        world.hand.post(1, hint(2))
        await asyncio.sleep(0.1)
    assert state.ticks == [T0_MS + 102]
    assert [now_ms for event, now_ms in state.seen if event == hint(2)] == [T0_MS + 102], "mail goes with it"


async def test_what_carrying_out_raises_ends_the_run(world: World) -> None:
    world.add(1).reply = said(1)

    def fail(effects: list[Effect]) -> None:
        raise LookupError

    world.carry = fail
    with pytest.raises(LookupError):
        await world.hand.run()
    assert world.crashes == []
