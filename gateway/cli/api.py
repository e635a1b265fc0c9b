"""The service over HTTP, as the command line uses it: JSON in, JSON out, problems raised."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from gateway.cli.exits import Refused, Unreachable
from gateway.cli.options import key_given

CONNECT_S = 5.0
ANSWER_S = 60.0
SUBPROTOCOL = "ringwheel.v1.json"
MESSAGE_BYTES = 64 * 1024 * 1024
"""Longest message of a stream: a snapshot of a thousand tasks with all their labels fits."""

JSON = "application/json"
NDJSON = "application/x-ndjson"


class Api:
    """A connection to one service."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def get(self, path: str, params: dict[str, str] | None = None) -> dict[str, Any]:
        """The answer to a GET. Raises Refused or Unreachable."""
        return await self._ask("GET", path, params=params)

    async def post(self, path: str, body: bytes = b"", *, media: str = JSON, key: str | None = None) -> dict[str, Any]:
        """The answer to a POST; `key` is its idempotency key. Raises Refused or Unreachable."""
        headers = {"Content-Type": media} | ({} if key is None else {"Idempotency-Key": key})
        return await self._ask("POST", path, data=body, headers=headers)

    async def send(self, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        """The answer to any other call; {} when it has none. Raises Refused or Unreachable."""
        return await self._ask(method, path, data=body, headers={"Content-Type": JSON})

    async def stream(self) -> aiohttp.ClientWebSocketResponse:
        """A new stream of live status. Raises Refused or Unreachable."""
        try:
            return await self._session.ws_connect(
                f"{self.url}/v1/stream", protocols=(SUBPROTOCOL,), heartbeat=20, max_msg_size=MESSAGE_BYTES
            )
        except aiohttp.WSServerHandshakeError as error:
            raise await self._why(error.status) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def _why(self, status: int) -> Refused:
        """Why there is no stream: the answer to a handshake is lost to us, so we ask again without one."""
        try:
            await self._ask("GET", "/v1/stream")
        except Refused as refused:
            if refused.status == status:
                return refused
        return Refused(status, {"title": "No stream here", "detail": f"the service answered {status}"})

    async def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            async with self._session.request(method, self.url + path, allow_redirects=False, **options) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        answer = {} if response.status == HTTPStatus.NO_CONTENT else _object(body)
        if not 200 <= response.status < 300 or answer is None:
            problem = answer or {"title": "Unexpected answer", "detail": f"{response.status} {response.reason}"}
            raise Refused(response.status, problem, _retry_after_s(response.headers.get("Retry-After")))
        return answer

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self.url}: {error or type(error).__name__}")


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Api]:
    """The service at `url`; connects with the first request. The command's API key goes along."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
    # A person's names may come from anywhere that the system asks, not only from /etc/hosts and DNS.
    connector = aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())
    key = key_given()
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True, headers=headers) as session:
        yield Api(session, url)


def task_path(task_id: str, rest: str = "") -> str:
    """The path of a task, whatever the user typed for its id."""
    return f"/v1/tasks/{quote(task_id, safe='')}{rest}"


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _retry_after_s(header: str | None) -> float:
    return float(header) if header is not None and header.isascii() and header.isdigit() else 1.0
