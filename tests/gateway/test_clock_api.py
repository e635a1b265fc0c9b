"""Virtual time: set forward in `ringwheel dev` with one node, refused elsewhere."""

from typing import Any

import pytest

from gateway.times import YEAR_MS
from tests.gateway.served import served

PATH = "/v1/clock:advance"


@pytest.mark.parametrize(
    ("by", "by_ms"), [(0, 0), (1.5, 1_500), ("1h30m", 5_400_000), ("250ms", 250), (YEAR_MS // 1000, YEAR_MS)]
)
async def test_the_clock_is_set_forward(by: Any, by_ms: int) -> None:
    async with served() as world:
        world.gateway.movable_clock = True
        answer = await world.post(PATH, {"by": by})
        assert (answer.status, answer.json) == (200, {"time": "2026-09-21T14:13:20.000Z"})
        assert world.node.advanced_ms == by_ms


async def test_elsewhere_time_is_what_it_is() -> None:
    async with served() as world:
        answer = await world.post(PATH, {"by": 1})
        assert (answer.status, answer.json["type"]) == (409, "conflict")
        assert "state" not in answer.json, "it is no task that refuses"
        assert world.node.advanced_ms == 0


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({}, 422, "/by"),
        ({"by": -1}, 422, "/by"),
        ({"by": "soon"}, 422, "/by"),
        ({"by": "366d"}, 422, "/by"),
        ({"by": None}, 422, "/by"),
        ({"by": 1, "to": 2}, 422, "/to"),
        (b"", 400, ""),
    ],
)
@pytest.mark.parametrize("movable", [True, False])
async def test_bodies_are_checked(body: Any, status: int, pointer: str, movable: bool) -> None:
    async with served() as world:
        world.gateway.movable_clock = movable
        answer = await world.post(PATH, body)
        assert (answer.status, answer.pointers, world.node.advanced_ms) == (status, [pointer], 0)
