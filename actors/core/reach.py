"""How far a shard's memory claims to hold the tables, and how many tasks it has within that: the claim can be checked.

Whoever counts the rows within a reach, after it was told, must not find more than `entries`: a row too many is a task
that nothing has armed. Tasks of the last moments are left out (`before_us`): the word of them may be on its way.

Promises: bounded. A shard that holds the beginnings of more than ENDS queues claims less: up to the nearest of their
ends.
"""

import msgspec

from actors.core.events import LAST_ID
from actors.core.holding import Holding
from actors.core.share import Key

ENDS = 16


class Reach(msgspec.Struct, frozen=True, array_like=True):
    """What one shard's memory claims to hold."""

    shard: int
    until_ms: int
    """Every row that is due up to then, but for the queues in `ends`."""
    entries: int
    """Tasks in memory within it."""
    ends: dict[int, Key] = {}
    """Queue -> the key (due_ms, id) up to which its rows are held, where that ends earlier."""


def reach(holding: Holding, before_us: int) -> Reach:
    """What this holding claims, and what it has of the tasks that were accepted up to `before_us`."""
    until_ms = holding.sure_ms
    last = (until_ms, LAST_ID)
    ends = {queue_id: share.after for queue_id, share in holding.spilled.items() if share.after and share.after < last}
    if len(ends) > ENDS:
        until_ms, ends = min(due_ms for due_ms, _ in ends.values()) - 1, {}
    known = holding.known.values()
    if ends:
        held = (task for task in known if (task.due_ms, task.id) <= ends.get(task.queue.id, (until_ms, LAST_ID)))
    else:
        held = (task for task in known if task.due_ms <= until_ms)
    return Reach(holding.shard, until_ms, sum(task.accept_us <= before_us for task in held), ends)
