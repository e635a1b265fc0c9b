"""What a node does while there is nothing to do: next to nothing."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from actors.core.events import Effect, Event, Page
from actors.core.shard import ShardState
from actors.core.spec import Spec
from actors.hand import Hand, ShardActor
from actors.ledger import RESEND_S
from actors.probe import PROBE_S, PROBE_STEPS
from actors.reading import PAUSE_S, Reading
from tests.support.cluster import Cluster, Member, draft, submit, submit_some

SPAN_S = 1_200
PAGES = 40
"""A shard asks for the next stretch of its horizon every 30 s."""


RETRY_S = {"write": RESEND_S, "load": 1 / (1 / PAUSE_S + PROBE_STEPS / PROBE_S)}
"""How often each statement is sent again while the database is away; pages and the probe share theirs."""


class Visits:
    """Rounds of the hand, and events that it applied."""

    def __init__(self) -> None:
        self.rounds = 0
        self.events = 0


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Visits]:
    visits = Visits()
    called, apply = Hand._called, ShardState.apply

    def counted_round(hand: Hand, now_ms: int) -> Iterator[tuple[ShardActor, Sequence[Event]]]:
        visits.rounds += 1
        return called(hand, now_ms)

    def counted_apply(state: ShardState, event: Event, now_ms: int) -> list[Effect]:
        visits.events += 1
        return apply(state, event, now_ms)

    with monkeypatch.context() as patch:
        patch.setattr(Hand, "_called", counted_round)
        patch.setattr(ShardState, "apply", counted_apply)
        yield visits


async def idle_for_long(cluster: Cluster, member: Member, monkeypatch: pytest.MonkeyPatch) -> Visits:
    """What the hand does in twenty minutes, and that there is no more of it in the second half than in the first."""
    with counting(monkeypatch) as first:
        await asyncio.sleep(SPAN_S / 2)
    with counting(monkeypatch) as second:
        await asyncio.sleep(SPAN_S / 2)
    assert second.events <= first.events * 1.1
    first.rounds += second.rounds
    first.events += second.events
    return first


async def test_an_idle_node_costs_one_page_a_shard_every_half_minute(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await small.start()
    visits = await idle_for_long(small, member, monkeypatch)
    assert visits.rounds <= 4 * PAGES
    assert visits.events <= 8 * 2.1 * PAGES
    assert member.node.stats.probe_finds == 0


async def test_256_shards_are_visited_together(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    await cluster.start()
    await asyncio.sleep(60)
    with counting(monkeypatch) as visits:
        await asyncio.sleep(300)
    assert visits.rounds <= 16 * PAGES / 4
    assert visits.events <= 256 * 2.1 * PAGES / 4


@pytest.mark.parametrize("count", [100, 2_000])
@pytest.mark.parametrize("delay_ms", [None, 30_000])
async def test_a_backlog_that_nobody_takes_costs_no_visits(
    small: Cluster, monkeypatch: pytest.MonkeyPatch, count: int, delay_ms: int | None
) -> None:
    member = await small.start()
    queue = await member.queues.ensure("default", "pulled")
    for _ in range(count // 100):
        await submit(member, [draft(queue, spec=Spec(), delay_ms=delay_ms) for _ in range(100)])
    await asyncio.sleep(60)
    visits = await idle_for_long(small, member, monkeypatch)
    assert visits.rounds <= 8 * PAGES
    assert visits.events <= 8 * 3.2 * PAGES


async def test_a_paused_backlog_of_webhooks_costs_no_visits_and_no_reads(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await small.start()
    await member.queues.ensure("default", "emails")
    for row in small.database.queues.values():
        row.paused, row.version = True, 1
    small.database.settings_version += 1
    await asyncio.sleep(1)
    ids = await submit_some(member, 12_000)
    await asyncio.sleep(60)
    sent = len(member.wire.sent)
    loads = 0
    load = Reading.load

    def counted(reading: Reading, page: Page) -> None:
        nonlocal loads
        loads += 1
        load(reading, page)

    monkeypatch.setattr(Reading, "load", counted)
    with counting(monkeypatch) as visits:
        await asyncio.sleep(600)
    assert visits.rounds <= 3 * PAGES
    assert member.wire.sent[sent:].count("payloads") == 0
    assert loads <= 8 * PAGES / 2 + 8
    assert small.runs == []
    for row in small.database.queues.values():
        row.paused, row.version = False, 2
    small.database.settings_version += 1
    await small.ended(ids)
    assert member.node.stats.probe_finds == 0


async def test_a_database_that_hangs_for_minutes_does_not_set_the_hand_spinning(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await small.start()
    await asyncio.sleep(10)
    member.wire.hang()
    with counting(monkeypatch) as visits:
        await asyncio.sleep(600)
    assert visits.events < 1_000


async def test_a_database_that_is_away_for_minutes_is_not_asked_in_a_loop(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = await small.start()
    await submit_some(member, 100, delay_ms=1_000)
    await asyncio.sleep(10)
    await submit_some(member, 100, delay_ms=700)
    member.wire.away = True
    sent = len(member.wire.sent)
    with counting(monkeypatch) as visits:
        await asyncio.sleep(600)
    statements = member.wire.sent[sent:]
    for name in set(statements):
        assert statements.count(name) <= 600 / RETRY_S.get(name, 0.5) * 1.05, name
    assert visits.rounds < 2.1 * 600
    assert visits.events < 8 * 2 * 2.1 * 600
