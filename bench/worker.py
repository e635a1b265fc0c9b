"""A worker that costs little, for measuring: it takes tasks over one link, says at once that they are done, and counts.

A process of its own, `python -m bench.worker PORT QUEUE CREDITS [timed]`: PORT is that of the service. It prints
`ready 127.0.0.1:<port>` once it has told the service of its credits; that port answers GET /seen with what it counted
since the last reset, and GET /reset forgets. With `timed` it notes how late each task began: from when it was due to
when its frame was handled, in milliseconds of the wall clock, by shard; that costs a little more. GET /late answers it,
too: all of it, so whoever asks while tasks come makes them late.

Promises: a frame with more tasks than it has credits left is counted (`above`).
Refuses: to go on when its link ends, or when the service complains of it.
"""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from time import process_time, time
from typing import cast

import msgspec
import uvloop

from actors.core.ids import shard_of
from bench.floors import collector_as_in_service
from bench.websocket import Socket, connect
from bench.work import SHARDS

PATH = "/v1/worker"
MOST_RESULTS = 1_000
"""In a frame."""


class Job(msgspec.Struct, gc=False):
    """A task as far as it is read; and, sent back as it is, its result."""

    id: str
    lease: str
    ok: bool = True


class TimedJob(msgspec.Struct, gc=False):
    """The same with when it was due."""

    id: str
    lease: str
    schedule_time: datetime


class Tasks(msgspec.Struct, tag="tasks"):
    """Work."""

    tasks: list[Job]


class TimedTasks(msgspec.Struct, tag="tasks"):
    """Work whose lateness is of interest."""

    tasks: list[TimedJob]


class Recorded(msgspec.Struct, tag="recorded"):
    """These results are committed."""

    ids: list[str]


class Refused(msgspec.Struct, tag="refused"):
    """These are not."""

    results: list[msgspec.Raw]


class Drain(msgspec.Struct, tag="drain"):
    """The service is about to end."""


class Complaint(msgspec.Struct, tag="error"):
    """The service could not read a frame."""

    detail: str


class Done(msgspec.Struct, tag="done"):
    """Results."""

    results: Sequence[Job]


@dataclass(slots=True)
class Seen:
    """What a worker counted since its last reset."""

    tasks: int = 0
    recorded: int = 0
    refused: int = 0
    refusal: str = ""
    """The first of them."""
    above: int = 0
    """Tasks beyond its credits."""
    last_ms: float = 0.0
    """When it last heard of something recorded."""
    cpu_s: float = 0.0
    """What the process has used since it began."""
    lateness_ms: dict[int, list[float]] = field(default_factory=dict)
    """By part of the ids, of which there are SHARDS."""


class Worker:
    """One link, and what came over it."""

    def __init__(self, queue: str, credits_: int, *, timed: bool) -> None:
        self._queue = queue
        self._timed = timed
        self._left = 0
        self._owed = credits_
        self._step = max(1, credits_ // 4)
        self._socket: Socket | None = None
        self._encode = msgspec.json.Encoder().encode
        tasks: object = TimedTasks if timed else Tasks
        self._decode = msgspec.json.Decoder(tasks | Recorded | Refused | Drain | Complaint).decode
        self._late_ms: defaultdict[int, list[float]] = defaultdict(list)
        self.seen = Seen()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def begin(self, port: int) -> None:
        """Connect, and be ready. Raises OSError."""
        self._socket = await connect(port, PATH, self.heard, self._lost)
        self._grant()

    def _lost(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError(why))

    def heard(self, message: bytes | bytearray) -> None:
        """Does what the message asks for."""
        said = self._decode(message)
        match said:
            case Tasks() | TimedTasks():
                self._work(said)
            case Recorded():
                self.seen.recorded += len(said.ids)
                self.seen.last_ms = time() * 1e3
            case Refused():
                self.seen.refused += len(said.results)
                self.seen.refusal = self.seen.refusal or bytes(said.results[0]).decode()
            case Complaint():
                self._lost(said.detail)

    def _work(self, said: Tasks | TimedTasks) -> None:
        jobs = self._time(said) if isinstance(said, TimedTasks) else said.tasks
        self._spend(len(jobs))
        assert self._socket is not None
        for first in range(0, len(jobs), MOST_RESULTS):
            self._socket.send(self._encode(Done(jobs[first : first + MOST_RESULTS])))
        if self._owed >= self._step:
            self._grant()

    def _time(self, said: TimedTasks) -> list[Job]:
        now_ms = time() * 1e3
        for job in said.tasks:
            self._late_ms[shard_of(job.id, SHARDS)].append(now_ms - job.schedule_time.timestamp() * 1e3)
        return [Job(job.id, job.lease) for job in said.tasks]

    def _spend(self, count: int) -> None:
        self.seen.tasks += count
        self._owed += count
        self._left -= count
        if self._left < 0:
            self.seen.above -= self._left
            self._left = 0

    def _grant(self) -> None:
        assert self._socket is not None
        self._left += self._owed
        self._socket.send(self._encode({"type": "ready", "queue": self._queue, "credits": self._owed}))
        self._owed = 0

    def reset(self) -> None:
        """Forget what was counted."""
        self.seen = Seen()
        self._late_ms.clear()

    def report(self, *, late: bool) -> bytes:
        """What was counted; and how late each task was."""
        self.seen.cpu_s = process_time()
        noted = self._late_ms if late else {}
        rounded = {shard: [round(late_ms, 3) for late_ms in some] for shard, some in noted.items()}
        return msgspec.json.encode(asdict(self.seen) | {"lateness_ms": rounded})


class Desk(asyncio.Protocol):
    """Who asks, and is answered over HTTP."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answers a question once it is complete."""
        self._head += data
        if not self._head.endswith(b"\r\n\r\n"):
            return
        if self._head.startswith(b"GET /reset"):
            self._worker.reset()
        body = self._worker.report(late=self._head.startswith(b"GET /late"))
        self._head = b""
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def work(port: int, queue: str, credits_: int, *, timed: bool) -> None:
    """Runs until the process is ended, or its link."""
    worker = Worker(queue, credits_, timed=timed)
    server = await asyncio.get_running_loop().create_server(lambda: Desk(worker), "127.0.0.1", 0)
    async with server:
        with collector_as_in_service():
            await worker.begin(port)
            print(f"ready 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
            await worker.ended


if __name__ == "__main__":
    uvloop.run(work(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), timed="timed" in sys.argv[4:]))
