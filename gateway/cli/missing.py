"""Tasks that were shown as live and that a later snapshot leaves out: what became of them is asked for one by one.

A snapshot of a queue or of labels holds live tasks alone. After a gap, one that is missing has ended meanwhile (or the
snapshot was cut): the stream itself is asked for it, under a name of its own, because its answer has a version and so
can't turn back what an event says.

Bounds: `MOST_LIVE` tasks are known, `MOST_ASKED` asked for after a snapshot, `AT_ONCE` at a time. Of the others, and of
those that the service does not know any more, `unknown {sub, ids}` is passed on.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

ENDED = frozenset({"succeeded", "dead", "expired", "cancelled"})
MOST_LIVE = 10_000
MOST_ASKED = 1_000
AT_ONCE = 20
_ASKED = "?"
"""Begins the names under which tasks are asked for."""


def is_question(sub: object) -> bool:
    """Whether this is the name of a question, not of something that is watched."""
    return isinstance(sub, str) and sub.startswith(_ASKED)


class Missing:
    """What was shown as live, and the questions that are open."""

    def __init__(self, wanted: Sequence[dict[str, Any]]) -> None:
        # The snapshot of a single task shows it in any state.
        self._live: dict[str, dict[str, None]] = {str(place): {} for place, one in enumerate(wanted) if "id" not in one}
        self._waiting: deque[tuple[str, str]] = deque()
        self._asked: dict[str, str] = {}
        """Task -> the subscription that misses it."""
        self._answered: list[str] = []

    def hear(self, message: Message) -> list[Message]:
        """What to pass on of this message."""
        sub = message.get("sub")
        if is_question(sub):
            return self._answer(str(sub).removeprefix(_ASKED), message)
        if sub in self._live and message["type"] == "snapshot":
            return [message, *self._compare(sub, message["tasks"])]
        if sub in self._live and message["type"] == "event":
            self._note(sub, message["task"])
        return [message]

    def say(self) -> list[Message]:
        """What to send now."""
        said: list[Message] = [{"type": "unsubscribe", "sub": _ASKED + task_id} for task_id in self._answered]
        self._answered = []
        while self._waiting and len(self._asked) < AT_ONCE:
            sub, task_id = self._waiting.popleft()
            self._asked[task_id] = sub
            said.append({"type": "subscribe", "sub": _ASKED + task_id, "filter": {"id": task_id}})
        return said

    def ask_again(self) -> None:
        """The connection is a new one: what was asked on the old one is open again."""
        self._waiting.extendleft((sub, task_id) for task_id, sub in self._asked.items())
        self._asked = {}
        self._answered = []

    def _compare(self, sub: str, tasks: Sequence[Message]) -> list[Message]:
        known = [*(task_id for name, task_id in self._waiting if name == sub), *self._live[sub]]
        self._live[sub] = {}
        for task in tasks:
            self._note(sub, task)
        told = {*self._asked, *(task["id"] for task in tasks)}
        missing = [task_id for task_id in known if task_id not in told]
        self._waiting = deque(item for item in self._waiting if item[0] != sub)
        self._waiting.extend((sub, task_id) for task_id in missing[-MOST_ASKED:])
        return self._unknown(sub, missing[:-MOST_ASKED])

    def _answer(self, task_id: str, message: Message) -> list[Message]:
        error = message["type"] == "error" and message.get("problem") != "unavailable"
        if task_id not in self._asked or not (error or message["type"] == "snapshot"):
            return []
        sub = self._asked.pop(task_id)
        if error:
            return self._unknown(sub, [task_id])
        self._answered.append(task_id)
        for task in message["tasks"]:
            self._note(sub, task)
        told: list[Message] = [{"type": "event", "sub": sub, "task": task} for task in message["tasks"]]
        return told or self._unknown(sub, [task_id])

    def _note(self, sub: str, task: Message) -> None:
        live = self._live[sub]
        live.pop(task["id"], None)
        if task["state"] not in ENDED:
            live[task["id"]] = None
            if len(live) > MOST_LIVE:
                del live[next(iter(live))]

    @staticmethod
    def _unknown(sub: str, ids: list[str]) -> list[Message]:
        return [{"type": "unknown", "sub": sub, "ids": ids}] if ids else []
