"""One webhook each, against a target on a real socket."""

import asyncio
import errno
import gzip
import os
import socket
import tracemalloc

import pytest

from actors.core.events import Verdict
from actors.core.task import Phase
from gateway.reply import MAX_RESULT_BYTES
from gateway.webhook import AGENT
from tests.support.dispatch import NOW_MS, FakeNode, courier, deliver, webhook
from tests.support.raw_target import OK, Exchange, answers, hangs, raw_target, says


async def test_a_success_with_a_json_result() -> None:
    async with raw_target(answers(200, "content-type: application/json", body=b'{"sum":3}')) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.status, outcome.result, outcome.error) == (
        Verdict.SUCCEEDED,
        200,
        b'{"sum":3}',
        None,
    )
    assert (outcome.epoch, outcome.attempt) == (5, 2)
    assert (outcome.started_ms, outcome.ended_ms) == (NOW_MS, NOW_MS)


async def test_an_empty_answer_has_no_result() -> None:
    async with raw_target(says(b"HTTP/1.1 204 No Content\r\n\r\n")) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.status, outcome.result) == (Verdict.SUCCEEDED, 204, None)


async def test_the_request_as_it_goes_over_the_wire() -> None:
    async with raw_target(says(OK)) as target:
        task = webhook(target.url("/a/b?c=d%20e"), b'{"n":1}', headers={"X-App": "yes", "Authorization": "Bearer t"})
        await deliver(task)
        (exchange,) = target.exchanges
    assert exchange.body == b'{"n":1}'
    assert exchange.lines == [
        "POST /a/b?c=d%20e HTTP/1.1",
        f"Host: 127.0.0.1:{target.port}",
        "X-App: yes",
        "Authorization: Bearer t",
        f"user-agent: {AGENT}",
        "content-type: application/json",
        f"webhook-id: {task.id}",
        "webhook-timestamp: 1790000000",
        "ringwheel-attempt: 2",
        "ringwheel-fence: 00000001.0000000005.000002",
        "ringwheel-queue: emails",
        "ringwheel-schedule-time: 2026-09-21T14:13:20.123Z",
        "content-length: 7",
    ]


@pytest.mark.parametrize(
    ("method", "length"),
    [("GET", None), ("HEAD", None), ("OPTIONS", None), ("DELETE", "0"), ("POST", "0"), ("PUT", "0")],
)
async def test_without_payload_there_is_no_body(method: str, length: str | None) -> None:
    async with raw_target(says(OK)) as target:
        outcome = await deliver(webhook(target.url(), None, method=method))
        (exchange,) = target.exchanges
    assert outcome.verdict is Verdict.SUCCEEDED
    assert exchange.headers.get("content-length") == length
    assert "content-type" not in exchange.headers


@pytest.mark.parametrize("size", [1, 32 * 1024, 32 * 1024 + 1, 256 * 1024])
async def test_a_payload_of_any_size_arrives_whole(size: int) -> None:
    payload = os.urandom(size)
    async with raw_target(says(OK)) as target:
        outcome = await deliver(webhook(target.url(), payload, content_type="application/x-thing"))
        (exchange,) = target.exchanges
    assert outcome.verdict is Verdict.SUCCEEDED
    assert exchange.body == payload
    assert exchange.headers["content-type"] == "application/x-thing"


async def test_500_is_a_failure_with_a_roll_of_the_dice() -> None:
    async with raw_target(answers(500, body=b"trace")) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.FAILED, 500, "HTTP 500")
    assert (outcome.result, outcome.retry_after_ms) == (None, None)
    assert 0 <= outcome.jitter < 1


@pytest.mark.parametrize(
    ("status", "text", "wish_ms"), [(429, "7", 7_000), (503, "Mon, 21 Sep 2026 14:14:20 GMT", 59_877)]
)
async def test_retry_after_is_passed_on(status: int, text: str, wish_ms: int) -> None:
    async with raw_target(answers(status, f"retry-after: {text}")) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.retry_after_ms) == (Verdict.FAILED, wish_ms)


async def test_410_and_the_never_header_end_the_task() -> None:
    for script in (answers(410), answers(400, "ringwheel-retry: never")):
        async with raw_target(script) as target:
            outcome = await deliver(webhook(target.url()))
        assert outcome.verdict is Verdict.NEVER
        assert outcome.error == f"HTTP {outcome.status}"


async def test_202_with_later_is_later() -> None:
    async with raw_target(answers(202, "ringwheel-complete: later", body=b"ok")) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.status, outcome.result) == (Verdict.LATER, 202, None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_not_followed(status: int) -> None:
    async with raw_target(answers(status, "location: /elsewhere")) as target:
        outcome = await deliver(webhook(target.url()))
        assert [exchange.lines[0] for exchange in target.exchanges] == ["POST /hook HTTP/1.1"]
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.FAILED, status, f"HTTP {status}")


async def test_a_target_that_hangs_times_out() -> None:
    async with raw_target(hangs) as target:
        outcome = await deliver(webhook(target.url(), deadline_ms=50))
        await target.cut.wait()
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.FAILED, None, "timed out after 0.05 s")


async def test_an_answer_that_drips_is_cut_at_the_deadline() -> None:
    async def drips(exchange: Exchange) -> None:
        await exchange.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await exchange.answer(b".")
            await asyncio.sleep(0.005)

    async with raw_target(drips) as target:
        outcome = await deliver(webhook(target.url(), deadline_ms=60))
    assert (outcome.verdict, outcome.status, outcome.result) == (Verdict.FAILED, 200, None)
    assert outcome.error == "timed out after 0.06 s"


async def test_a_connection_closed_before_the_answer() -> None:
    async def closes(exchange: Exchange) -> None:
        exchange.writer.close()

    async with raw_target(closes) as target:
        outcome = await deliver(webhook(target.url()))
        assert target.connections == 1
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.FAILED, None, "connection closed")


async def test_an_idempotent_method_is_not_sent_twice_by_itself() -> None:
    async def closes(exchange: Exchange) -> None:
        exchange.writer.close()

    async with raw_target(closes) as target:
        outcome = await deliver(webhook(target.url(), method="PUT"))
        assert len(target.exchanges) == 1
    assert outcome.error == "connection closed"


async def test_a_connection_closed_in_mid_answer() -> None:
    async def stops(exchange: Exchange) -> None:
        await exchange.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        exchange.writer.close()

    async with raw_target(stops) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.FAILED, 200, "connection closed in mid-answer")


async def test_what_breaks_after_the_head_of_a_failure_does_not_change_it() -> None:
    async def stops(exchange: Exchange) -> None:
        await exchange.answer(b"HTTP/1.1 410 Gone\r\ncontent-length: 100\r\n\r\nhalf")
        exchange.writer.close()

    async with raw_target(stops) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.error) == (Verdict.NEVER, "HTTP 410")


@pytest.mark.parametrize("size", [MAX_RESULT_BYTES, MAX_RESULT_BYTES + 1])
async def test_a_result_up_to_the_limit_is_kept(size: int) -> None:
    async with raw_target(answers(200, body=b"x" * size)) as target:
        outcome = await deliver(webhook(target.url()))
    assert outcome.verdict is Verdict.SUCCEEDED
    assert outcome.result == (b"x" * size if size <= MAX_RESULT_BYTES else None)


@pytest.mark.parametrize("framing", ["content-length: 1073741824", "transfer-encoding: chunked"])
async def test_an_answer_of_a_gigabyte_is_cut_off_and_costs_no_memory(framing: str) -> None:
    block = b"10000\r\n" + b"z" * 65_536 + b"\r\n"
    sent = 0

    async def floods(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.answer(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        while sent < 1 << 30:
            await exchange.answer(block)
            sent += len(block)

    async with raw_target(floods) as target:
        tracemalloc.start()
        try:
            outcome = await deliver(webhook(target.url()))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        await target.cut.wait()
    assert (outcome.verdict, outcome.status, outcome.result) == (Verdict.SUCCEEDED, 200, None)
    assert peak < 8 << 20
    assert sent < 64 << 20


async def test_a_gzip_answer_is_not_decompressed() -> None:
    packed = gzip.compress(b"0" * 10_000_000)
    async with raw_target(answers(200, "content-encoding: gzip", body=packed)) as target:
        outcome = await deliver(webhook(target.url()))
        assert "accept-encoding" not in target.exchanges[0].headers
    assert outcome.result == packed


async def test_an_answer_that_is_not_http() -> None:
    async with raw_target(says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")) as target:
        outcome = await deliver(webhook(target.url()))
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.FAILED, None, "answer is not valid HTTP")


async def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        outcome = await deliver(webhook(f"http://127.0.0.1:{bound.getsockname()[1]}/"))
    assert (outcome.verdict, outcome.status, outcome.error) == (Verdict.FAILED, None, "connect refused")


async def test_a_target_that_does_not_speak_tls() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        outcome = await deliver(webhook(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
    assert (outcome.verdict, outcome.status) == (Verdict.FAILED, None)
    assert outcome.error is not None
    assert outcome.error.startswith("TLS handshake failed: ")


async def test_loopback_is_refused_unless_allowed() -> None:
    async with raw_target(says(OK)) as target:
        outcome = await deliver(webhook(target.url()), allow=())
        assert target.connections == 0
    assert (outcome.verdict, outcome.status) == (Verdict.NEVER, None)
    assert outcome.error == "target address 127.0.0.1 is not allowed (loopback)"


async def test_a_lease_that_ends_while_connecting_stops_the_request() -> None:
    received = asyncio.get_running_loop().create_future()
    node = FakeNode()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server, courier(node):
        node.lease = False
        node.offer([webhook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")])
        (outcome,) = await node.until(1)
        assert await received == b""
    assert (outcome.verdict, outcome.status, outcome.retry_after_ms) == (Verdict.UNSENT, None, None)
    assert outcome.error == "lease ended before the request was sent"


async def test_a_shard_that_is_lost_before_the_request_is_written_stops_it() -> None:
    node = FakeNode()
    async with raw_target(says(OK)) as target, courier(node):
        task = webhook(target.url())

        def lose_the_shard() -> bool:
            task.phase = Phase.GONE
            return True

        node.may_fire = lose_the_shard  # type: ignore[method-assign]
        node.offer([task])
        (outcome,) = await node.until(1)
        assert target.exchanges == []
    assert outcome.verdict is Verdict.UNSENT


async def test_a_lease_that_ended_stops_a_request_on_a_pooled_connection() -> None:
    node = FakeNode()
    async with raw_target(says(OK)) as target, courier(node):
        node.offer([webhook(target.url(), n=1)])
        await node.until(1)
        node.lease = False
        node.offer([webhook(target.url(), n=2)])
        outcomes = await node.until(2)
        assert (target.connections, len(target.exchanges)) == (1, 1)
    assert outcomes[1].verdict is Verdict.UNSENT


async def test_a_node_without_descriptors_uses_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("gateway.targets.TargetPolicy.socket", exhausted)
    outcome = await deliver(webhook("http://127.0.0.1:9/"))
    assert (outcome.verdict, outcome.retry_after_ms) == (Verdict.UNSENT, 1_000)


async def test_a_header_that_cannot_be_written_fails_its_task_only() -> None:
    node = FakeNode()
    async with raw_target(says(OK)) as target, courier(node):
        node.offer([webhook(target.url(), n=1, headers={"x-a": "1\r\nx-b: 2"}), webhook(target.url(), n=2)])
        outcomes = {outcome.task.id[-1]: outcome for outcome in await node.until(2)}
        assert len(target.exchanges) == 1
    assert outcomes["1"].verdict is Verdict.NEVER
    assert outcomes["2"].verdict is Verdict.SUCCEEDED


async def test_a_cookie_is_not_kept() -> None:
    node = FakeNode()
    async with raw_target(answers(200, "set-cookie: a=b; path=/")) as target, courier(node):
        for n in (1, 2):
            node.offer([webhook(target.url(), n=n)])
            await node.until(n)
        assert all("cookie" not in exchange.headers for exchange in target.exchanges)
