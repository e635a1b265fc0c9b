"""The document of the API: valid, complete, and served as prepared bytes."""

import re
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from actors.core.errors import Invalid
from gateway import bounds
from gateway.decode import check_key, check_queue
from gateway.filters import labels_of
from gateway.openapi import describe, document
from gateway.routes import ROUTES
from tests.gateway.served import served

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def shown() -> dict[str, Any]:
    body: dict[str, Any] = orjson.loads(document(ROUTES).body)
    return body


def operations(shown: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(method.upper(), path): item[method] for path, item in shown["paths"].items() for method in item}


def test_it_is_valid(shown: dict[str, Any]) -> None:
    assert shown["openapi"].startswith("3.1.")
    validate(shown, cls=OpenAPIV31SpecValidator)


async def test_every_route_is_in_it_and_nothing_else(shown: dict[str, Any]) -> None:
    async with served() as world:
        assert world.server.runner is not None
        app = world.server.runner._app  # type: ignore[attr-defined]
        assert isinstance(app, web.Application)
        served_routes = {
            (route.method, re.sub(r":\[[^]]*\]\+", "", route.resource.canonical))
            for route in app.router.routes()
            if route.resource is not None and route.method not in ("HEAD", "*")
        }
    assert set(operations(shown)) == served_routes
    assert len(served_routes) == len(ROUTES)


def test_names_are_unique_and_every_operation_says_what_it_does(shown: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(shown).values()]
    assert len(set(names)) == len(names)
    for operation in operations(shown).values():
        assert operation["summary"]
        assert operation["responses"]


def test_what_needs_a_key_says_which_scope(shown: dict[str, Any]) -> None:
    for (_, path), operation in operations(shown).items():
        scopes = [scope for way in operation["security"] for scope in way.get("key", ())]
        assert bool(scopes) == (path.startswith("/v1/") or path == "/metrics"), path
        assert {"401", "403"} <= set(operation["responses"]) or not scopes


async def test_it_is_served_as_prepared_bytes_with_a_tag() -> None:
    async with served() as world:
        first = await world.get("/openapi.json")
        assert (first.status, first.headers["Content-Type"]) == (200, "application/json")
        assert first.json == describe(ROUTES)
        tag = first.headers["ETag"]
        for asked in (tag, f'"other", W/{tag}', "*"):
            again = await world.get("/openapi.json", headers={"If-None-Match": asked})
            assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        assert (await world.get("/openapi.json", headers={"If-None-Match": '"other"'})).status == 200


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/events"])
def test_labels_are_a_parameter_that_tools_write_as_it_is_read(shown: dict[str, Any], path: str) -> None:
    labels = {one["name"]: one for one in shown["paths"][path]["get"]["parameters"]}["labels"]
    assert (labels["in"], labels["style"], labels["explode"]) == ("query", "form", True)
    request = make_mocked_request("GET", f"{path}?{urlencode(labels['schema']['example'])}")
    assert labels_of(request) == {"customer": "7"}
    names = re.compile(labels["schema"]["propertyNames"]["pattern"])
    others = {one["name"] for one in shown["paths"][path]["get"]["parameters"]}
    assert not any(names.match(other) for other in others), "no label is taken for another parameter"
    values = re.compile(labels["schema"]["additionalProperties"]["pattern"].replace("$", r"\Z"))
    assert [values.match(text) is not None for text in ("7", "", "\n", "x" * 256)] == [True, True, False, False]


@pytest.mark.parametrize("name", ["a", "a.b-c_9", "x" * 100, "", "x" * 101, "a b", "ä", "a\n", "a/b"])
def test_queue_names_are_told_as_they_are_checked(name: str) -> None:
    told = re.compile(bounds.published(bounds.QUEUE).replace("$", r"\Z")).match(name) is not None
    assert told == (_raised(check_queue, name) is None)


@pytest.mark.parametrize("key", ["k", " ", "~" * 255, "", "k" * 256, "ä", "k\n", "\x7f"])
def test_keys_are_told_as_they_are_checked(key: str) -> None:
    told = re.compile(bounds.published(bounds.KEY).replace("$", r"\Z")).match(key) is not None
    assert told == (_raised(check_key, key) is None)


def _raised(check: Any, text: str) -> Exception | None:
    try:
        check(text, "")
    except Invalid as error:
        return error
    return None
