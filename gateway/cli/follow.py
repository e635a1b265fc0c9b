"""Following live status: one stream, reconnected where it broke off, and what it has told so far."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import aiohttp
import orjson

from gateway.cli.api import Api
from gateway.cli.exits import Refused, Unreachable
from gateway.cli.missing import ENDED, Missing, is_question
from gateway.cli.options import key_given
from gateway.problems import TYPES

RECONNECT_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses between tries to reconnect; then it is given up."""
MOST_TASKS = 10_000
"""Tasks that are remembered; the oldest ended ones are let go first."""

_FAREWELLS = {4401: "unauthenticated", 4403: "forbidden", 4408: "unauthenticated"}
"""Close codes -> problems."""

_SHOWN = "state", "attempt", "schedule_time", "next_attempt_time", "last_attempt"
"""What makes a change one: a start that is put on record later has a new version, but is nothing new."""

GAPS = {
    "unknown-cursor": "the service was started anew, or another node answers",
    "expired-cursor": "the connection was away for too long",
    "interrupted": "a node could not be heard by the others for a while",
    "overrun": "more changed at once than could be told",
    "conflated": "more changed at once than could be told",
}
"""Why changes were not told, by the reason in a gap."""

Wanted = dict[str, Any]
Message = dict[str, Any]


async def follow(api: Api, wanted: Sequence[Wanted]) -> AsyncGenerator[Message, None]:
    """Every message about what is wanted, subscription i named `str(i)`; goes on by cursor after a broken connection.

    What a snapshot after a gap leaves out is asked for, and told as events without a cursor (`missing.py`).
    Raises Refused (the service refuses a subscription) or Unreachable.
    """
    cursors: dict[str, str] = {}
    missing = Missing(wanted)
    ws = await api.stream()
    while True:
        try:
            await _subscribe(ws, wanted, cursors)
            async for message in _messages(ws, wanted):
                if "cursor" in message and not is_question(message["sub"]):
                    cursors[message["sub"]] = message["cursor"]
                for told in missing.hear(message):
                    yield told
                for question in missing.say():
                    await ws.send_bytes(orjson.dumps(question))
        except ConnectionError:
            pass  # it was lost while we spoke: the same as when it ends
        finally:
            await ws.close()
        ws = await _reconnect(api)
        missing.ask_again()


async def _subscribe(ws: aiohttp.ClientWebSocketResponse, wanted: Sequence[Wanted], cursors: dict[str, str]) -> None:
    for place, one in enumerate(wanted):
        sub = str(place)
        cursor = {"from": cursors[sub]} if sub in cursors else {}
        await ws.send_bytes(orjson.dumps({"type": "subscribe", "sub": sub, "filter": one} | cursor))


async def _messages(ws: aiohttp.ClientWebSocketResponse, wanted: Sequence[Wanted]) -> AsyncIterator[Message]:
    while True:
        frame = await ws.receive()
        if frame.type is aiohttp.WSMsgType.CLOSE and frame.data in _FAREWELLS:
            raise _dismissed(frame.data, frame.extra)
        if frame.type is not aiohttp.WSMsgType.TEXT:
            return
        message: Message = orjson.loads(frame.data)
        refused = message["type"] == "error" and message.get("problem") != "unavailable"
        if refused and not is_question(message.get("sub")):
            raise _refused(message, wanted)
        yield message


def _dismissed(code: int, words: str | None) -> Refused:
    """As a request without this key would be refused: coming back helps nobody."""
    status, title = TYPES[_FAREWELLS[code]]
    return Refused(
        status, {"title": title, "detail": words if key_given() else "a key is needed: --key or RINGWHEEL_KEY"}
    )


def _refused(error: Message, wanted: Sequence[Wanted]) -> Refused:
    """As the service would refuse a request: an id that can be no task's is not found, like any that is unknown."""
    if any(field["pointer"] == "/filter/id" for field in error.get("errors", ())):
        return Refused(
            404, {"title": TYPES["not-found"][1], "detail": f"no such task: {wanted[int(error['sub'])]['id']}"}
        )
    return Refused(TYPES.get(error["problem"], (422, ""))[0], error | {"type": error["problem"]})


async def _reconnect(api: Api) -> aiohttp.ClientWebSocketResponse:
    for pause_s in RECONNECT_S:
        await asyncio.sleep(pause_s)
        try:
            return await api.stream()
        except Unreachable as error:
            lost = error
    raise lost


def words_of_gap(gap: Message) -> str:
    """A gap in plain words."""
    why = GAPS.get(gap["reason"], gap["reason"])
    if gap["snapshot"]:
        return f"some changes were not shown: {why}; tasks are shown as they are now"
    return f"{gap.get('skipped', 'some')} changes were not shown, but the newest of each task is: {why}"


class Seen:
    """What a stream has told so far."""

    def __init__(self) -> None:
        self.tasks: dict[str, Message] = {}
        self.shown: set[str] = set()
        """Subscriptions whose snapshot came."""
        self.note = ""
        """What was not told: the last gap or error."""

    def take(self, message: Message) -> list[Message]:
        """Tasks that this message tells something new of."""
        match message["type"]:
            case "snapshot":
                self.shown.add(message["sub"])
                if message["truncated"]:
                    self.note = "more tasks than are shown"
                return [task for task in message["tasks"] if self._learn(task)]
            case "event":
                return [message["task"]] if self._learn(message["task"]) else []
            case "gap":
                self.note = words_of_gap(message)
            case "unknown":
                for task_id in message["ids"]:
                    self.tasks.pop(task_id, None)
                self.note = f"what became of {len(message['ids'])} tasks is not known here any more"
            case "error":
                self.note = message["detail"]
        return []

    def _learn(self, task: Message) -> bool:
        known = self.tasks.pop(task["id"], None)
        if known is not None and known["version"] >= task["version"]:
            self.tasks[task["id"]] = known
            return False
        self.tasks[task["id"]] = task
        if len(self.tasks) > MOST_TASKS:
            self._forget()
        return known is None or any(known.get(name) != task.get(name) for name in _SHOWN)

    def _forget(self) -> None:
        ended = (task_id for task_id, task in self.tasks.items() if task["state"] in ENDED)
        del self.tasks[next(ended, next(iter(self.tasks)))]
