"""`GET /openapi.json`: the document of the API, built when it is first asked for, once a process."""

from collections.abc import Sequence
from functools import cached_property

from aiohttp import web

from gateway.bodies import JSON
from gateway.openapi import Document, document
from gateway.route import Route


class Contract:
    """What an application says of itself."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    @cached_property
    def document(self) -> Document:
        """The document of its routes."""
        return document(self._routes)


CONTRACT: web.AppKey[Contract] = web.AppKey("contract", Contract)


async def openapi(request: web.Request) -> web.StreamResponse:
    """`GET /openapi.json`."""
    shown = request.app[CONTRACT].document
    headers = {"ETag": shown.etag, "Cache-Control": "no-cache"}
    if any(tag.value in (shown.etag.strip('"'), "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=shown.body, content_type=JSON, headers=headers)
