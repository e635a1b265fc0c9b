"""What a draft holds, and which requests count as the same."""

from collections.abc import Collection
from unittest.mock import ANY

import orjson
import pytest

from actors.core.codec import SpecCodec
from actors.core.draft import Draft
from actors.core.errors import Invalid
from actors.core.queue import Queue, QueueBook, QueueSettings
from actors.core.retry import RetryPolicy
from gateway import decode
from gateway.decode import QueueMissing, TaskDecoder
from tests.gateway.served import NOW_MS


class Store:
    """Makes queues until it has too many."""

    def __init__(self, book: QueueBook, most: int = 2) -> None:
        self.book, self.most = book, most

    async def ensure(self, tenant: str, name: str) -> Queue:
        if len(self.book) >= self.most:
            raise Invalid("too many queues", "/queue")
        return self.book.put(Queue(len(self.book) + 1, tenant, name))

    async def refresh(self) -> None: ...

    async def learn(self, numbers: Collection[int]) -> None: ...

    async def get(self, tenant: str, name: str) -> Queue | None:
        return self.book.by_name(tenant, name)

    async def page(self, tenant: str, after: str, limit: int) -> list[Queue]:
        raise NotImplementedError

    async def change(self, queue: Queue, version: int, settings: QueueSettings) -> Queue | None:
        raise NotImplementedError

    async def delete(self, queue: Queue) -> bool:
        raise NotImplementedError


@pytest.fixture
def decoder() -> TaskDecoder:
    book = QueueBook()
    book.put(Queue(1, "default", "default"))
    return TaskDecoder(book, Store(book), SpecCodec(), 1_000)


def read(decoder: TaskDecoder, key: str | None = None, **task: object) -> Draft:
    return decoder.read(orjson.dumps(task), "default", NOW_MS, key)


def test_an_empty_task_is_due_now_with_what_its_queue_says(decoder: TaskDecoder) -> None:
    draft = read(decoder)
    assert (draft.schedule_ms, draft.delay_ms, draft.payload, draft.labels, draft.key) == (None,) * 5
    assert (draft.spec.http, draft.spec.retry, draft.spec.ttl_ms, draft.spec.dispatch_deadline_ms) == (None,) * 4


@pytest.mark.parametrize("name", ["http", "retry", "ordering_key", "flow_control", "fairness_key", "labels", "delay"])
def test_null_is_the_same_as_leaving_it_out(decoder: TaskDecoder, name: str) -> None:
    assert read(decoder, **{name: None}).spec is read(decoder).spec


@pytest.mark.parametrize(
    ("retry", "policy"),
    [
        ({}, RetryPolicy()),
        ({"max_attempts": 1}, RetryPolicy(max_attempts=1)),
        ({"min_backoff": "2h"}, RetryPolicy(min_backoff_ms=7_200_000, max_backoff_ms=7_200_000)),
        ({"max_backoff": 0.5}, RetryPolicy(max_backoff_ms=500)),
        ({"max_doublings": 0}, RetryPolicy(max_doublings=0)),
        ({"max_retry_duration": "1d"}, RetryPolicy(max_retry_duration_ms=86_400_000)),
    ],
)
def test_retry_is_filled_up_with_the_defaults(
    decoder: TaskDecoder, retry: dict[str, object], policy: RetryPolicy
) -> None:
    assert read(decoder, retry=retry).spec.retry == policy


def test_limits_and_bytes(decoder: TaskDecoder) -> None:
    draft = read(decoder, dispatch_deadline="90s", ttl=1.5, payload_base64="AAE=", content_type="image/png; q=1")
    assert (draft.spec.dispatch_deadline_ms, draft.spec.ttl_ms) == (90_000, 1_500)
    assert (draft.payload, draft.spec.content_type) == (b"\x00\x01", "image/png; q=1")
    assert read(decoder, payload_base64="AAE=").spec.content_type == "application/octet-stream"
    assert read(decoder, payload_base64="").payload is None


def test_a_payload_is_kept_byte_by_byte(decoder: TaskDecoder) -> None:
    payload = b'{"b" : 1e300, "a": [1.50, null], "a": "\\u0000 \\"1e999", "1e999": 1e-999}'
    draft = decoder.read(b'{"payload": ' + payload + b"  }", "default", NOW_MS, None)
    assert draft.payload == payload
    assert read(decoder, payload=None).payload == b"null"


def test_tasks_of_one_kind_share_their_spec(decoder: TaskDecoder) -> None:
    one = read(decoder, http={"url": "http://a", "method": "POST"}, retry={"max_attempts": 5})
    again = read(decoder, http={"url": "http://a", "method": "POST"}, retry={"max_attempts": 5})
    otherwise = read(decoder, http={"method": "POST", "url": "http://a"}, retry={})
    assert one.spec is again.spec is otherwise.spec
    assert read(decoder, http={"url": "http://b"}).spec is not one.spec


def test_what_is_remembered_is_bounded(decoder: TaskDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "KEPT_SPECS", 3)
    drafts = [read(decoder, http={"url": f"http://a/{n}"}) for n in range(10)]
    long = read(decoder, http={"url": "http://a/" + "x" * 2_000, "headers": {"x-a": "y" * 100}})
    assert [draft.spec.http.url for draft in drafts if draft.spec.http] == [f"http://a/{n}" for n in range(10)]
    assert long.spec.http is not None
    assert len(decoder._specs) <= 3


def test_labels_are_one_text_whatever_their_order(decoder: TaskDecoder) -> None:
    assert read(decoder, labels={"b": "é", "a": ""}).labels == '{"a":"","b":"é"}'
    assert read(decoder, labels={}).labels is None


SAME: dict[str, object] = {
    "queue": "default",
    "delay": 5,
    "payload": 1,
    "labels": {"a": "b"},
    "http": {"url": "http://a"},
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"priority": 3}, True),
        ({"delay": "5s"}, True),
        ({"http": {"url": "http://a", "headers": {}}}, True),
        ({"delay": 6}, False),
        ({"payload": 2}, False),
        ({"labels": None}, False),
        ({"labels": {"a": "c"}}, False),
        ({"http": {"url": "http://b"}}, False),
        ({"retry": {"max_attempts": 1}}, False),
        ({"ttl": 9}, False),
    ],
)
def test_a_request_is_the_same_when_it_asks_for_the_same(
    decoder: TaskDecoder, change: dict[str, object], same: bool
) -> None:
    first, second = read(decoder, "k", **SAME), read(decoder, "k", **{**SAME, **change})
    assert first.key_hash is not None
    assert len(first.key_hash) == 16
    assert (first.key_hash == second.key_hash) is same


def test_a_delay_and_the_time_that_it_leads_to_are_not_the_same(decoder: TaskDecoder) -> None:
    at = read(decoder, "k", schedule_time="2026-09-21T14:13:25Z")
    assert at.schedule_ms == NOW_MS + 5_000
    assert at.key_hash != read(decoder, "k", delay=5).key_hash


def test_the_key_inside_goes_first(decoder: TaskDecoder) -> None:
    assert read(decoder, "outside", idempotency_key="inside").key == "inside"
    assert read(decoder, "outside").key == "outside"


async def test_a_queue_is_made_on_first_use_when_all_else_is_right(decoder: TaskDecoder) -> None:
    with pytest.raises(QueueMissing):
        read(decoder, queue="new")
    draft = await decoder.draft(b'{"queue":"new"}', "default", NOW_MS, None)
    assert (draft.queue.name, draft.queue.tenant, draft.queue.id) == ("new", "default", ANY)
    with pytest.raises(Invalid):
        await decoder.draft(b'{"queue":"newer"}', "default", NOW_MS, None)
