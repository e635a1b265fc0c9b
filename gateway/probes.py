"""Probes for whoever runs the process: alive, started, ready. None of them asks the database."""

import orjson
from aiohttp import web

from actors.core.errors import Unavailable
from gateway.bodies import JSON
from gateway.context import GATEWAY
from gateway.problems import GOING_AWAY

_ANSWERS = {word: orjson.dumps({"status": word}) for word in ("alive", "started", "ready")}


class Startup:
    """Whether the node was ready once."""

    def __init__(self) -> None:
        self.over = False


STARTUP: web.AppKey[Startup] = web.AppKey("startup", Startup)


async def livez(request: web.Request) -> web.StreamResponse:
    """200 as long as the loop turns."""
    return _ok("alive")


async def readyz(request: web.Request) -> web.StreamResponse:
    """200 while new work may be sent here."""
    gateway = request.app[GATEWAY]
    if gateway.draining:
        raise Unavailable(GOING_AWAY)
    if not gateway.node.ready:
        raise Unavailable("this node has not what it needs yet")
    return _ok("ready")


async def startupz(request: web.Request) -> web.StreamResponse:
    """200 from the first moment of readiness on, for ever."""
    startup = request.app[STARTUP]
    startup.over = startup.over or request.app[GATEWAY].node.ready
    if not startup.over:
        raise Unavailable("this node is still starting")
    return _ok("started")


def _ok(word: str) -> web.Response:
    return web.Response(body=_ANSWERS[word], content_type=JSON)
