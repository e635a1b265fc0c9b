"""The HTTP application: the route table, and nothing else.

Every handler is wrapped by `answering` (no middleware: that would cost each request another call), and a last route
takes what no other took, so that all errors are problem details.
"""

from functools import partial

from aiohttp import web

from actors.core.task import Move
from gateway import commands_api, probes, tasks_api
from gateway.context import GATEWAY, Gateway
from gateway.decode import TaskDecoder
from gateway.events import events
from gateway.metrics import LoopLag, NodeCollector, metrics
from gateway.problems import answering, no_route
from gateway.stream import stream

TASK = "/v1/tasks/{id:[^/:]+}"


def make_app(gateway: Gateway, lag: LoopLag | None = None) -> web.Application:
    """The application on top of `gateway`. Whoever runs `lag` gets the loop's delay into the metrics."""
    app = web.Application()
    app[GATEWAY] = gateway
    app[probes.STARTUP] = probes.Startup()
    app[tasks_api.DECODER] = TaskDecoder(
        gateway.queues, gateway.queue_store, gateway.codec, gateway.settings.payload_bytes
    )
    gateway.registry.register(NodeCollector(gateway.node, lag or LoopLag()))
    for method, path, handler in (
        ("POST", "/v1/tasks", tasks_api.create),
        ("POST", "/v1/tasks:batch", tasks_api.create_batch),
        ("GET", "/v1/tasks", tasks_api.page),
        ("GET", TASK, tasks_api.get),
        ("GET", f"{TASK}/attempts", tasks_api.attempts),
        ("POST", f"{TASK}:cancel", commands_api.plain(Move.CANCEL)),
        ("POST", f"{TASK}:run", commands_api.plain(Move.RUN)),
        ("POST", f"{TASK}:redrive", commands_api.plain(Move.REDRIVE)),
        ("POST", f"{TASK}:reschedule", commands_api.reschedule),
        ("POST", f"{TASK}:complete", commands_api.complete),
        ("GET", "/v1/stream", stream),
        ("GET", "/v1/events", events),
        ("GET", "/livez", probes.livez),
        ("GET", "/readyz", probes.readyz),
        ("GET", "/startupz", probes.startupz),
        ("GET", "/metrics", metrics),
        ("*", "/{rest:.*}", no_route),
    ):
        add = app.router.add_get if method == "GET" else partial(app.router.add_route, method)
        add(path, answering(handler))
    return app
