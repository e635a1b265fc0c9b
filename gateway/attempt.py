"""One attempt of one webhook: the call, its deadline, its answer, and the words for what went wrong.

Promises: every attempt ends, with exactly one outcome; an answer costs no more than `MAX_RESULT_BYTES` and one read
buffer; whatever fails is said in one short line.
"""

import errno
import logging
import random
import ssl

import aiohttp
from aiohttp import ClientResponse, ClientTimeout

from actors.core.events import Outcome, Verdict
from actors.core.settle import deadline_ms_of
from actors.core.task import Task
from gateway.client import CONNECT_S, Client, LeaseEnded
from gateway.context import ClockPort, DispatchPort
from gateway.signing import Signer
from gateway.targets import Refused
from gateway.webhook import SIGNATURE, TIMESTAMP, Plan, retry_after_ms, verdict_of

MAX_RESULT_BYTES = 64 * 1024
"""A longer answer is cut off: the attempt succeeds all the same, without a result."""
MAX_ERROR_CHARS = 200
SHORT_OF_MS = 1_000
"""How long an attempt waits that this machine had no descriptor, port or buffer for."""
SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
KEPT_TIMEOUTS = 256

log = logging.getLogger(__name__)


class Attempts:
    """Makes attempts through one client."""

    def __init__(self, client: Client, node: DispatchPort, clock: ClockPort, signer: Signer) -> None:
        self._client = client
        self._node = node
        self._now_ms = clock.now_ms
        self._sign = signer.signatures
        self._timeouts: dict[int, ClientTimeout] = {}

    async def make(self, task: Task, plan: Plan) -> Outcome:
        """Call the target once. Never raises, but for cancellation."""
        started_ms = self._now_ms()
        deadline_ms = deadline_ms_of(task.spec, task.queue)
        outcome = Outcome(task, task.epoch, task.attempt, Verdict.FAILED, started_ms, started_ms)
        try:
            letter = plan.letter(task, self._node.fence_of(task), started_ms)
            signatures = self._sign(task.queue.tenant, task.id, letter.head[TIMESTAMP], letter.body)
            if signatures is not None:
                letter.head[SIGNATURE] = signatures
            answer = await self._client.send(plan.method, plan.url, letter, self._timeout(deadline_ms))
            await self._judge(answer, outcome)
        except Exception as error:  # noqa: BLE001 - one task's failure is its outcome; what is unknown is logged
            _explain(error, outcome, deadline_ms)
        outcome.ended_ms = self._now_ms()
        if outcome.verdict is Verdict.FAILED:
            outcome.jitter = random.random()  # noqa: S311 - spreads retries, guards nothing
        return outcome

    async def _judge(self, answer: ClientResponse, outcome: Outcome) -> None:
        status = outcome.status = answer.status
        verdict = verdict_of(status, answer.headers)
        if verdict is Verdict.SUCCEEDED:
            outcome.result = await _body(answer) or None
        else:
            if verdict is not Verdict.LATER:
                outcome.error = f"HTTP {status}"
                outcome.retry_after_ms = retry_after_ms(status, answer.headers, self._now_ms())
            await _discard(answer)
        outcome.verdict = verdict

    def _timeout(self, deadline_ms: int) -> ClientTimeout:
        timeout = self._timeouts.get(deadline_ms)
        if timeout is None:
            if len(self._timeouts) >= KEPT_TIMEOUTS:
                self._timeouts.clear()
            # the threshold keeps aiohttp from rounding the deadline up to a whole second
            timeout = ClientTimeout(total=deadline_ms / 1000, sock_connect=CONNECT_S, ceil_threshold=float("inf"))
            self._timeouts[deadline_ms] = timeout
        return timeout


async def _body(answer: ClientResponse) -> bytes | None:
    """The whole body; None when it is longer than `MAX_RESULT_BYTES`: the connection is cut then."""
    content = answer.content
    if content.is_eof():  # came with the head: the usual case
        body = content.read_nowait()
        return body if len(body) <= MAX_RESULT_BYTES else None
    try:
        return await _read(answer)
    finally:
        if not content.is_eof():
            answer.close()


async def _read(answer: ClientResponse) -> bytes | None:
    if (answer.content_length or 0) > MAX_RESULT_BYTES:
        return None
    chunks: list[bytes] = []
    size = 0
    while chunk := await answer.content.readany():
        size += len(chunk)
        if size > MAX_RESULT_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


async def _discard(answer: ClientResponse) -> None:
    """Read the rest, so that the connection can be used again; the verdict stands, whatever becomes of it."""
    try:
        await _body(answer)
    except (aiohttp.ClientError, OSError):
        pass


def _explain(error: Exception, outcome: Outcome, deadline_ms: int) -> None:
    """Put the failure into `outcome`."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
    if isinstance(error, LeaseEnded):
        outcome.verdict = Verdict.UNSENT
        outcome.error = "lease ended before the request was sent"
    elif isinstance(cause, Refused):
        outcome.verdict = Verdict.NEVER
        outcome.error = f"target address {cause.address} is not allowed ({cause.why})"
    elif cause is not None and cause.errno in SHORT_OF and not isinstance(error, aiohttp.ClientConnectorDNSError):
        outcome.verdict = Verdict.UNSENT
        outcome.retry_after_ms = SHORT_OF_MS
        outcome.error = f"this node is short of connections: {cause.strerror}"
    else:
        words = _words(error, deadline_ms)
        if words is None:
            log.error("webhook attempt failed in an unknown way", exc_info=error)
            words = f"not sent or not understood: {type(error).__name__}"
        outcome.error = words[:MAX_ERROR_CHARS]


def _words(error: Exception, deadline_ms: int) -> str | None:
    match error:
        case aiohttp.ConnectionTimeoutError():
            return f"connect timed out after {CONNECT_S:g} s"
        case aiohttp.ClientConnectorDNSError():
            return f"no address found for {error.host}"
        case aiohttp.ClientConnectorCertificateError():
            return f"TLS certificate refused: {_reason(error.certificate_error)}"
        case aiohttp.ClientConnectorSSLError():
            return f"TLS handshake failed: {_reason(error.os_error)}"
        case aiohttp.ClientConnectorError():
            return _connect_words(error.os_error)
        case TimeoutError():
            return f"timed out after {deadline_ms / 1000:g} s"
        case aiohttp.ClientResponseError():
            return "answer is not valid HTTP"
        case aiohttp.ClientPayloadError():
            return "connection closed in mid-answer"
        case aiohttp.InvalidURL() | ValueError():
            return f"request can't be written: {error}"
        case aiohttp.ClientConnectionError() | OSError():
            return "connection closed"
    return None


def _connect_words(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return "connect refused"
    if error.errno == errno.ETIMEDOUT:
        return "connect timed out"
    words = error.strerror or str(error)
    return f"connect failed: {words.removeprefix('Multiple exceptions: ')}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return str(getattr(error, "reason", None) or error)
