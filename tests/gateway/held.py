"""Holds an answer to what the table of routes says of it: its status, its media type, and every field of its body."""

import re
from collections.abc import Mapping
from functools import cache

import msgspec

from gateway import answers
from gateway.bodies import JSON
from gateway.problems import MEDIA_TYPE
from gateway.route import Route
from gateway.routes import ROUTES


def hold(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Raises AssertionError or ValidationError when the answer is not one that the route may give."""
    route = _route(method, path.partition("?")[0])
    if route is None or status == 500:  # tests of unexpected errors make some
        return
    media = headers.get("Content-Type", "").partition(";")[0]
    if status >= 400:
        assert status in route.refusals, f"{route.name} must not answer {status}: {body!r}"
        assert media == MEDIA_TYPE
        assert msgspec.json.decode(body, type=answers.Problem).status == status
        return
    answer = route.answers[status]
    assert media in answer.content or not answer.content
    assert answer.headers.keys() <= headers.keys()
    if media == JSON:
        msgspec.json.decode(body, type=answer.content[JSON])


def _route(method: str, path: str) -> Route | None:
    for pattern, route in _patterns():
        if route.method == method and pattern.fullmatch(path):
            return route
    return None


@cache
def _patterns() -> list[tuple[re.Pattern[str], Route]]:
    return [(re.compile(re.sub(r"\{\w+\}", "[^/:]+", route.path)), route) for route in ROUTES]
