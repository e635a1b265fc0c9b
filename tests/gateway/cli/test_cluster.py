"""`nodes`, `shards` and `ring plan`, as real processes against a service that answers as told."""

from typing import Any

import pytest

from actors.core.ring import Ring, moves
from tests.gateway.cli.double import a_problem, double

SHARDS = 16


def a_node(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "boot": f"boot-{name}",
        "address": f"{name}:7070",
        "state": "up",
        "shards": 8,
        "still_ms": 100,
        "asked": name == "a",
        "armed": {"entries": 5, "rows": 5, "missing": 0},
    } | more


def a_cluster(*nodes: dict[str, Any], orphans: tuple[int, ...] = ()) -> dict[str, Any]:
    """The first node owns the even shards, the last one the odd ones."""
    ends = nodes[0]["name"], nodes[-1]["name"]
    owners = [None if shard in orphans else ends[shard % 2] for shard in range(SHARDS)]
    shards = [{"shard": shard, "owner": owner, "epoch": 3} for shard, owner in enumerate(owners)]
    return {"nodes": [*nodes], "shards": shards, "misplaced": 2, "lease_margin_ms": 3_700, "counted_to": 100_000}


TWO = a_cluster(a_node("a"), a_node("b"))


@pytest.mark.parametrize(
    ("armed", "words"),
    [
        ({"entries": 4, "rows": 5, "missing": 0}, "every near task is armed"),
        ({"entries": 4, "rows": 5, "missing": 1}, "near tasks that are not armed: 1"),
        ({"entries": 4, "rows": None, "missing": None}, "not all nodes could tell what they hold"),
        (None, "not all nodes could tell what they hold"),
    ],
)
async def test_nodes_says_at_a_glance_whether_all_is_armed(armed: dict[str, Any] | None, words: str) -> None:
    async with double() as service:
        service.answer(a_cluster(a_node("a"), a_node("b", armed=armed, still_ms=None, state="leaving")))
        done = await service.run("nodes")
        assert done.code == 0
        head, first, second, proof = done.out.splitlines()
        assert head.split()[:3] == ["name", "state", "shards"]
        assert first.split() == ["a", "*", "up", "8", "100", "5", "5", "0", "a:7070", "boot-a"]
        figures = ["?" if figure is None else str(figure) for figure in (armed or dict.fromkeys("abc")).values()]
        assert second.split() == ["b", "leaving", "8", "?", *figures, "b:7070", "boot-b"]
        assert proof == f"{words}; 2 of 16 shards are not where the ring wants them"
        assert [asked.line for asked in service.asked] == ["GET /v1/cluster"]


async def test_nodes_as_json_is_one_object_a_line() -> None:
    async with double() as service:
        service.answer(TWO)
        done = await service.run("nodes", "--json")
        assert (done.code, done.json) == (0, TWO["nodes"])


async def test_shards_are_shown_with_their_owners() -> None:
    async with double() as service:
        service.answer(a_cluster(a_node("a"), a_node("b"), orphans=(1,)))
        lines = (await service.run("shards")).out.splitlines()
        assert [line.split() for line in lines[:3]] == [
            ["shard", "owner", "epoch"],
            ["0", "a", "3"],
            ["1", "nobody", "3"],
        ]
        assert len(lines) == 1 + SHARDS


async def test_shards_of_one_node() -> None:
    async with double() as service:
        for name, code, shown in (("b", 0, TWO["shards"][1::2]), ("c", 3, [])):
            service.answer(TWO)
            done = await service.run("shards", "--node", name, "--json")
            assert (done.code, done.json) == (code, shown)


async def test_a_plan_tells_what_the_ring_would_move() -> None:
    async with double() as service:
        service.answer(a_cluster(a_node("a"), a_node("b"), a_node("gone", state="leaving"), a_node("c")))
        done = await service.run("ring", "plan", "--add", "d", "--add", "e", "--remove", "b", "--json")
        assert done.code == 0
        (plan,) = done.json
        old, new = Ring("abc", SHARDS), Ring("acde", SHARDS)
        expected = moves(old, new)
        assert plan["count"] == len(expected) > 0
        assert [(move["shard"], move["from"], move["to"]) for move in plan["moves"]] == expected
        assert plan["nodes"] == [
            {"name": name, "before": len(old.shards_of(name)), "after": len(new.shards_of(name))} for name in "abcde"
        ]


async def test_a_plan_as_a_table() -> None:
    async with double() as service:
        service.answer(TWO)
        lines = (await service.run("ring", "plan", "--remove", "b")).out.splitlines()
        theirs = len(Ring("ab", SHARDS).shards_of("b"))
        assert [line.split() for line in lines[:-1]] == [
            ["name", "before", "after", "change"],
            ["a", str(SHARDS - theirs), str(SHARDS), f"+{theirs}"],
            ["b", str(theirs), "0", f"-{theirs}"],
        ]
        assert lines[-1] == f"{theirs} of 16 shards would move"


@pytest.mark.parametrize(
    ("words", "code", "detail"),
    [
        (("--add", "a"), 4, "'a' is there already"),
        (("--remove", "x"), 3, "no node 'x' is up"),
        (("--remove", "a", "--remove", "b"), 4, "no node would be left"),
    ],
)
async def test_a_plan_that_can_not_be(words: tuple[str, ...], code: int, detail: str) -> None:
    async with double() as service:
        service.answer(TWO)
        done = await service.run("ring", "plan", *words)
        assert (done.code, done.out) == (code, "")
        assert detail in done.err


@pytest.mark.parametrize("words", [("nodes",), ("shards",), ("ring", "plan", "--add", "x")])
async def test_who_may_not_look_is_told(words: tuple[str, ...]) -> None:
    async with double() as service:
        service.answer(a_problem(403, "Not allowed", "the key lacks the scope operate"), 403)
        done = await service.run(*words)
        assert (done.code, done.out) == (1, "")
        assert "lacks the scope" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("ring", "plan", "--add", ""),
        ("ring", "plan", "--remove", "a\tb"),
        ("drain", "x" * 256),
        ("shards", "--node", ""),
    ],
)
async def test_what_no_node_can_be_called_is_bad_usage(words: tuple[str, ...]) -> None:
    async with double() as service:
        done = await service.run(*words)
        assert (done.code, done.out, service.asked) == (2, "", [])
        assert "1 to 255 characters" in done.err


async def test_drain_waits_until_the_node_owns_none() -> None:
    async with double() as service:
        service.answer({"node": "b", "state": "leaving"})
        for last in ("b", "b", "a"):
            service.answer(a_cluster(*([a_node("a"), a_node("b")] if last == "b" else [a_node("a")])))
        done = await service.run("drain", "b")
        assert (done.code, done.out) == (0, "b gives its shards away; it owns 0\n")
        assert [asked.line for asked in service.asked] == ["POST /v1/cluster:drain", *["GET /v1/cluster"] * 3]


async def test_drain_that_takes_too_long_says_what_is_left() -> None:
    async with double() as service:
        service.answer({"node": "b", "state": "leaving"})
        for _ in range(20):
            service.answer(TWO)
        done = await service.run("drain", "b", "--wait", "0.6", "--json")
        assert done.code == 1
        assert done.json == [{"node": "b", "state": "leaving", "shards": 8}]


async def test_drain_of_the_last_node_says_why_it_keeps_its_shards() -> None:
    async with double() as service:
        service.answer({"node": "a", "state": "leaving"})
        for _ in range(20):
            service.answer(a_cluster(a_node("a", state="leaving")))
        done = await service.run("drain", "a", "--wait", "0.6")
        assert (done.code, done.out) == (
            1,
            "a gives its shards away; it owns 16, and no other node is up to take them\n",
        )


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "soon"])
async def test_drain_waits_for_a_time_that_there_is(wait: str) -> None:
    async with double() as service:
        done = await service.run("drain", "a", "--wait", wait)
        assert (done.code, service.asked) == (2, [])


async def test_drain_can_be_taken_back() -> None:
    async with double() as service:
        service.answer({"node": "b", "state": "up"})
        done = await service.run("drain", "b", "--undo")
        assert (done.code, done.out) == (0, "b takes its part again\n")
        assert [asked.line for asked in service.asked] == ["POST /v1/cluster:undrain"]


async def test_drain_of_nobody_is_not_found() -> None:
    async with double() as service:
        service.answer(a_problem(404, "Not found", "no such node is there"), status=404)
        assert (await service.run("drain", "nobody")).code == 3
