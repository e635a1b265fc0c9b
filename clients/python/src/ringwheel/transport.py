"""Requests to a service of one or several nodes, tried again until there is an answer or patience ends: at each node
once at least, for one that hangs takes all of a try's time.

Tried again: what was not answered, 429 and 5xx, with back-off, after `Retry-After` if it says so, at the next URL.
Never: any other 4xx. Whoever asks for something that may not happen twice sends an idempotency key along.
"""

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from time import monotonic as clock_s
from typing import TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import msgspec

from ringwheel.arguments import printable
from ringwheel.backoff import Backoff
from ringwheel.errors import Problem, RingwheelError, Unavailable, problem_of

URL = "http://127.0.0.1:7070"
JSON = "application/json"
SUBPROTOCOL = "ringwheel.v1.json"
MESSAGE_BYTES = 256 * 1024 * 1024
"""Longest message of a websocket: a thousand tasks with the largest payloads."""
CONNECT_S = 5.0
HEARTBEAT_S = 20.0
CLOSED = "the client was closed"
FAREWELL_S = 1.0
"""How long a websocket's other side may take to answer its end."""

HOPELESS = aiohttp.ClientConnectorCertificateError, aiohttp.InvalidURL
"""Failures that another try meets again."""
FAILURES = aiohttp.ClientError, TimeoutError, OSError
DISMISSED = {4401: 401, 4403: 403, 4408: 401}
"""Close codes of a websocket whose key is not good, and the status that says the same."""
T = TypeVar("T")
log = logging.getLogger("ringwheel")
_parents: list[aiohttp.ClientSession] = []
"""In a forked process: sessions of its parent. To let go of one would end connections that are the parent's."""


class Transport:
    """Where the service is, and the connections to it. They open when needed, in the loop that needs them."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        key: str | None = None,
        *,
        patience_s: float,
        timeout_s: float,
        security: ssl.SSLContext | None = None,
    ) -> None:
        """Without `url` and `key`, those of the environment: RINGWHEEL_URL (several: with commas), RINGWHEEL_KEY."""
        self.urls: list[str] = []
        self._key: str | None = None
        self._proxies: dict[str, str | None] = {}
        self.point(url or os.environ.get("RINGWHEEL_URL") or URL, key or os.environ.get("RINGWHEEL_KEY"))
        self.patience_s = patience_s
        self._timeout_s = timeout_s
        self._security = security
        self._place = 0
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self.closes = 0
        """How often it was closed: what was under way before that is not tried again."""

    def point(self, url: str | Sequence[str] | None = None, key: str | None = None) -> None:
        """Go elsewhere, or by another key, from the next connection on; what is None stays. Raises ValueError."""
        if url is not None:
            self.urls = _urls_of(url)
            self._proxies = {one: _proxy_of(one) for one in self.urls}
        if key is not None:
            self._key = _key_of(key)

    def twin(self, *, patience_s: float, timeout_s: float) -> "Transport":
        """Another one to the same service, with connections of its own."""
        return Transport(self.urls, self._key, patience_s=patience_s, timeout_s=timeout_s, security=self._security)

    @property
    def url(self) -> str:
        """Which one is asked now."""
        return self.urls[self._place % len(self.urls)]

    def leave(self, url: str) -> None:
        """Ask the next one from now on, unless that was done already."""
        if url == self.url:
            self._place += 1

    async def ask(
        self,
        read: msgspec.json.Decoder[T],
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """The answer, decoded by `read`. Raises Problem or Unavailable."""
        backoff, end_s = Backoff(), clock_s() + self.patience_s
        closes, untried = self.closes, list(dict.fromkeys(self.urls))
        level = logging.WARNING  # once a request
        while True:
            url = self.url if self.url in untried or not untried else untried[0]
            try:
                return read.decode(await self._once(method, url, path, body, params, headers))
            except msgspec.MsgspecError as error:
                raise RingwheelError(f"{url}: this is no answer of ringwheel: {error}") from error
            except Problem as problem:
                if not passing(problem):
                    raise
                cause: Exception = problem
            except FAILURES as error:
                cause = error
            except asyncio.CancelledError:
                if self.closes == closes or _is_cancelled():
                    raise
                raise Unavailable(CLOSED) from None  # it waited for a connection
            self.expect_open(closes)
            self.leave(url)
            if url in untried:
                untried.remove(url)
            # What one node asks for is nothing to another.
            after_s = cause.retry_after_s if isinstance(cause, Problem) and not untried else None
            pause_s = backoff.pause_s(after_s)
            if isinstance(cause, HOPELESS) or (clock_s() + pause_s > end_s and not untried):
                raise Unavailable(f"{url}: {words_of(cause)}") from cause
            log.log(level, "%s: %s; trying again in %.1f s", url, words_of(cause), pause_s)
            level = logging.INFO
            await asyncio.sleep(pause_s)
            self.expect_open(closes)

    async def connect(self, path: str, heartbeat_s: float = HEARTBEAT_S) -> aiohttp.ClientWebSocketResponse:
        """A websocket to the present node, tried once; it ends when nothing is heard for one and a half `heartbeat_s`.

        Raises Problem or `FAILURES`.
        """
        try:
            async with asyncio.timeout(CONNECT_S):
                return await self._open().ws_connect(
                    self.url + path,
                    protocols=(SUBPROTOCOL,),
                    heartbeat=heartbeat_s,
                    timeout=aiohttp.ClientWSTimeout(ws_close=FAREWELL_S),
                    max_msg_size=MESSAGE_BYTES,
                    proxy=self._proxies[self.url],
                )
        except aiohttp.WSServerHandshakeError as error:
            raise await self._refusal(path, error.status) from error

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        self.closes += 1
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.close()

    def expect_open(self, closes: int) -> None:
        """Raises Unavailable when it was closed since it had been so often."""
        if self.closes != closes:
            raise Unavailable(CLOSED)

    async def _refusal(self, path: str, status: int) -> Problem:
        """Why there is no websocket, in the service's words: aiohttp drops them, so they are asked for without one."""
        try:
            if 400 <= status < 500:  # not of a service that has too much to do
                async with asyncio.timeout(CONNECT_S):
                    await self._once("GET", self.url, path, None, None, None)
        except Problem as problem:
            if problem.status == status:
                return problem
        except FAILURES as error:
            log.debug("%s: %s", self.url, words_of(error))
        return problem_of(status, {"title": "No websocket here", "detail": "the service, or a proxy, refuses it"})

    async def _once(
        self,
        method: str,
        url: str,
        path: str,
        body: bytes | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> bytes:
        sent = {**(headers or {})} if body is None else {"Content-Type": JSON, **(headers or {})}
        async with self._open().request(
            method,
            url + path,
            data=body,
            params=params,
            headers=sent,
            proxy=self._proxies[url],
            allow_redirects=False,
        ) as response:
            answer = await response.read()
        if 200 <= response.status < 300:
            return answer
        problem = problem_of(response.status, answer)
        problem.retry_after_s = _seconds(response.headers.get("Retry-After"))
        raise problem

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            if self._session is not None and self._pid != os.getpid():
                _parents.append(self._session)
            # A worker's names may come from anywhere that the system asks, not only from /etc/hosts and DNS.
            connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver(), ssl=self._security or True)
            headers = {
                "Accept-Encoding": "identity"
            }  # ids are random: packing them costs the service more than it saves
            if self._key is not None:
                headers["Authorization"] = f"Bearer {self._key}"
            timeout = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_S)
            self._session = aiohttp.ClientSession(
                connector=connector, headers=headers, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(loop=loop)
            )
            self._loop, self._pid = loop, os.getpid()
        return self._session


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def passing(problem: Problem) -> bool:
    """Whether the same may be answered otherwise in a moment."""
    return problem.status == 429 or problem.status >= 500


def words_of(error: BaseException) -> str:
    """An error in words, also one that brings none."""
    return str(error) or type(error).__name__


def _urls_of(given: str | Sequence[str]) -> list[str]:
    urls = [one.strip().rstrip("/") for one in (given.split(",") if isinstance(given, str) else given)]
    for one in urls:
        if not _is_url(one):
            raise ValueError(f"not a URL of a service: {one!r}")
    return urls


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, or an address
        return False


def _key_of(given: str) -> str:
    key = printable(given, "key")
    if key != key.strip():
        raise ValueError("key: it begins or ends with a blank")
    return key


def _proxy_of(url: str) -> str | None:
    """As the environment says. Looked up once: aiohttp's own way (`trust_env`) takes two threads a request."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isascii() and header.isdigit() else None
