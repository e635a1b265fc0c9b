"""Live status: one subscription, taken up again by its cursor after a broken connection.

Promises: changes come in order, each once; what could not be told is told as a Gap, before what follows it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from time import monotonic as clock_s
from typing import Any

import aiohttp
import msgspec

from ringwheel.backoff import Backoff
from ringwheel.errors import Problem, Unavailable, problem_of
from ringwheel.task import Change, Gap
from ringwheel.transport import DISMISSED, FAILURES, HOPELESS, Transport, passing, words_of

PATH = "/v1/stream"
TRUNCATED = "truncated"
_STATUS = {"not-found": 404, "conflict": 409, "overloaded": 429}
"""Of the kinds of problems that are no plain 422."""


class _Message(msgspec.Struct):
    type: str
    cursor: str | None = None
    task: Change | None = None
    tasks: list[Change] = []
    truncated: bool = False
    reason: str = ""
    snapshot: bool = False
    problem: str = ""
    detail: str = ""
    errors: list[dict[str, Any]] = []


_messages = msgspec.json.Decoder(_Message)


async def follow(
    transport: Transport, wanted: dict[str, Any], cursor: str | None
) -> AsyncGenerator[Change | Gap, None]:
    """What is told of the tasks that the filter `wanted` names. Raises Problem or Unavailable."""
    backoff, closes = Backoff(), transport.closes
    end_s: float | None = None  # of patience; None: there was no failure since the last message
    while True:
        url = transport.url
        cause: Exception = ConnectionResetError("the stream broke off")
        try:
            async with await transport.connect(PATH) as ws:
                await ws.send_json(_subscribe(wanted, cursor), dumps=_text)
                async for message in _messages_of(ws):
                    backoff.reset()
                    end_s = None
                    cursor = message.cursor or cursor
                    for told in _told(message):
                        yield told
        except Problem as problem:
            if not passing(problem):
                raise
            cause = problem
        except FAILURES as error:
            cause = error
        transport.expect_open(closes)
        transport.leave(url)
        pause_s = backoff.pause_s()
        end_s = end_s or clock_s() + transport.patience_s
        if isinstance(cause, HOPELESS) or clock_s() + pause_s > end_s:
            raise Unavailable(f"{url}: {words_of(cause)}") from cause
        await asyncio.sleep(pause_s)
        transport.expect_open(closes)


async def _messages_of(ws: aiohttp.ClientWebSocketResponse) -> AsyncIterator[_Message]:
    """Until the connection ends. Raises Problem when the key is not (or no longer) good."""
    while True:
        frame = await ws.receive()
        if frame.type is aiohttp.WSMsgType.TEXT:
            yield _messages.decode(frame.data)
        elif ws.close_code in DISMISSED:
            raise problem_of(DISMISSED[ws.close_code], {"title": "Not allowed to watch", "detail": frame.extra or ""})
        else:
            return


def _told(message: _Message) -> list[Change | Gap]:
    match message.type:
        case "event" if message.task is not None:
            return [msgspec.structs.replace(message.task, cursor=message.cursor or "")]
        case "snapshot":
            cursor = message.cursor or ""
            shown = [msgspec.structs.replace(task, cursor=cursor, snapshot=True) for task in message.tasks]
            return [*shown, Gap(reason=TRUNCATED)] if message.truncated else [*shown]
        case "gap":
            return [Gap(reason=message.reason, snapshot=message.snapshot)]
        case "error" if message.problem != "unavailable":  # that one it tries again by itself
            raise _refusal(message)
    return []


def _refusal(message: _Message) -> Problem:
    no_id = any(error.get("pointer") == "/filter/id" for error in message.errors)
    status = 404 if no_id else _STATUS.get(message.problem, 422)
    body = {"type": message.problem, "title": "Can't be watched", "detail": message.detail, "errors": message.errors}
    return problem_of(status, body)


def _subscribe(wanted: dict[str, Any], cursor: str | None) -> dict[str, Any]:
    return {"type": "subscribe", "sub": "1", "filter": wanted} | ({} if cursor is None else {"from": cursor})


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
