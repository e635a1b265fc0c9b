"""The ledger's way with outcomes that are not known, refusals, and shards that went."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from actors import ledger
from actors.core.errors import Invalid
from actors.core.events import Event, Record, Recorded, Refused, Verdict
from actors.core.queue import Queue
from actors.core.task import State
from actors.ledger import FLUSH_RECORDS, RESEND_S, Ledger
from storage.memory import Fault, MemoryDatabase, MemoryStores
from tests.actors.ports.worlds import own_all
from tests.support.builders import T0_MS, finish, make_outcome, make_task, move

BOOT = "boot-a"


class World:
    """A ledger over the memory twin, on a node that owns every shard under epoch 1 until told otherwise."""

    def __init__(self) -> None:
        self.database = MemoryDatabase(lambda: float(T0_MS))
        self.stores = MemoryStores(self.database, BOOT)
        self.link = self.stores.link
        self.told: list[tuple[int, Event]] = []
        self.refused = 0
        self.vacancies = 0
        self.dropped: list[Record] = []
        self.owns: Callable[[int, int], bool] = lambda shard, epoch: epoch == 1
        self.ledger = Ledger(
            self.stores.ledger,
            self.stores.tasks,
            boot=lambda: BOOT,
            owns=lambda shard, epoch: self.owns(shard, epoch),
            post=lambda shard, event: self.told.append((shard, event)),
            refused=self._refuse,
            vacant=self._have_room,
            dropped=self.dropped.extend,
        )
        self.queue: Queue

    def _refuse(self, count: int) -> None:
        self.refused += count

    def _have_room(self) -> None:
        self.vacancies += 1

    @property
    def recorded(self) -> list[str]:
        return [r.task.id for _, event in self.told if isinstance(event, Recorded) for r in event.records]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.queue = await world.stores.queues.ensure("default", "emails")
    await own_all(world.stores, BOOT)
    await world.stores.tasks.accept([make_task(n, world.queue, shard=n % 4) for n in range(5_000)])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(world.ledger.run())
        yield world
        running.cancel()


async def test_each_shard_hears_of_its_records(world: World) -> None:
    records = [finish(make_task(n, world.queue, shard=n % 4)) for n in range(8)]
    world.ledger.put(records)
    assert len(world.ledger) == 8
    await world.ledger.idle()
    assert [(shard, len(event.records)) for shard, event in world.told if isinstance(event, Recorded)] == [
        (0, 2),
        (1, 2),
        (2, 2),
        (3, 2),
    ]
    assert len(world.database.finished) == 8
    assert world.refused == 0


async def test_batches_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    write = world.stores.ledger.write

    async def counted(boot: str, records: list[object]) -> set[str]:
        sizes.append(len(records))
        return await write(boot, records)  # type: ignore[arg-type]

    monkeypatch.setattr(world.stores.ledger, "write", counted)
    world.ledger.put([finish(make_task(n, world.queue, shard=n % 4)) for n in range(5_000)])
    await world.ledger.idle()
    assert sizes == [FLUSH_RECORDS, FLUSH_RECORDS, 1_000]
    assert len(world.recorded) == 5_000


async def test_refusals_come_with_what_the_tables_say(world: World) -> None:
    stale, gone, fine = (make_task(n, world.queue, shard=n) for n in range(3))
    world.database.live.pop(gone.id)
    world.ledger.put([finish(stale, rev=7), finish(gone), finish(fine)])
    await world.ledger.idle()
    refused = {shard: event for shard, event in world.told if isinstance(event, Refused)}
    assert refused[0].found[0].task is not None
    assert refused[0].found[0].task.rev == 0
    assert refused[1].found[0].task is None
    assert world.recorded == [fine.id]
    assert world.refused == 2


@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("times", [1, 5])
async def test_an_unknown_outcome_is_sent_again_until_it_is_known(world: World, fault: Fault, times: int) -> None:
    for _ in range(times):
        world.link.fail_next("write", fault)
    tasks = [make_task(n, world.queue) for n in (0, 4)]
    world.ledger.put([finish(tasks[0]), move(tasks[1], due_ms=T0_MS + 5)])
    await world.ledger.idle()
    assert asyncio.get_running_loop().time() == pytest.approx(times * RESEND_S)
    [(_, event)] = world.told
    if fault is Fault.LOST:
        assert isinstance(event, Recorded)
    else:
        # committed the first time: the second is refused, and what the tables say is this node's own mark
        assert isinstance(event, Refused)
        assert [(found.task.rev, found.epoch) for found in event.found if found.task] == [(1, 1), (1, 1)]
    rows = [world.database.row(task.id) for task in tasks]
    assert [row.rev for row in rows if row is not None] == [1, 1]
    assert [row.state for row in rows if row is not None] == [State.SUCCEEDED, State.SCHEDULED]


async def test_a_look_up_of_refusals_that_fails_is_made_again(world: World) -> None:
    world.link.fail_next("find")
    world.ledger.put([finish(make_task(0, world.queue)), finish(make_task(1, world.queue, shard=1), rev=3)])
    await world.ledger.idle()
    kinds = sorted((shard, type(event).__name__) for shard, event in world.told)
    # the first record was committed by the first write; its own mark tells
    assert kinds == [(0, "Refused"), (1, "Refused")]
    assert world.database.finished.keys() == {make_task(0, world.queue).id}


async def test_records_of_a_shard_that_went_are_let_go(world: World) -> None:
    world.link.away = True
    world.ledger.put([finish(make_task(n, world.queue, shard=n % 4)) for n in range(8)])
    await asyncio.sleep(1)
    world.owns = lambda shard, epoch: shard == 2
    world.link.away = False
    await world.ledger.idle()
    assert [shard for shard, _ in world.told] == [2]
    assert [record.task.shard for record in world.dropped] == [0, 1, 3, 0, 1, 3]
    assert len(world.database.finished) == 2
    world.owns = lambda shard, epoch: False
    world.ledger.put([finish(make_task(40, world.queue))])
    await world.ledger.idle()
    assert len(world.database.finished) == 2


async def test_what_comes_while_the_outcome_is_unknown_waits_its_turn(world: World) -> None:
    world.link.fail_next("write", Fault.REPLY_LOST)
    world.ledger.put([finish(make_task(0, world.queue))])
    await asyncio.sleep(RESEND_S / 2)
    world.ledger.put([finish(make_task(4, world.queue))])
    await world.ledger.idle()
    assert [type(event) for _, event in world.told] == [Refused, Recorded]


@pytest.mark.parametrize("limit", ["WAITING_RECORDS", "WAITING_BYTES"])
async def test_it_is_full_until_what_waits_is_written(
    world: World, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, limit, 10)
    records = [finish(make_task(n, world.queue, shard=n % 4)) for n in range(5)]
    for record in records:
        record.outcome = make_outcome(record.task, Verdict.SUCCEEDED, result=b"ok")
    full = []
    world.ledger.put(records[:4])
    full.append(world.ledger.full)
    world.ledger.put(records[4:] + [finish(make_task(n, world.queue, shard=n % 4)) for n in range(5, 10)])
    full.append(world.ledger.full)
    await world.ledger.idle()
    full.append(world.ledger.full)
    assert full == [False, True, False]
    assert (len(world.ledger), world.vacancies) == (0, 1)


async def test_a_record_that_no_table_takes_is_left_alone_and_harms_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = world.stores.ledger.write
    bad = make_task(5, world.queue, shard=1)

    async def picky(boot: str, records: Sequence[Record]) -> set[str]:
        if any(record.task.id == bad.id for record in records):
            raise Invalid("no table takes it")
        return await write(boot, records)

    monkeypatch.setattr(world.stores.ledger, "write", picky)
    others = [make_task(n, world.queue, shard=n % 4) for n in range(4)]
    world.ledger.put([finish(task) for task in (*others[:2], bad, *others[2:])])
    await world.ledger.idle()
    assert sorted(world.recorded) == sorted(task.id for task in others)
    assert len(world.ledger) == 0
