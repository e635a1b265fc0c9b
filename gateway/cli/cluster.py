"""`nodes`, `shards`, `ring plan` and `drain`: the cluster as the service shows it, what would move if
nodes came or went, and a node that is to give its shards away.
"""

from typing import TYPE_CHECKING, Any

import click

from gateway.cli.exits import Exit, carry_out, show_problem
from gateway.cli.options import NODE_NAME, client_options, finite
from gateway.cli.streams import say

if TYPE_CHECKING:
    from actors.core.ring import Ring

PATH = "/v1/cluster"
POLL_S = 0.25


@click.command()
@client_options
def nodes_command(url: str, as_json: bool) -> None:
    """Show the nodes, and whether every near task is armed (with --json: one object a line)."""
    carry_out(_nodes(url, as_json), as_json)


async def _nodes(url: str, as_json: bool) -> Exit:
    from gateway.cli.show import node_table, show, show_json

    found = await _cluster(url)
    if as_json:
        for node in found["nodes"]:
            show_json(node)
        return Exit.OK
    show(node_table(found["nodes"]))
    misplaced = f"{found['misplaced']} of {len(found['shards'])} shards are not where the ring wants them"
    say(f"{_proof(found['nodes'])}; {misplaced}")
    return Exit.OK


def _proof(nodes: list[dict[str, Any]]) -> str:
    missing = [(node["armed"] or {}).get("missing") for node in nodes]
    count = sum(number or 0 for number in missing)
    if count:
        return f"near tasks that are not armed: {count}"
    return "not all nodes could tell what they hold" if None in missing else "every near task is armed"


@click.command()
@click.option("--node", type=NODE_NAME, metavar="NAME", help="Only those that this node owns.")
@client_options
def shards_command(node: str | None, url: str, as_json: bool) -> None:
    """Show who owns which shard (with --json: one object a line)."""
    carry_out(_shards(url, node, as_json), as_json)


async def _shards(url: str, name: str | None, as_json: bool) -> Exit:
    from gateway.cli.show import shard_table, show, show_json

    found = await _cluster(url)
    if name is not None and name not in _names(found):
        return _refuse(Exit.NOT_FOUND, f"no node {name!r} is there", as_json)
    shards = [shard for shard in found["shards"] if name in (None, shard["owner"])]
    if as_json:
        for shard in shards:
            show_json(shard)
    else:
        show(shard_table(shards))
    return Exit.OK


@click.group()
def ring_command() -> None:
    """Plan which shards go where."""


@ring_command.command("plan")
@click.option("--add", type=NODE_NAME, multiple=True, metavar="NAME", help="A node that would come; may be repeated.")
@click.option("--remove", type=NODE_NAME, multiple=True, metavar="NAME", help="A node that would go; may be repeated.")
@client_options
def plan_command(add: tuple[str, ...], remove: tuple[str, ...], url: str, as_json: bool) -> None:
    """Show what would move if nodes came or went. Nothing is changed."""
    if not (add or remove):
        raise click.UsageError("name a node with --add or --remove")
    if both := set(add) & set(remove):
        raise click.UsageError(f"{min(both)} can't both come and go")
    carry_out(_plan(url, set(add), set(remove), as_json), as_json)


async def _plan(url: str, add: set[str], remove: set[str], as_json: bool) -> Exit:
    from actors.core.ring import Ring, moves
    from gateway.cli.show import plan_table, show, show_json

    found = await _cluster(url)
    names, shards = _names(found, "up"), len(found["shards"])
    if there := add & names:
        return _refuse(Exit.CONFLICT, f"{min(there)!r} is there already", as_json)
    if unknown := remove - names:
        return _refuse(Exit.NOT_FOUND, f"no node {min(unknown)!r} is up", as_json)
    if names | add == remove:
        return _refuse(Exit.CONFLICT, "no node would be left", as_json)
    old, new = Ring(names, shards), Ring((names | add) - remove, shards)
    moved = moves(old, new)
    changed = [_change(name, old, new) for name in sorted(names | add)]
    if as_json:
        listed = [{"shard": shard, "from": before, "to": after} for shard, before, after in moved]
        show_json({"count": len(moved), "nodes": changed, "moves": listed})
    else:
        show(plan_table(changed))
        say(f"{len(moved)} of {shards} shards would move")
    return Exit.OK


def _change(name: str, old: "Ring", new: "Ring") -> dict[str, Any]:
    return {"name": name, "before": len(old.shards_of(name)), "after": len(new.shards_of(name))}


async def _cluster(url: str) -> dict[str, Any]:
    from gateway.cli.api import connected

    async with connected(url) as api:
        return await api.get(PATH)


def _names(found: dict[str, Any], *states: str) -> set[str]:
    """Of the nodes that are there, or in one of these states."""
    return {node["name"] for node in found["nodes"] if not states or node["state"] in states}


def _refuse(code: Exit, detail: str, as_json: bool) -> Exit:
    titles = {Exit.NOT_FOUND: "Not found", Exit.CONFLICT: "Not possible"}
    show_problem({"title": titles[code], "detail": detail}, as_json)
    return code


@click.command()
@click.argument("name", type=NODE_NAME)
@click.option("--undo", is_flag=True, help="Have it take its part again.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    callback=lambda _ctx, _param, value: finite(value),
    help="Seconds to wait until it owns none.",
)
@client_options
def drain_command(name: str, undo: bool, wait_s: float, url: str, as_json: bool) -> None:
    """Have the node NAME give its shards to the others. It lives on; to end it, send it SIGTERM."""
    carry_out(_drain(url, name, undo, wait_s, as_json), as_json)


async def _drain(url: str, name: str, undo: bool, wait_s: float, as_json: bool) -> Exit:
    import asyncio

    import orjson

    from gateway.cli.api import connected
    from gateway.cli.show import show_json

    async with connected(url) as api:
        marked = await api.post(f"{PATH}:{'undrain' if undo else 'drain'}", orjson.dumps({"node": name}))
        shards: int | None = None
        others: set[str] = set()
        try:
            async with asyncio.timeout(wait_s):
                while not undo and shards != 0:
                    found = await api.get(PATH)
                    shards = sum(shard["owner"] == name for shard in found["shards"])
                    others = _names(found, "up")
                    await asyncio.sleep(POLL_S if shards else 0)
        except TimeoutError:
            pass
    if as_json:
        show_json(marked | ({} if shards is None else {"shards": shards}))
    elif undo:
        say(f"{name} takes its part again")
    else:
        nobody = "" if others or not shards else ", and no other node is up to take them"
        say(f"{name} gives its shards away" + ("" if shards is None else f"; it owns {shards}{nobody}"))
    return Exit.FAILED if wait_s and shards else Exit.OK
