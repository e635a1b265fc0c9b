"""The tasks that all benchmarks submit: as HTTP bodies, and as the rows that they become."""

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from time import time

import msgspec

from actors.core import ids
from actors.core.codec import SpecCodec
from actors.core.spec import HttpTarget, Spec
from bench.load import post

HOUR_MS = 3_600_000
BATCH = 1_000
"""Tasks in a batch, and rows in a COPY of the floor."""

COLUMNS = (
    "schedule_ms", "due_ms", "accept_us", "queue_id", "budget", "shard", "id", "tenant", "spec", "payload",
)  # fmt: skip
SHARDS = 256

Row = tuple[int, int, int, int, int, int, str, str, bytes, bytes]


def payload(number: int) -> dict[str, object]:
    """What a task carries: about 130 bytes of JSON."""
    return {
        "order": number,
        "customer": f"c-{number % 10_000:06d}",
        "event": "invoice.created",
        "note": "Some words for a person to read, as such payloads have them.",
    }


def item(number: int, *, url: str | None, queue: str = "bench", **when: object) -> dict[str, object]:
    """One task as clients write it; a webhook when it has a `url`. `when`: schedule_time or delay; none = now."""
    target = {} if url is None else {"http": {"url": url}}
    return {"queue": queue, **when, **target, "payload": payload(number)}


def single(number: int, **fields: object) -> bytes:
    """`POST /v1/tasks` with one task; `fields` as for `item`."""
    return post("/v1/tasks", msgspec.json.encode(item(number, **fields)))  # type: ignore[arg-type]


def batch_of(items: Iterable[dict[str, object]]) -> bytes:
    """`POST /v1/tasks:batch` with these tasks."""
    return post("/v1/tasks:batch", msgspec.json.encode(list(items)))


def batches(count: int, **fields: object) -> Iterator[bytes]:
    """`count` tasks in batches, made one by one as they are needed; `fields` as for `item`."""
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        yield batch_of(item(number, **fields) for number in numbers)  # type: ignore[arg-type]


def rows(count: int, url: str | None) -> list[Row]:
    """The rows that `count` tasks due in an hour become; webhooks when there is a `url`."""
    now_ms = int(time() * 1e3)
    spec = SpecCodec().encode(Spec(http=None if url is None else HttpTarget(url)))
    at_ms = now_ms + HOUR_MS
    return [
        (
            at_ms, at_ms, now_ms * 1000 + number, 1, 5, ids.shard_of(task_id, SHARDS), task_id, "default", spec,
            msgspec.json.encode(payload(number)),
        )
        for number, task_id in enumerate(ids.new_ids(now_ms, os.urandom(count * ids.ENTROPY_BYTES), count))
    ]  # fmt: skip


def rfc3339(at_ms: float) -> str:
    """UTC with milliseconds, as the API takes times."""
    return datetime.fromtimestamp(at_ms / 1e3, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
