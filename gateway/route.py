"""One route: how a request is answered, and all that the document of the API says of it.

The table of all routes is `routes.py`. A route's problems follow from its shape: whoever has a body may be refused for
its size, its type and its fields; whoever has a scope may be refused for the key. What is particular to a route stands
in `problems`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from actors.core.keys import Scope
from gateway.auth import OPEN, Access
from gateway.bodies import JSON
from gateway.context import GATEWAY
from gateway.problems import Handler

NO_BODY: Mapping[str, object] = {}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter or a header."""

    name: str
    words: str
    type: Any = str
    """Anything that msgspec can write a JSON Schema for."""
    place: str = "query"
    many: bool = False
    """May be repeated."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries."""

    content: Mapping[str, Any]
    """Media type -> type."""
    required: bool = True
    example: Any = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a status other than a problem means."""

    words: str
    content: Mapping[str, Any] = field(default_factory=dict)
    """Media type -> type; `str` and `bytes` for what is no JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Name -> meaning."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path."""

    name: str
    """`operationId`."""
    method: str
    path: str
    """As in the document: `/v1/tasks/{id}`; a parameter ends before the next `/` or `:`."""
    handler: Handler
    summary: str
    answers: Mapping[int, Answer]
    access: Access = OPEN
    takes: Body | None = None
    parameters: tuple[Parameter, ...] = ()
    problems: tuple[int, ...] = ()
    """Statuses of problems beyond those that follow from its shape."""
    words: str = ""
    endless: bool = False
    """Its answer does not end: there is no HEAD of it."""

    @property
    def scope(self) -> Scope | None:
        """What its callers' keys need; None: it is open to everyone."""
        return self.access.scope

    @property
    def refusals(self) -> tuple[int, ...]:
        """Statuses of all problems that it answers, but 500: that one is a defect of the service."""
        return tuple(sorted({*self._by_shape(), *self.problems}))

    def _by_shape(self) -> Iterator[int]:
        yield 400
        if self.takes is not None:
            yield from (408, 413, 415, 422)
        if self.parameters:
            yield 422
        if "{" in self.path:
            yield 404
        if self.scope is not None:
            yield from (401, 403, 429, 503)


def patient(handler: Handler) -> Handler:
    """The handler, which waits no longer for the database than makes sense (`patience.py`)."""

    async def answer(request: web.Request) -> web.StreamResponse:
        async with request.app[GATEWAY].patience.wait():
            return await handler(request)

    return answer


def json(kind: Any, words: str, **headers: str) -> Answer:
    """An answer in JSON; headers are written with _ for -."""
    return Answer(words, {JSON: kind}, {name.replace("_", "-"): meaning for name, meaning in headers.items()})
