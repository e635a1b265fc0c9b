"""The worker's link: a websocket to one node at a time, made again whenever it ends, at the next node.

Promises: each new link begins with what is still worked on (so that nothing is given to others that came back in time)
and with every result that was not recorded; credits are never more than there is room for, and are granted in few
frames; a frame that is refused costs no result but the one that is to blame, and no credits; a node that asks to drain
is left at once, and work goes on.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import aiohttp
import msgspec

from ringwheel.backoff import Backoff
from ringwheel.context import Context
from ringwheel.desk import Desk
from ringwheel.doubt import Doubt
from ringwheel.errors import Forbidden, Problem, Unauthenticated, Unavailable, problem_of
from ringwheel.frames import MOST_LEASES, STOP, Done, Frame, Hello, Lease, Ready, read, write
from ringwheel.transport import DISMISSED, HOPELESS, Transport, words_of

PATH = "/v1/worker"
HEARTBEAT_S = 6.0
"""A node that hangs is left about when the cluster gives it up."""
log = logging.getLogger("ringwheel.worker")


class _Over(Exception):
    """The link has ended."""


class Link:
    """One worker's link."""

    def __init__(self, transport: Transport, desk: Desk, worker: str, begin: Callable[[list[Context]], object]) -> None:
        """`begin` is given the tasks that come."""
        self._transport = transport.twin(patience_s=0.0, timeout_s=30.0)
        self._desk = desk
        self._worker = worker
        self._begin = begin
        self._backoff = Backoff()
        self._claimed: dict[str, str] = {}
        self._doubt = Doubt(desk.outbox)
        self._rests = Backoff()
        self._rest: asyncio.TimerHandle | None = None
        """Until then no credits are granted: the last ones may have been refused."""
        self._stops = 0
        """How many were said and not answered."""
        self._stop_said = False
        self.stopped = asyncio.Event()
        """No tasks come any more; set while there is no link, too."""
        self.stopped.set()

    async def run(self) -> NoReturn:
        """Keep a link up. Raises Unauthenticated or Forbidden: the key is no good; coming back would not help."""
        try:
            while True:
                url = self._transport.url
                try:
                    async with await self._transport.connect(PATH, HEARTBEAT_S) as ws:
                        log.info("linked to %s", url)
                        await self._serve(ws)
                    log.info("the link to %s has ended", url)
                except (Unauthenticated, Forbidden):
                    raise
                except HOPELESS as error:
                    raise Unavailable(f"{url}: {words_of(error)}") from error
                except (Problem, aiohttp.ClientError, TimeoutError, OSError) as error:
                    log.warning("no link to %s: %s", url, words_of(error))
                self._transport.leave(url)
                await asyncio.sleep(self._backoff.pause_s())
        finally:
            await self._transport.close()

    async def _serve(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        desk = self._desk
        self._doubt = Doubt(desk.outbox)
        self._stops, self._stop_said = 0, False
        self.stopped.clear()
        try:
            await self._greet(ws)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._say(ws))
                await self._listen(ws)
        except BaseExceptionGroup as errors:
            for error in errors.exceptions:
                if not isinstance(error, _Over):
                    raise error from None
        finally:
            self.stopped.set()
            self._wake()
            desk.outstanding = 0  # credits go with their link

    async def _greet(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        leases = self._desk.leases[:MOST_LEASES]
        self._claimed = {lease.id: lease.lease for lease in leases}
        await _send(ws, write(Hello(self._worker, leases)))
        self._desk.outbox.say_all_again()
        self._desk.news.set()

    async def _listen(self, ws: aiohttp.ClientWebSocketResponse) -> NoReturn:
        while True:
            message = await ws.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            try:
                frame = read(message.data)
            except msgspec.MsgspecError as error:
                log.error("a frame can't be read: %s", error)
                break
            self._hear(frame)
        if ws.close_code in DISMISSED:
            raise problem_of(DISMISSED[ws.close_code], {"title": "No work for this key", "detail": message.extra or ""})
        raise _Over

    def _hear(self, frame: Frame) -> None:
        desk = self._desk
        match frame.type:
            case "tasks":
                self._rests.reset()
                self._begin(desk.take(frame.tasks))
            case "recorded":
                desk.recorded(frame.ids)
            case "refused":
                for refused in frame.results:
                    desk.refused(refused)
            case "cancel":
                for task_id in frame.ids:
                    desk.cancel(task_id, "it was cancelled")
            case "hello":
                self._backoff.reset()
                self._compare(frame.leases)
            case "stopped":
                self._stops -= 1
                if self._stops <= 0:
                    self._clear()
            case "drain":
                raise _Over
            case "error":
                log.error("the service refuses a frame: %s", frame.words)
                blamed = self._doubt.refused()
                if blamed is not None:
                    desk.replace(blamed, frame.detail)
                desk.news.set()

    def _compare(self, leases: list[Lease]) -> None:
        """What was claimed and is not confirmed is over; results of it are said all the same: they may be recorded."""
        claimed, self._claimed = self._claimed, {}
        for lease in leases:
            claimed.pop(lease.id, None)
        for task_id, text in claimed.items():
            self._desk.cancel(task_id, "its lease ended while there was no link", text)

    def _clear(self) -> None:
        """Nothing is under way but results, and there are no credits."""
        over = True
        if self._doubt.open:
            over = self._doubt.stopped()
            self._desk.outstanding = 0
            if over and not self._doubt.found:  # then it was the credits, perhaps
                self._rest_a_while()
        if over and self._stop_said:
            self.stopped.set()
        self._desk.news.set()

    def _rest_a_while(self) -> None:
        self._wake()
        self._rest = asyncio.get_running_loop().call_later(self._rests.pause_s(), self._wake)

    def _wake(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
            self._desk.news.set()

    async def _say(self, ws: aiohttp.ClientWebSocketResponse) -> NoReturn:
        desk = self._desk
        with suppress(ConnectionError):
            while True:
                await desk.news.wait()
                desk.news.clear()
                if self._doubt.open:
                    await self._say_in_doubt(ws)
                    continue
                while results := desk.outbox.take():
                    await _send(ws, write(Done(results)))
                if desk.stopping and not self._stop_said:
                    self._stop_said = True
                    await self._say_stop(ws)
                elif self._rest is None and (count := desk.grant()):
                    await _send(ws, write(Ready(desk.queue, count)))
        raise _Over

    async def _say_in_doubt(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        results = self._doubt.next()
        if results:
            await _send(ws, write(Done(results)))
        if results is not None:
            await self._say_stop(ws)

    async def _say_stop(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._stops += 1
        await _send(ws, STOP)


async def _send(ws: aiohttp.ClientWebSocketResponse, data: bytes) -> None:
    await ws.send_frame(data, aiohttp.WSMsgType.TEXT)
