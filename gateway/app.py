"""The HTTP application: the route table, and nothing else.

Every route says who may call it (`auth.py`). Every handler is wrapped by `answering` (no middleware: that would cost
each request another call), and a last route takes what no other took, so that all errors are problem details.
"""

from functools import partial

from aiohttp import web

from actors.core.task import Move
from gateway import commands_api, probes, queues_api, tasks_api
from gateway.auth import ADMIN, METRICS, OPEN, READ, SUBMIT, WATCH, WORK, guarded
from gateway.context import GATEWAY, Gateway
from gateway.decode import TaskDecoder
from gateway.events import events
from gateway.metrics import LoopLag, NodeCollector, metrics
from gateway.problems import answering, no_route
from gateway.stream import stream

TASK = "/v1/tasks/{id:[^/:]+}"
QUEUE = "/v1/queues/{queue:[^/:]+}"


def make_app(gateway: Gateway, lag: LoopLag | None = None) -> web.Application:
    """The application on top of `gateway`. Whoever runs `lag` gets the loop's delay into the metrics."""
    app = web.Application()
    app[GATEWAY] = gateway
    app[probes.STARTUP] = probes.Startup()
    app[tasks_api.DECODER] = TaskDecoder(
        gateway.queues, gateway.queue_store, gateway.codec, gateway.settings.payload_bytes
    )
    gateway.registry.register(NodeCollector(gateway.node, lag or LoopLag()))
    for method, path, access, handler in (
        ("POST", "/v1/tasks", SUBMIT, tasks_api.create),
        ("POST", "/v1/tasks:batch", SUBMIT, tasks_api.create_batch),
        ("GET", "/v1/tasks", READ, tasks_api.page),
        ("GET", TASK, READ, tasks_api.get),
        ("GET", f"{TASK}/attempts", READ, tasks_api.attempts),
        ("POST", f"{TASK}:cancel", SUBMIT, commands_api.plain(Move.CANCEL)),
        ("POST", f"{TASK}:run", SUBMIT, commands_api.plain(Move.RUN)),
        ("POST", f"{TASK}:redrive", SUBMIT, commands_api.plain(Move.REDRIVE)),
        ("POST", f"{TASK}:reschedule", SUBMIT, commands_api.reschedule),
        ("POST", f"{TASK}:complete", WORK, commands_api.complete),
        ("GET", "/v1/queues", READ, queues_api.page),
        ("GET", QUEUE, READ, queues_api.get),
        ("PUT", QUEUE, ADMIN, queues_api.put),
        ("PATCH", QUEUE, ADMIN, queues_api.patch),
        ("DELETE", QUEUE, ADMIN, queues_api.delete),
        ("POST", f"{QUEUE}:pause", ADMIN, queues_api.pausing(paused=True)),
        ("POST", f"{QUEUE}:resume", ADMIN, queues_api.pausing(paused=False)),
        ("POST", f"{QUEUE}:purge", ADMIN, queues_api.purge),
        ("GET", "/v1/stream", WATCH, stream),
        ("GET", "/v1/events", READ, events),
        ("GET", "/livez", OPEN, probes.livez),
        ("GET", "/readyz", OPEN, probes.readyz),
        ("GET", "/startupz", OPEN, probes.startupz),
        ("GET", "/metrics", METRICS, metrics),
        ("*", "/{rest:.*}", OPEN, no_route),
    ):
        add = app.router.add_get if method == "GET" else partial(app.router.add_route, method)
        add(path, answering(guarded(gateway.keyring, access, handler)))
    return app
