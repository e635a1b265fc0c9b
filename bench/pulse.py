"""A pulse: webhooks that come due in a few shards at an even pace, so that a pause of one of them can be read off its
calls. Other traffic falls on a shard about once a second, and says little of how long nothing was fired there.

Promises: at rest, two calls in one shard are PERIOD_MS apart; so a pause is measured as too long, by PERIOD_MS at most,
and never as too short.
"""

import random
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from time import time

from actors.core.ids import keyed_id, shard_of
from bench.scripted import Call
from bench.traffic import RETRY, Traffic
from bench.verdict import epoch_of
from bench.work import SHARDS, rfc3339

PROBED = range(8, SHARDS, 16)
"""The shards that have a pulse."""
PERIOD_MS = 100
RATE_HZ = len(PROBED) * 1e3 / PERIOD_MS
LEAD_MS = 4_000
"""So far ahead are they submitted: longer than the slowest submit takes, or one that was sent again."""
TENANT = "default"


@dataclass(slots=True)
class Pulse(Traffic):
    """Use as traffic, at RATE_HZ in batches of len(PROBED)."""

    _begin_ms: float = 0.0
    _tries: "count[int]" = field(default_factory=count)
    _keys: dict[int, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    """Shard -> idempotency keys whose tasks lie there."""

    def _item(self, script: str, roll: random.Random) -> dict[str, object]:
        beat, place = divmod(self._number, len(PROBED))
        self._begin_ms = self._begin_ms or time() * 1e3 + LEAD_MS
        self._number += 1
        return {
            "queue": self.plan.queue,
            "http": {"url": f"{self.plan.url}/{script}"},
            "payload": {"number": self._number},
            "schedule_time": rfc3339(self._begin_ms + beat * PERIOD_MS),
            "dispatch_deadline": 2,
            "retry": RETRY,
            "idempotency_key": self._key(PROBED[place]),
        }

    def _key(self, shard: int) -> str:
        """One that was not used: an id is a hash of its key, and ends with where it lies."""
        while not self._keys[shard]:
            key = f"{self.plan.queue}-{next(self._tries)}"
            found = shard_of(keyed_id(TENANT, key, self.plan.queue, None), SHARDS)
            if found in PROBED:
                self._keys[found].append(key)
        return self._keys[shard].popleft()


def pauses_ms(calls: Mapping[str, Sequence[Call]], ids: Mapping[str, object]) -> list[float]:
    """Of each change of owner of a shard: from the last call before it to the first under the new epoch. `ids`: those
    of the pulse.
    """
    by_shard: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for task_id in ids:
        by_shard[shard_of(task_id, SHARDS)] += [
            (call.arrived_ms, epoch_of(call.fence)) for call in calls.get(task_id, ())
        ]
    found = []
    for some in by_shard.values():
        some.sort()
        last_ms, newest = some[0] if some else (0.0, 0)
        for at_ms, epoch in some:
            if epoch > newest:
                found.append(at_ms - last_ms)
                newest = epoch
            last_ms = at_ms
    return found
