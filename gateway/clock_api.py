"""`POST /v1/clock:advance`: virtual time for users' tests, in `ringwheel dev` with one node alone.

The node's clock goes on from where it is set, and what is due by then fires. The database's own clock stands as it is:
on more than one node, or after a restart, the two would tell different times.
"""

import msgspec
import orjson
from aiohttp import web

from actors.core.errors import Conflict
from gateway.bodies import JSON, read_json
from gateway.context import GATEWAY
from gateway.faults import decoded
from gateway.schema import Advance
from gateway.times import YEAR_MS, duration_ms, time_text

_advance = msgspec.json.Decoder(Advance)


async def advance(request: web.Request) -> web.StreamResponse:
    """Set the clock forward."""
    gateway = request.app[GATEWAY]
    body = decoded(_advance, await read_json(request, gateway.settings.body_bytes))
    by_ms = duration_ms(body.by, "/by", 0, YEAR_MS)
    if not gateway.movable_clock:
        raise Conflict("the clock can be set forward in `ringwheel dev` with one node alone", "")
    gateway.node.advance(by_ms)
    return web.Response(body=orjson.dumps({"time": time_text(gateway.clock.now_ms())}), content_type=JSON)
