"""The cluster for its operators: `GET /v1/cluster`, `:drain` and `:undrain`.

A node that is drained gives its shards to the others and gets none, but lives on: it takes requests, and ends what
runs. It learns of it with its next beat.

The view says who is there, who owns what, and whether every near task is armed.

The proof has two halves. Each node tells how far its memory claims to hold the tables and how many tasks it has within
that (`census.py`); then the rows within it are counted. What ends between the two makes rows fewer, so one too many
(`missing`) is a task that nothing has armed. Tasks of the last SETTLE_MS are left out, for the word of them may be on
its way to their owners; a task whose time is moved to an earlier one in just that moment may be counted for once.

Promises: a node that can't be reached in half a second, and rows that can't be counted in time, are null; nothing waits
for either. Of no tenant: its scope is operate.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson
from aiohttp import web

from actors.core.errors import Invalid, Unavailable
from actors.core.reach import Reach
from actors.core.ring import Ring
from actors.ports.cluster import ClusterStore, View
from actors.ports.leases import Peer
from gateway import audit
from gateway.bodies import read_json
from gateway.bounds import NODE, whole
from gateway.context import CALLER, GATEWAY, MembershipPort
from gateway.problems import Handler, Problem
from gateway.schema import NamedNode
from gateway.tasks_api import answer_json, check_parameters

SETTLE_MS = 3_000
MOST = 100_000
"""Where counting the rows of a node ends: more than a memory holds, but for ten thousand queues."""

_named = msgspec.json.Decoder(NamedNode)
_is_name = whole(NODE).match
_Reaches = Mapping[str, list[Reach] | None]


async def cluster(request: web.Request) -> web.StreamResponse:
    """The cluster as the tables have it, and as this node sees it."""
    check_parameters(request, ())
    gateway = request.app[GATEWAY]
    member = gateway.node.membership
    view = await gateway.cluster.view()
    before_us = (gateway.clock.now_ms() - SETTLE_MS) * 1_000
    reaches = await gateway.node.census.of(member.boot, [peer.boot for peer in view.peers], before_us)
    rows = await _rows(gateway.cluster, reaches, before_us)
    shown = _cluster(view, member)
    for node in shown["nodes"]:
        node["armed"] = _armed(reaches.get(node["boot"]), rows.get(node["boot"]))
    return await answer_json(request, orjson.dumps(shown))


async def _rows(store: ClusterStore, reaches: _Reaches, before_us: int) -> dict[str, int]:
    """Boot -> rows within what it claims to hold; nothing of those that are not known in time."""
    told = {boot: some for boot, some in reaches.items() if some is not None}
    try:
        counts = await store.count(list(told.values()), before_us, MOST)
    except Unavailable:
        return {}
    return dict(zip(told, counts, strict=True))


def _armed(reaches: Sequence[Reach] | None, rows: int | None) -> dict[str, int | None] | None:
    if reaches is None:
        return None
    entries = sum(reach.entries for reach in reaches)
    missing = None if rows is None or rows >= MOST else max(rows - entries, 0)
    return {"entries": entries, "rows": rows, "missing": missing}


def _cluster(view: View, member: MembershipPort) -> dict[str, Any]:
    names = {peer.boot: peer.name for peer in view.peers}
    owners = [None if owned.owner is None else names[owned.owner] for owned in view.shards]
    boots = [owned.owner for owned in view.shards]
    ring = Ring((peer.name for peer in view.peers if peer.state == "up"), len(owners))
    return {
        "nodes": [_node(peer, member, boots.count(peer.boot)) for peer in view.peers],
        "shards": [
            {"shard": owned.shard, "owner": owner, "epoch": owned.epoch}
            for owned, owner in zip(view.shards, owners, strict=True)
        ],
        "misplaced": sum(ring.owner(shard) != owner for shard, owner in enumerate(owners)),
        "lease_margin_ms": int(member.margin_ms),
        "counted_to": MOST,
    }


def _node(peer: Peer, member: MembershipPort, shards: int) -> dict[str, Any]:
    return {
        "name": peer.name,
        "boot": peer.boot,
        "address": peer.address,
        "state": peer.state,
        "shards": shards,
        "still_ms": member.still_ms(peer.boot),
        "asked": peer.boot == member.boot,
    }


def marking(state: str) -> Handler:
    """`:drain` and `:undrain`."""

    async def command(request: web.Request) -> web.StreamResponse:
        check_parameters(request, ())
        gateway = request.app[GATEWAY]
        name = _named.decode(await read_json(request, gateway.settings.body_bytes)).node
        if not _is_name(name):
            raise Invalid("is no name of a node", "/node")
        if not await gateway.cluster.mark(name, state):
            raise Problem("not-found", "no such node is there")
        audit.node_marked("drained" if state == "leaving" else "undrained", request[CALLER], name)
        return await answer_json(request, orjson.dumps({"node": name, "state": state}))

    return command
