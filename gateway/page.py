"""`GET /docs`: a page that shows the document of the API and can try a call.

It is three files of this package and needs nothing else. Its policy lets a browser load from this origin alone, run no
script but the page's, send no form, and show it in no frame.
"""

from importlib.resources import files

from aiohttp import web

from gateway.problems import Problem

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
MEDIA_TYPES = {"docs.html": "text/html", "docs.css": "text/css", "docs.js": "text/javascript"}
"""The files of the page; there are no others."""


async def docs(request: web.Request) -> web.StreamResponse:
    """`GET /docs`."""
    return _file("docs.html")


async def docs_file(request: web.Request) -> web.StreamResponse:
    """`GET /docs/{file}`: what the page is made of."""
    name = request.match_info["file"]
    if name not in MEDIA_TYPES:
        raise Problem("not-found", "there is no such file")
    return _file(name)


def _file(name: str) -> web.Response:
    body = files("gateway").joinpath("static", name).read_bytes()
    return web.Response(body=body, content_type=MEDIA_TYPES[name], charset="utf-8", headers=PAGE_HEADERS)
