"""No text of a user becomes a header, a line or a request that it should not be: seen by a raw socket.

Each case goes two ways: from the body of a request, through decoding; and straight to the courier, as a stored row of
another version of this program would.
"""

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from actors.core.codec import SpecCodec
from actors.core.errors import Invalid
from actors.core.events import Verdict
from actors.core.queue import Queue
from actors.core.spec import HttpTarget, Spec
from actors.core.task import Task
from gateway.decode import TaskDecoder
from gateway.problems import Problem
from storage.memory import MemoryDatabase, MemoryStores
from tests.support.dispatch import NOW_MS, FakeNode, courier, webhook
from tests.support.raw_target import OK, RawTarget, raw_target, says

ENDS = (
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\n\n",
    "\0",
    "\x0b",
    "\x0c",
    "\x85",
    "\u2028",
    "\u560d\u560a",
    "\x01",
    "\x7f",
    "\u0120",
)
"""What ends a line, and what some program takes for it (U+560D and U+560A end in CR and LF when cut to bytes)."""
EVIL = "X-Evil: 1"
SECOND = "GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
_OURS = (
    "host user-agent content-type content-length webhook-id webhook-timestamp ringwheel-attempt ringwheel-fence "
    "ringwheel-queue ringwheel-schedule-time x-app"
)
OURS = frozenset(_OURS.split(" "))


@dataclass(frozen=True)
class Case:
    """What a user writes; `url` is what follows the target's host and port."""

    name: str
    url: str = "/"
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str | None = None
    payload: bytes | None = b"{}"
    queue: str = "emails"
    trace: str | None = None


def _cases() -> list[Case]:
    cases = []
    for end in ENDS:
        shown = ascii(end)
        cases += [
            Case(f"value {shown}", headers={"X-App": f"a{end}{EVIL}"}),
            Case(f"end of a value {shown}", headers={"X-App": f"a{end}"}),
            Case(f"name {shown}", headers={f"X-App: a{end}X-Evil": "1"}),
            Case(f"path {shown}", url=f"/a HTTP/1.1{end}{EVIL}{end}"),
            Case(f"query {shown}", url=f"/?a=b{end}{EVIL}"),
            Case(f"method {shown}", method=f"GET / HTTP/1.1{end}{EVIL}{end}POST"),
            Case(f"content type {shown}", content_type=f"text/plain{end}{EVIL}"),
            Case(f"queue {shown}", queue=f"emails{end}{EVIL}"),
        ]
    cases += [
        Case("second request in a value", headers={"X-App": f"a\r\n\r\n{SECOND}"}),
        Case("second request in a path", url=f"/ HTTP/1.1\r\nHost: x\r\n\r\n{SECOND}"),
        Case("second request in a method", method=SECOND + "POST"),
        Case("second request in a type", content_type=f"a/b\r\n\r\n{SECOND}"),
        Case("escaped line end in the path", url="/%0d%0aX-Evil:%201%0d%0a"),
        Case("escaped line end in the query", url="/?%0D%0AX-Evil:1"),
        Case("line end in the fragment", url=f"/#\r\n{EVIL}"),
        Case("line end in the host", url=f"\r\n{EVIL}/"),
        Case("second request as the payload", payload=b'"GET /second HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"'),
        Case("space before the colon", headers={"X-Evil ": "1"}),
        Case("folded value", headers={"X-App": "a\r\n b"}),
        Case("empty name", headers={"": "X-Evil: 1"}),
        Case("colon in the name", headers={"X-Evil:": "1"}),
        Case("colon first", headers={":X-Evil": "1"}),
        Case("name with a slash", headers={"X/Evil": "1"}),
        Case("name outside ASCII", headers={"X-Evil\u00e9": "1"}),
        Case("method in lower case", method="post"),
        Case("empty method", method=""),
        Case("method with a space", method="POST /x"),
        Case("CONNECT", method="CONNECT"),
        Case("TRACE", method="TRACE"),
        *(
            Case(f"reserved {name}", headers={name: value})
            for name, value in {
                "Host": "evil.example",
                "Content-Length": "0",
                "content-length": "100",
                "Transfer-Encoding": "chunked",
                "TE": "trailers",
                "Trailer": "X-Evil",
                "Connection": "close, X-App",
                "Keep-Alive": "timeout=1",
                "Proxy-Connection": "keep-alive",
                "Proxy-Authorization": "Basic eDp5",
                "Upgrade": "h2c",
                "Expect": "100-continue",
                "Content-Type": "text/evil",
                "Content-Encoding": "gzip",
                "Webhook-Id": "evil",
                "webhook-signature": "v1,evil",
                "Webhook-Timestamp": "0",
                "Ringwheel-Fence": "evil",
                "RINGWHEEL-ATTEMPT": "9",
            }.items()
        ),
    ]
    return cases


CASES = _cases()
RESERVED = [case for case in CASES if case.name.startswith("reserved ")]


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 60


async def submitted(case: Case, target: RawTarget) -> Task | None:
    """The task that a request with this body makes; None: it is refused."""
    stores = MemoryStores(MemoryDatabase(lambda: float(NOW_MS)), "boot")
    decoder = TaskDecoder(stores.book, stores.queues, SpecCodec(), 1024)
    url = f"http://127.0.0.1:{target.port}{case.url}"
    body: dict[str, Any] = {
        "queue": case.queue,
        "http": {"url": url, "method": case.method, "headers": case.headers},
    }
    if case.content_type is None:
        body["payload"] = orjson.Fragment(case.payload or b"null")
    else:
        body |= {"payload_base64": "e30=", "content_type": case.content_type}
    try:
        draft = await decoder.draft(orjson.dumps(body), "default", NOW_MS, None)
    except (Invalid, Problem):
        return None
    task = webhook(url, draft.payload, queue=draft.queue)
    task.spec = draft.spec
    return task


def stored(case: Case, target: RawTarget) -> Task:
    """The task as a row that nobody checked."""
    url = f"http://127.0.0.1:{target.port}{case.url}"
    task = webhook(url, case.payload, queue=Queue(7, "default", case.queue), trace=case.trace)
    task.spec = Spec(http=HttpTarget(url, case.method, case.headers), content_type=case.content_type)
    return task


async def seen(task: Task, target: RawTarget) -> None:
    """Deliver, and hold what arrived against what may."""
    node = FakeNode()
    async with courier(node):
        node.offer([task, webhook(target.url("/last"), n=2)])
        ended = {outcome.task.id: outcome for outcome in await node.until(2)}
    outcome = ended[task.id]
    first = [exchange for exchange in target.exchanges if not exchange.lines[0].startswith("POST /last ")]
    assert len(target.exchanges) - len(first) == 1, "the connection is in order for the next one"
    assert len(first) == (outcome.verdict is Verdict.SUCCEEDED)
    for exchange in first:
        assert exchange.lines[0].split(" ")[1].startswith(("/a", "/?", "/%")) or exchange.lines[0].split(" ")[1] == "/"
        assert exchange.lines[0].count(" ") == 2
        assert exchange.headers["webhook-id"] == task.id
        names = [line.partition(":")[0].lower() for line in exchange.lines[1:]]
        assert len(names) == len(set(names)), "no header comes twice"
        assert set(names) <= OURS
        lines = [line for line in exchange.lines if not line.startswith("ringwheel-queue")]  # checked when it is made
        assert all(line.isprintable() and line.isascii() for line in lines)
        assert exchange.body == (task.payload or b"")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_from_a_request_to_the_wire(case: Case) -> None:
    async with raw_target(says(OK)) as target:
        task = await submitted(case, target)
        if task is not None:
            assert case not in RESERVED
            await seen(task, target)


@pytest.mark.parametrize("case", [case for case in CASES if case not in RESERVED], ids=lambda case: case.name)
async def test_from_a_stored_row_to_the_wire(case: Case) -> None:
    async with raw_target(says(OK)) as target:
        await seen(stored(case, target), target)
