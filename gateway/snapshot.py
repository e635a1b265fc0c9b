"""What a new subscription is shown first: the tasks of its topic as of one number of the hub.

Once other nodes tell of the topic, a number is noted and the tables are read, laid over with what the owners know
(running tasks are mostly memory only), then with every change published since, the higher version winning. So what a
snapshot shows never goes back, neither against events that were told before it nor by those that follow its cursor.

A snapshot of a queue or of labels holds the live tasks, in order of their next due time: a task that is missing from
one that is not truncated has ended. A task's own snapshot holds it in any state, and is empty when there is no such
task.
"""

import asyncio
from dataclasses import dataclass

from actors.core.changes import version
from actors.core.events import Change
from actors.core.live import Live
from actors.core.task import TERMINAL, Phase, State
from actors.ports.reader import ALL, Narrow, TaskRow
from gateway.context import Gateway
from gateway.topics import Labelled, Topic, concerns


@dataclass(slots=True)
class Snapshot:
    """Tasks of a topic by id, as of number `seq`."""

    topic: Topic
    tasks: dict[str, Change]
    truncated: bool
    seq: int

    def lay_over(self, changes: list[Change], tenant: str, most: int) -> None:
        """Changes that were published while the tables were read."""
        for change in changes:
            if change.queue.tenant != tenant or not concerns(self.topic, change):
                continue
            shown = self.tasks.get(change.id)
            if shown is not None:
                if change.version > shown.version:
                    self.tasks[change.id] = change
            elif change.state not in TERMINAL or self.topic == change.id:
                self._add(change, most)
        self.seq += len(changes)

    def _add(self, change: Change, most: int) -> None:
        if len(self.tasks) < most:
            self.tasks[change.id] = change
        else:
            self.truncated = True


async def read_snapshot(gateway: Gateway, topic: Topic, tenant: str, most: int, scan: int) -> Snapshot | None:
    """The snapshot as of the hub's present number when it returns; None: too much happened meanwhile to be sure.

    At most `most` tasks; changes are laid over `scan` at a time. Raises what the reader raises.
    """
    hub = gateway.hub
    await hub.interest.told(topic)
    async with hub.readers:
        seq = hub.seq
        rows = await _rows(gateway, topic, tenant, most)
    live = await gateway.node.look([row.id for row in rows[:most]])
    shown = {row.id: as_change(row, live.get(row.id)) for row in rows[:most]}
    snapshot = Snapshot(topic, shown, len(rows) > most, seq)
    while hub.has(snapshot.seq):
        snapshot.lay_over(hub.after(snapshot.seq, scan), tenant, most)
        if snapshot.seq == hub.seq:
            return snapshot
        await asyncio.sleep(0)
    return None


async def _rows(gateway: Gateway, topic: Topic, tenant: str, most: int) -> list[TaskRow]:
    if isinstance(topic, str):
        row = await gateway.reader.get(tenant, topic)
        return [] if row is None else [row]
    queue, narrow = (topic.queue, Narrow(topic.text)) if isinstance(topic, Labelled) else (topic[1], ALL)
    return await gateway.reader.page(tenant, queue, (State.SCHEDULED,), None, most + 1, narrow)


def as_change(row: TaskRow, live: Live | None) -> Change:
    """A row, with its owner's knowledge of the attempt that runs, as the change that made it so.

    A stored claim means running, whether its owner is here or not. An owner that is ahead of the row and does not run
    it has published why, so that the row's word is good enough: it is laid over.
    """
    if live is not None and live.rev >= row.rev and live.runs:
        shown = version(live.rev, live.step)
        return _change(row, State.RUNNING, shown, live.started_ms, live.attempt, live.lateness_ms)
    claimed = row.claim_ms is not None
    state = State.RUNNING if claimed else row.state
    known = live is not None and live.rev == row.rev and live.phase != Phase.GONE
    step = live.step if live is not None and known else int(claimed)
    return _change(row, state, version(row.rev, step), _since_ms(row), row.attempt, row.lateness_ms)


def _change(row: TaskRow, state: State, version: int, at_ms: int, attempt: int, lateness_ms: int | None) -> Change:
    return Change(
        id=row.id,
        queue=row.queue,
        state=state,
        attempt=attempt,
        version=version,
        at_ms=at_ms,
        schedule_ms=row.schedule_ms,
        due_ms=row.due_ms,
        labels=row.labels,
        status=row.last_status,
        error=row.last_error,
        lateness_ms=lateness_ms,
    )


def _since_ms(row: TaskRow) -> int:
    if row.finish_ms is not None:
        return row.finish_ms
    if row.last_started_ms is not None:
        return row.last_started_ms + (row.last_duration_ms or 0)
    return row.accept_us // 1000
