"""The HTTP application: the table of routes (`routes.py`) on a router, and nothing else.

Every route says who may call it (`auth.py`). Every handler is wrapped by `answering` (no middleware: that would cost
each request another call), and a last route takes what no other took, so that all errors are problem details.
"""

import re
from functools import partial

from aiohttp import HttpVersion11, hdrs, web

from gateway import probes
from gateway.auth import guarded
from gateway.bodies import CONTINUE, array_of
from gateway.context import GATEWAY, Gateway
from gateway.contract_api import CONTRACT, Contract
from gateway.decode import DECODER, TaskDecoder
from gateway.express import EXPRESS, Express
from gateway.link import PATH
from gateway.metrics import LoopLag, NodeCollector
from gateway.peers import PEERS, Peers, peer
from gateway.problems import Problem, answering, no_route
from gateway.routes import ROUTES

_PARAMETER = re.compile(r"\{(\w+)\}")


def make_app(gateway: Gateway, lag: LoopLag | None = None, peers: Peers | None = None) -> web.Application:
    """The application on top of `gateway`. Whoever runs `lag` gets the loop's delay into the metrics.

    `peers` get a path of their own, which is no part of the API.
    """
    app = web.Application()
    app[GATEWAY] = gateway
    app[probes.STARTUP] = probes.Startup()
    array_of(gateway.settings.batch_items)  # made now: the first long batch would stop the loop for it
    app[DECODER] = TaskDecoder(
        gateway.queues, gateway.queue_store, gateway.codec, gateway.settings.payload_bytes, gateway.patience
    )
    app[EXPRESS] = Express(gateway, app[DECODER])
    gateway.registry.register(NodeCollector(gateway.node, gateway.crew, lag or LoopLag()))
    app[CONTRACT] = Contract(ROUTES)
    for route in ROUTES:
        add = partial(app.router.add_route, route.method)
        if route.method == "GET":
            add = partial(app.router.add_get, allow_head=not route.endless)
        handler = guarded(gateway.keyring, route.access, route.handler)
        add(_PARAMETER.sub(r"{\1:[^/:]+}", route.path), answering(handler), expect_handler=_expect)
    if peers is not None:
        app[PEERS] = peers
        app.router.add_route("GET", PATH, answering(peer))
    app.router.add_route("*", r"/{rest:[\s\S]*}", answering(no_route), expect_handler=_expect)
    return app


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Refuse an expectation that can't be met. Whoever reads the body meets the other one (`bodies.py`)."""
    if request.version < HttpVersion11 or request.headers[hdrs.EXPECT].lower() == CONTINUE:
        return None
    return Problem("unreadable", "no expectation but 100-continue is met").response(request.raw_path)
