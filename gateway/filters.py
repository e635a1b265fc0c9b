"""What a list of tasks is asked for: the query of `GET /v1/tasks`, read and checked.

Refuses, with a pointer to the parameter: names that are unknown, values that no task could have, and the same label or
bound twice.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

import orjson
from aiohttp import web

from actors.core.errors import Invalid
from actors.core.ids import valid
from actors.core.task import State
from actors.ports.reader import Narrow, TaskRow
from gateway.decode import check_label, check_queue
from gateway.problems import escape
from gateway.schema import MAX_LABELS
from gateway.times import time_ms

DEFAULT_PAGE = 100
LABEL = "label."
BOUNDS = ("schedule_time.gte", "schedule_time.gt", "schedule_time.lte", "schedule_time.lt")
FILTERS = ("queue", "state", "order", "cursor", "limit", *BOUNDS)
ORDERS = ("asc", "desc")

_CURSOR = re.compile(rb"(-?\d{1,15}) ([0-9a-f-]{36})(?![\s\S])")


@dataclass(frozen=True, slots=True)
class Filters:
    """One page that is asked for."""

    queue: str | None
    states: frozenset[State]
    narrow: Narrow
    after: tuple[int, str] | None
    limit: int
    backwards: bool

    @property
    def stored(self) -> list[State]:
        """The states by which the tables know what is wanted: running is known to the owner alone."""
        return sorted({State.SCHEDULED if state is State.RUNNING else state for state in self.states})


def read_filters(request: web.Request, most: int) -> Filters:
    """The query. Raises Invalid."""
    for name in request.query:
        if name not in FILTERS and not name.startswith(LABEL):
            raise Invalid("unknown filter", f"/{escape(name)}")
    queue = one(request, "queue")
    if queue is not None:
        check_queue(queue, "/queue")
    labels = labels_of(request)
    narrow = Narrow(orjson.dumps(labels).decode() if labels else None, *_bounds(request))
    order = one(request, "order")
    if order not in (None, *ORDERS):
        raise Invalid('expected "asc" or "desc"', "/order")
    after = _after(one(request, "cursor"))
    return Filters(queue, _states(request), narrow, after, limit_of(request, most), order == "desc")


def one(request: web.Request, name: str) -> str | None:
    """The value of a parameter, if it is there. Raises Invalid when it is there twice."""
    texts = request.query.getall(name, [])
    if len(texts) > 1:
        raise Invalid("is given twice", f"/{name}")
    return texts[0] if texts else None


def limit_of(request: web.Request, most: int) -> int:
    """How many are asked for. Raises Invalid."""
    text = one(request, "limit")
    if text is None:
        return DEFAULT_PAGE
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise Invalid(f"expected a number from 1 to {most}", "/limit")
    return int(text)


def labels_of(request: web.Request) -> dict[str, str]:
    """The labels that are asked for, each as `label.<name>`. Raises Invalid."""
    labels: dict[str, str] = {}
    for name, value in request.query.items():
        if name.startswith(LABEL):
            key, pointer = name.removeprefix(LABEL), f"/{escape(name)}"
            check_label(key, value, pointer)
            if labels.setdefault(key, value) != value:
                raise Invalid("no task has two values of one label", pointer)
            if len(labels) > MAX_LABELS:
                raise Invalid(f"no task has more than {MAX_LABELS} labels", pointer)
    return labels


def cursor_of(row: TaskRow) -> str:
    """Where the page ends that ends with this row."""
    return urlsafe_b64encode(f"{row.due_ms} {row.id}".encode()).decode()


def _bounds(request: web.Request) -> tuple[int | None, int | None]:
    """(first, end): the schedule time from the first up to, not including, the end."""
    gte, gt, lte, lt = (_time(request, name) for name in BOUNDS)
    first = [at_ms for at_ms in (gte, None if gt is None else gt + 1) if at_ms is not None]
    end = [at_ms for at_ms in (lt, None if lte is None else lte + 1) if at_ms is not None]
    return max(first, default=None), min(end, default=None)


def _time(request: web.Request, name: str) -> int | None:
    text = one(request, name)
    return None if text is None else time_ms(text, f"/{name}")


def _states(request: web.Request) -> frozenset[State]:
    names = [name for value in request.query.getall("state", []) for name in value.split(",")]
    try:
        return frozenset(State(name) for name in names) or frozenset(State)
    except ValueError as error:
        raise Invalid(f"expected some of {', '.join(State)}", "/state") from error


def _after(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    try:
        match = _CURSOR.match(urlsafe_b64decode(cursor))
    except ValueError:
        match = None
    if match is None or not valid(match[2].decode()):
        raise Invalid("not a cursor of this call", "/cursor")
    return int(match[1]), match[2].decode()
