"""A webhook target to play with, for `ringwheel dev`: answers as told by the path, and shows what it got.

`/ok` answers 200, `/slow?ms=1000` does so late, `/flaky?failures=2` fails the first attempts of each task with 500,
`/later` takes the task to complete it another time, `/status/{code}` answers that code, and `GET /` shows the last
deliveries, as a page or (with `accept: application/json`) as JSON.

Promises: bounded memory. Refuses: bodies of over 1 MiB, and to be anything more than a toy: no checks, no storage.
"""

import asyncio
import time
from collections import OrderedDict, deque
from html import escape

from aiohttp import web

KEPT = 1_000
"""Deliveries that are shown; also the tasks whose failures `/flaky` counts."""
BODY_CHARS = 1_000
MAX_SLOW_MS = 60_000
_BODILESS = frozenset({204, 205, 304})

_PAGE = """<!doctype html><meta charset="utf-8"><title>ringwheel demo target</title>
<style>body{{font:14px system-ui;margin:2em}}td,th{{text-align:left;padding:.2em 1em .2em 0;vertical-align:top}}
td:last-child{{font-family:monospace}}</style>
<h1>{total} deliveries</h1><p>The last {shown}, newest first. Reload to see more.</p>
<table><tr><th>time<th>answer<th>path<th>task<th>attempt<th>queue<th>body</tr>
{rows}</table>"""

Delivery = dict[str, str | int]


class Sink:
    """The demo target's memory and handlers."""

    def __init__(self) -> None:
        self.total = 0
        self.deliveries: deque[Delivery] = deque(maxlen=KEPT)
        self._failures: OrderedDict[str, int] = OrderedDict()

    def app(self) -> web.Application:
        """The application to be served, or mounted under a prefix."""
        app = web.Application()
        app.router.add_get("/", self._show)
        for path, handler in (
            ("/ok", self._ok),
            ("/slow", self._slow),
            ("/flaky", self._flaky),
            ("/later", self._later),
            (r"/status/{code:[2-5]\d\d}", self._status),
        ):
            app.router.add_route("*", path, handler)
        return app

    async def _ok(self, request: web.Request) -> web.Response:
        return await self._answer(request, 200)

    async def _slow(self, request: web.Request) -> web.Response:
        await asyncio.sleep(min(_number(request, "ms", 1_000), MAX_SLOW_MS) / 1000)
        return await self._answer(request, 200)

    async def _flaky(self, request: web.Request) -> web.Response:
        task = request.headers.get("webhook-id", "")
        failed = self._failures.get(task, 0)
        if failed >= _number(request, "failures", 2):
            self._failures.pop(task, None)
            return await self._answer(request, 200)
        self._failures[task] = failed + 1
        if len(self._failures) > KEPT:
            self._failures.popitem(last=False)
        return await self._answer(request, 500)

    async def _later(self, request: web.Request) -> web.Response:
        answer = await self._answer(request, 202)
        answer.headers["ringwheel-complete"] = "later"
        return answer

    async def _status(self, request: web.Request) -> web.Response:
        return await self._answer(request, int(request.match_info["code"]))

    async def _answer(self, request: web.Request, status: int) -> web.Response:
        body = await request.read()
        self.total += 1
        self.deliveries.append(
            {
                "time": time.strftime("%H:%M:%S"),
                "status": status,
                "path": request.path_qs,
                "task": request.headers.get("webhook-id", ""),
                "attempt": request.headers.get("ringwheel-attempt", ""),
                "queue": request.headers.get("ringwheel-queue", ""),
                "body": body[:BODY_CHARS].decode("utf-8", "replace"),
            }
        )
        return (
            web.Response(status=status) if status in _BODILESS else web.json_response({"status": status}, status=status)
        )

    async def _show(self, request: web.Request) -> web.Response:
        newest_first = list(reversed(self.deliveries))
        if "application/json" in request.headers.get("accept", ""):
            return web.json_response({"total": self.total, "deliveries": newest_first})
        rows = "\n".join(
            "<tr>" + "".join(f"<td>{escape(str(value))}" for value in delivery.values()) + "</tr>"
            for delivery in newest_first
        )
        page = _PAGE.format(total=self.total, shown=len(newest_first), rows=rows)
        return web.Response(text=page, content_type="text/html")


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    return int(text[:9]) if text.isascii() and text.isdigit() else default
