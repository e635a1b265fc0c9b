"""The document of the API, OpenAPI 3.1, built from the table of routes and the types that the routes name.

Promises: what is in the table is in the document and nothing else; schemas are those of the types that requests are
decoded by (`schema.py`) and answers are held to (`answers.py`).
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import orjson

from actors.core.keys import Scope
from actors.core.spec import HttpTarget
from gateway import answers
from gateway.answers import TaskId
from gateway.page import MEDIA_TYPES
from gateway.problems import MEDIA_TYPE, TYPES
from gateway.route import Answer, Body, Parameter, Route
from gateway.schema import RULES, QueueName, RetryRequest, TaskRequest

VERSION = "3.1.0"
API_VERSION = "1"
WORDS = (
    "Tasks that call a webhook or wait for a worker, durably and on time. Additive changes only: let unknown fields "
    "of answers pass. Every error is a problem (RFC 9457) with a JSON pointer to each field at fault."
)
PATH_PARAMETERS: dict[str, Parameter] = {
    "id": Parameter("id", "The task.", TaskId, "path"),
    "queue": Parameter("queue", "The queue.", QueueName, "path"),
    "file": Parameter("file", "A file of the page.", Literal[tuple(MEDIA_TYPES)], "path"),
}
"""What may stand in a path, by name."""
ALSO: tuple[type, ...] = (TaskRequest, HttpTarget, RetryRequest, answers.Problem)
"""Types that no route names, but a part of one that is read later."""
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}

_TITLES = dict(reversed(TYPES.values()))
_IN_PATH = re.compile(r"\{(\w+)\}")
_REF = "#/components/schemas/{name}"


@dataclass(frozen=True, slots=True)
class Document:
    """The document as bytes, and the tag of these bytes."""

    body: bytes
    etag: str


def document(routes: Sequence[Route]) -> Document:
    """The document of these routes, ready to be sent."""
    body = orjson.dumps(describe(routes))
    return Document(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The document of these routes as a JSON object."""
    schemas = _Schemas([*_types(routes), *ALSO])
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": VERSION,
        "info": {"title": "ringwheel", "version": API_VERSION, "description": WORDS, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {_named(status): _refusal(status) for status in _statuses(routes)},
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"An API key with the scope that is named: {', '.join(Scope)}. "
                    "A service for development on the loopback interface asks for none.",
                }
            },
        },
    }


class _Schemas:
    """JSON Schemas of types; structs become components."""

    def __init__(self, types: Iterable[Any]) -> None:
        shown = list(dict.fromkeys(map(published_type, types)))
        self._schemas: dict[Any, dict[str, Any]] = {}
        schemas, self.components = msgspec.json.schema_components(shown, ref_template=_REF)
        self._schemas.update(zip(shown, schemas, strict=True))
        for name, kind in vars(answers).items():
            if getattr(kind, "__module__", None) == answers.__name__ and name in self.components:
                self.components[name].pop("additionalProperties")  # clients must let more pass than there is today
        for name in RULES.keys() & self.components.keys():
            self.components[name] |= RULES[name]

    def of(self, kind: Any) -> dict[str, Any]:
        return self._schemas[published_type(kind)]


@cache
def published_type(kind: Any) -> Any:
    """The type for the document: a `Raw` that may be left out has no default that could be shown."""
    if get_origin(kind) is Annotated:
        inner, *metas = get_args(kind)
        return Annotated[(published_type(inner), *metas)]
    if get_origin(kind) is list:
        return list[published_type(*get_args(kind))]  # type: ignore[misc]  # made while it runs
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return kind
    fields = msgspec.structs.fields(kind)
    types = [published_type(field.type) for field in fields]
    same = all(shown == field.type for shown, field in zip(types, fields, strict=True))
    if same and not any(isinstance(field.default, msgspec.Raw) for field in fields):
        return kind
    shown = msgspec.defstruct(
        kind.__name__,
        [(field.name, shown, *_default(field)) for field, shown in zip(fields, types, strict=True)],
        forbid_unknown_fields=kind.__struct_config__.forbid_unknown_fields,
        kw_only=True,
    )
    shown.__doc__ = kind.__doc__
    return shown


def _default(field: msgspec.structs.FieldInfo) -> tuple[Any, ...]:
    if field.required:
        return ()
    return (msgspec.UNSET if isinstance(field.default, msgspec.Raw) else field.default,)


def _types(routes: Iterable[Route]) -> Iterator[Any]:
    yield TaskId
    for route in routes:
        yield from (parameter.type for parameter in _parameters(route))
        if route.takes is not None:
            yield from route.takes.content.values()
        for answer in route.answers.values():
            yield from answer.content.values()


def _statuses(routes: Iterable[Route]) -> list[int]:
    return sorted({status for route in routes for status in route.refusals})


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    shown: dict[str, Any] = {"operationId": route.name, "summary": route.summary}
    if route.words:
        shown["description"] = route.words
    parameters = [_parameter(parameter, schemas) for parameter in _parameters(route)]
    if parameters:
        shown["parameters"] = parameters
    if route.takes is not None:
        shown["requestBody"] = _body(route.takes, schemas)
    shown["responses"] = {str(status): _answer(answer, schemas) for status, answer in route.answers.items()} | {
        str(status): {"$ref": f"#/components/responses/{_named(status)}"} for status in route.refusals
    }
    shown["security"] = [] if route.scope is None else [{"key": [route.scope.value]}, {}]
    return shown


def _parameters(route: Route) -> list[Parameter]:
    return [*(PATH_PARAMETERS[name] for name in _IN_PATH.findall(route.path)), *route.parameters]


def _parameter(parameter: Parameter, schemas: _Schemas) -> dict[str, Any]:
    schema = schemas.of(parameter.type)
    shown = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.words,
        "schema": {"type": "array", "items": schema} if parameter.many else schema,
    }
    return shown | {"style": "form", "explode": True} if schema.get("type") == "object" else shown


def _body(body: Body, schemas: _Schemas) -> dict[str, Any]:
    content = {media: {"schema": schemas.of(kind)} for media, kind in body.content.items()}
    if body.example is not None:
        next(iter(content.values()))["example"] = body.example
    return {"required": body.required, "content": content}


def _answer(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": answer.words}
    if answer.headers:
        shown["headers"] = {
            name: {"description": meaning, "schema": {"type": "string"}} for name, meaning in answer.headers.items()
        }
    if answer.content:
        shown["content"] = {media: {"schema": schemas.of(kind)} for media, kind in answer.content.items()}
    return shown


def _refusal(status: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "description": _TITLES.get(status, HTTPStatus(status).phrase),
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    return shown | {"headers": RETRY_AFTER} if status in (429, 503) else shown


def _named(status: int) -> str:
    return f"Problem{status}"
