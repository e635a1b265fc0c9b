"""Answers whose bytes are ready: status line, headers and body in one write.

The answers of the hot path are small and all alike; aiohttp's own response costs more than everything else that a
single submit does (`python -m bench single`). Only for HTTP/1.1 connections that stay open; `answer` sends all others
the long way. Where there is no request to answer, or not yet, the bytes alone are written (`written`).
"""

from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from time import time
from wsgiref.handlers import format_date_time

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_request import BaseRequest

JSON = "application/json"
_LINES = {int(status): f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class _Ready(web.Response):
    """Prepared bytes; never made by aiohttp's own means, so none of its state is set up."""

    def __init__(self, data: bytes, status: int) -> None:
        # Response.__init__ is what this class is there to avoid.
        self._data = data
        self._ready_status = status

    @property
    def status(self) -> int:
        return self._ready_status

    @property
    def keep_alive(self) -> bool | None:
        return True

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        self._transport = request.transport
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        if self._transport is not None:
            self._transport.write(self._data)


def answer(request: web.Request, status: int, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """A JSON answer with these headers."""
    if not request.keep_alive or request.version != HttpVersion11:
        return web.Response(body=body, status=status, headers={"Content-Type": JSON, **headers})
    return _Ready(written(status, body, headers), status)


def written(status: int, body: bytes, headers: Mapping[str, str], media_type: str = JSON) -> bytes:
    """A whole HTTP/1.1 answer."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = (
        f"{_LINES[status]}Content-Type: {media_type}\r\n{lines}"
        f"Content-Length: {len(body)}\r\nDate: {_date(int(time()))}\r\n\r\n"
    )
    return head.encode() + body


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return format_date_time(second)
