"""The guards of the protocol, and how to take each of them away: the simulation has to notice (docs/simulation.md).

Each is a patch of the service or of its twin of the database, under the name of what it takes away.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from actors import clock, membership, probe
from actors.core import commands, members, settle, shard
from actors.core.ahead import Ahead
from actors.core.errors import Unavailable
from actors.core.events import Close, Command, Ended, Loaded, Outcome, Parted, Probed, Record, Submitted
from actors.core.holding import Holding
from actors.core.inherited import Inherited
from actors.core.lease import Leases
from actors.core.shard import ShardState
from actors.core.task import Phase, State, Task
from actors.intake import Intake
from actors.ledger import Ledger
from actors.membership import Membership
from actors.ports.tasks import Accepted
from actors.pulling import Pulling
from storage.memory import MemoryDatabase, MemoryLeaseStore, MemoryLedgerStore, MemoryTaskStore
from storage.memory.rows import row_of
from tests.support.network import MemoryLinks
from tests.support.scripted import ScriptedDispatcher

Patch = Callable[[], AbstractContextManager[object]]


def _put(target: object, name: str, new: object) -> Patch:
    return lambda: mock.patch.object(target, name, new)


# --- writes

_apply = MemoryLedgerStore._apply
_tell = Intake._tell


def apply_any_revision(store: MemoryLedgerStore, boot: str, record: Record) -> bool:
    """As the ledger's statement would without `t.rev = u.rev`."""
    row = store._db.row(record.task.id)
    again = copy.copy(record)
    again.rev = record.rev if row is None else row.rev
    return _apply(store, boot, again)


async def send_once(ledger: Ledger, batch: list[Record]) -> None:
    """An outcome that is not known is taken for a success."""
    try:
        await ledger._store.write(ledger._boot(), batch)
    except Unavailable:
        pass
    ledger._tell(batch, {})


def accept_key_once(store: MemoryTaskStore, task: Task) -> Accepted | Exception:
    """Keyed accept without its second statement: what is finished is not looked at."""
    known = store._db.live.get(task.id)
    if known is None:
        store._db.live.put(row_of(task))
        return Accepted(new=True, same_request=True, state=State.SCHEDULED)
    return Accepted(new=False, same_request=known.key_hash == task.key_hash, state=known.state)


def tell_as_of_now(intake: Intake, fresh: list[Task], sent_ms: int) -> None:
    """A hint says when the answer to its commit came."""
    _tell(intake, fresh, intake._clock.now_ms())


# --- ownership

_beat = MemoryLeaseStore._beat


def condemn_blindly(store: MemoryLeaseStore, boot: str, beats: int, *, gone: bool) -> bool:
    """A verdict that does not name what it saw."""
    node = store._db.nodes.get(boot)
    if node is not None and not (gone and boot in store._db.sessions):
        node.up = False
    return not store._db.is_up(boot)


def condemn_twins(store: MemoryLeaseStore, boot: str, beats: int, *, gone: bool) -> bool:
    """A verdict for the sake of a name, whether there are sessions or not."""
    node = store._db.nodes.get(boot)
    if node is not None and node.beats == beats:
        node.up = False
    return not store._db.is_up(boot)


def sweep_any_epoch(store: MemoryLeaseStore, boot: str, shard: int, epoch: int) -> bool:
    """Whatever the epoch is by now."""
    return not store._db.is_up(store._db.shards[shard].owner) and store._db.is_up(boot)


def sweep_from_the_living(store: MemoryLeaseStore, boot: str, shard: int, epoch: int) -> bool:
    """Whoever owns it."""
    return store._db.shards[shard].epoch == epoch and store._db.is_up(boot)


def sweep_anything(store: MemoryLeaseStore, boot: str, shard: int, epoch: int) -> bool:
    """Neither is looked at."""
    return store._db.is_up(boot)


def sweep_when_dead(store: MemoryLeaseStore, boot: str, shard: int, epoch: int) -> bool:
    """Although it was declared dead itself."""
    row = store._db.shards[shard]
    return row.epoch == epoch and not store._db.is_up(row.owner)


def give_anything(store: MemoryLeaseStore, boot: str, shards: Mapping[int, tuple[int, str]]) -> set[int]:
    """A hand-over that does not look whose the shard is."""
    for one, (_, heir) in shards.items():
        store._take(heir, one)
    return set(shards)


def close_nothing(state: ShardState, event: Close, now_ms: int) -> list[Any]:
    """What is offered starts although the shard is on its way."""
    return [Parted(state.shard)]


def rise(store: MemoryLeaseStore, boot: str) -> object:
    """The dead that beat live again."""
    if boot in store._db.nodes:
        store._db.nodes[boot].up = True
    return _beat(store, boot)


@contextmanager
def read_before_taking() -> Any:
    """The first page of a shard is as of the moment in which its sweep was sent."""
    seen: dict[tuple[int, int], list[Any]] = {}
    sweep, page = MemoryLeaseStore.sweep, MemoryTaskStore._page

    async def sweep_late(store: MemoryLeaseStore, boot: str, orphans: dict[int, int]) -> dict[int, int]:
        for one, epoch in orphans.items():
            seen.setdefault((one, epoch + 1), [copy.copy(row) for row in store._db.live.of(one)])
        return await sweep(store, boot, orphans)

    def page_early(store: MemoryTaskStore, asked: Any) -> Loaded:
        rows = seen.pop((asked.shard, asked.epoch), None) if asked.after_due_ms < 0 else None
        if rows is None:
            return page(store, asked)
        with mock.patch.object(store._db.live, "of", return_value=rows):
            return page(store, asked)

    with (
        mock.patch.object(MemoryLeaseStore, "sweep", sweep_late),
        mock.patch.object(MemoryTaskStore, "_page", page_early),
    ):
        yield


# --- what is over is not armed again

_submitted, _probed, _ended, _loaded = ShardState._submitted, ShardState._probed, ShardState._ended, Holding.loaded


def trust_old_pages(holding: Holding, answer: Loaded, now_ms: int) -> list[Task]:
    answer.page.asked_ms = now_ms
    return _loaded(holding, answer, now_ms)


def trust_old_finds(state: ShardState, event: Probed, now_ms: int) -> list[Any]:
    if event.asked_ms > state.born_ms:
        event.asked_ms = now_ms
    return _probed(state, event, now_ms)


def trust_finds_of_others(state: ShardState, event: Probed, now_ms: int) -> list[Any]:
    event.asked_ms = max(event.asked_ms, state.born_ms + 1)
    return _probed(state, event, now_ms)


def trust_hints_of_others(state: ShardState, event: Submitted, now_ms: int) -> list[Any]:
    event.epoch = state.epoch
    return _submitted(state, event, now_ms)


@contextmanager
def trust_old_reads() -> Any:
    """Pages and finds of any age."""
    with (
        mock.patch.object(Holding, "loaded", trust_old_pages),
        mock.patch.object(ShardState, "_probed", trust_old_finds),
    ):
        yield


# --- fences of outcomes


def complete_any(task: Task, state: State, command: Command) -> Outcome:
    """Whatever fence the completion bears."""
    outcome = command.outcome
    assert outcome is not None
    outcome.task = task
    return outcome


def end_any(state: ShardState, event: Ended, now_ms: int) -> list[Any]:
    """Whatever attempt of the task ended."""
    for outcome in event.outcomes:
        outcome.attempt, outcome.epoch = outcome.task.attempt, outcome.task.epoch
    return _ended(state, event, now_ms)


def written_if_running(dispatcher: ScriptedDispatcher, task: Task) -> bool:
    return task.phase is Phase.RUNNING


def written_if_leased(dispatcher: ScriptedDispatcher, task: Task) -> bool:
    return dispatcher._node.may_fire()


# --- ends that nobody knows


def claim_nothing(ahead: Ahead, tasks: Iterable[Task], now_ms: int) -> list[Record]:
    """An attempt is sent at once, and not written down."""
    return []


def lose_at_once(inherited: Inherited, task: Task) -> bool:
    """Whatever the queue says."""
    return task.claim_boot not in inherited._living


# --- what memory let go

_let_go = Holding.let_go


def forget_at_once(holding: Holding, task: Task, rev: int) -> None:
    """Nothing is left of it."""
    _let_go(holding, task, rev)
    del holding._recent[task.id]


# --- leases of workers

_goes_on, _lapse, _look = Inherited._goes_on, Leases.lapse, Pulling._look


def lose_leases(inherited: Inherited, task: Task, now_ms: int) -> bool:
    """Whoever takes a shard over takes the workers of the last owner for gone, too."""
    return not (task.pulled and task.due_ms != task.claim_ms) and _goes_on(inherited, task, now_ms)


def lapse_as_begun(leases: Leases, task: Task, now_ms: int) -> Record | None:
    """A lease ends when it was to end at first."""
    task.lease_ms = min(task.lease_ms, now_ms)
    return _lapse(leases, task, now_ms)


def ask_for_more(pulling: Pulling, queue: int) -> None:
    """What was asked for and has not come is not counted."""
    workers = pulling.workers
    assert workers is not None
    room = workers.room(queue) + sum(take.count for take in pulling._asked[queue].values())
    with mock.patch.object(workers, "room", return_value=room):
        _look(pulling, queue)


PATCHES: dict[str, Patch] = {
    "the ledger's owner and epoch": _put(MemoryDatabase, "owns", lambda *_: True),
    "the ledger's revision": _put(MemoryLedgerStore, "_apply", apply_any_revision),
    "looking up what was refused": _put(Ledger, "_flush", send_once),
    "the second statement of a keyed accept": _put(MemoryTaskStore, "_accept_key", accept_key_once),
    "a hint's time is that before the commit": _put(Intake, "_tell", tell_as_of_now),
    "a lease ends before its node may be dead": _put(membership, "T_STOP_MS", 1_000_000),
    "the lease": _put(Membership, "may_fire", lambda self: self.beaten.is_set()),
    "the lease before the request is written": _put(ScriptedDispatcher, "may_write", written_if_running),
    "the shard before the request is written": _put(ScriptedDispatcher, "may_write", written_if_leased),
    "clocks restart after a gap": _put(members, "GAP_MS", 1_000_000),
    "a verdict names the counter": _put(MemoryLeaseStore, "_condemn", condemn_blindly),
    "a twin's sessions": _put(MemoryLeaseStore, "_condemn", condemn_twins),
    "the dead stay dead": _put(MemoryLeaseStore, "_beat", rise),
    "a sweep names the epoch": _put(MemoryLeaseStore, "_is_free", sweep_any_epoch),
    "a sweep spares the living": _put(MemoryLeaseStore, "_is_free", sweep_from_the_living),
    "a sweep names the epoch and spares the living": _put(MemoryLeaseStore, "_is_free", sweep_anything),
    "a sweep is for the living": _put(MemoryLeaseStore, "_is_free", sweep_when_dead),
    "a hand-over names owner and epoch": _put(MemoryLeaseStore, "_give", give_anything),
    "a shard is quiet before it is given": _put(ShardState, "_close", close_nothing),
    "attempts of the living are left alone": _put(Inherited, "_goes_on", lambda *_: False),
    "rows are read after the shard was taken": read_before_taking,
    "what was let go is remembered": _put(Holding, "let_go", forget_at_once),
    "old reads are refused": trust_old_reads,
    "old hints are not trusted": _put(shard, "HINT_MS", 1_000_000),
    "hints from before the shard was mine": _put(ShardState, "_submitted", trust_hints_of_others),
    "finds from before the shard was mine": _put(ShardState, "_probed", trust_finds_of_others),
    "the fence of a completion": _put(commands, "_completion", complete_any),
    "the attempt of an outcome": _put(ShardState, "_ended", end_any),
    "a frame names its boot": _put(MemoryLinks, "is_mine", lambda self, frame: True),
    "an answer is for the boot that asked": _put(Membership, "_is_over", lambda self, boot: False),
    "a late answer is no heartbeat": _put(membership, "BEAT_LIMIT_S", 1_000),
    "the allowance for drift": _put(clock, "DRIFT", 0.0),
    "the probe": _put(probe, "PROBE_LATE_MS", 1_000_000_000),
}
UNHEARD: dict[str, Patch] = {
    "claims ahead of the send": _put(Ahead, "claim", claim_nothing),
    "holding what nobody knows": _put(settle, "_hold", settle._unsent),
    "waiting for the deadline": _put(Inherited, "_is_lost", lose_at_once),
}
"""Those that only histories with such queues miss."""
LEASED: dict[str, Patch] = {
    "a late result is refused by its fence": _put(commands, "_completion", complete_any),
    "a taken-over lease has a fresh period": _put(Inherited, "_goes_on", lose_leases),
    "an extended lease ends later": _put(Leases, "lapse", lapse_as_begun),
    "what was asked for counts": _put(Pulling, "_look", ask_for_more),
}
"""Those that only histories with workers miss."""
CAUGHT: dict[str, int] = {
    "the ledger's owner and epoch": 9,
    "the ledger's revision": 14,
    "looking up what was refused": 1,
    "the second statement of a keyed accept": 0,
    "a lease ends before its node may be dead": 5,
    "the lease": 5,
    "the lease before the request is written": 6,
    "the shard before the request is written": 4,
    "clocks restart after a gap": 3,
    "a verdict names the counter": 44,
    "a twin's sessions": 1,
    "the dead stay dead": 1,
    "a sweep names the epoch and spares the living": 26,
    "a hand-over names owner and epoch": 93,
    "a shard is quiet before it is given": 2,
    "attempts of the living are left alone": 1,
    "what was let go is remembered": 12,
}
"""Guard -> a seed that misses it, as far as the service has not changed its timing since."""
