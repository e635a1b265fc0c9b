"""The HTTP server below the application: what happens to a connection before a request reaches a handler.

aiohttp's own, but that bytes which are no HTTP get a problem like every other error, a line at debug level instead of a
traceback (anyone can send them, as often as they like), and the end of their connection.
"""

import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, InvalidURLError, LineTooLong

from gateway.problems import Problem

DETAIL_CHARS = 200
_log = logging.getLogger(__name__)


class Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be parsed; all else that comes here has escaped from the application."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        detail = _words(exc)
        _log.debug("no valid HTTP from %s: %s", request.remote, detail)
        response = Problem("malformed", detail).response(request.raw_path)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """For what surfaced where no answer could follow; a damaged rest of a body is the client's affair."""
        error = options.get("exc_info")
        if isinstance(error, web.RequestPayloadError):
            _log.debug("damaged body: %s", error)
        else:
            super().log_exception(*args, **options)


class Server(web.Server):
    """Makes the connections."""

    def __call__(self) -> Connection:
        """A new connection, for the event loop."""
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on a `Server`."""

    __slots__ = ()

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        return Server(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,
            **made._kwargs,
        )


def _words(error: HttpProcessingError) -> str:
    """One short line; none of the client's own bytes, where they may be many."""
    match error:
        case LineTooLong():
            return f"the request line or a header is longer than {error.args[1]} bytes"
        case InvalidURLError():
            return "the URL can't be read"
    return error.message.partition("\n")[0].rstrip(": ")[:DETAIL_CHARS]
