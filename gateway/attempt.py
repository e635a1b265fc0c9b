"""One attempt of one webhook: the call, its deadline, its answer, and the words for what went wrong.

Promises: every attempt ends, with exactly one outcome; whatever fails is said in one short line, which shows no address
that the task did not name: who may submit could else look names up in the network that ringwheel stands in.
"""

import asyncio
import errno
import logging
import os
import random
import ssl
from collections.abc import Callable
from ipaddress import ip_address

import aiohttp
from aiohttp.http import HttpProcessingError

from actors.core.events import Outcome, Verdict
from actors.core.settle import deadline_ms_of
from actors.core.task import Task
from gateway.call import LeaseEnded
from gateway.client import Client
from gateway.context import ClockPort, DispatchPort
from gateway.destination import CONNECT_S
from gateway.reply import Reply
from gateway.signing import Signer
from gateway.targets import Refused
from gateway.webhook import Plan, retry_after_ms, verdict_of

MAX_ERROR_CHARS = 200
NAME_CHARS = 150
SHORT_OF_MS = 1_000
"""How long an attempt waits that this machine had no descriptor, port or buffer for."""
SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

log = logging.getLogger(__name__)


class Attempts:
    """Makes attempts through one client."""

    def __init__(self, client: Client, node: DispatchPort, clock: ClockPort, signer: Signer) -> None:
        self._client = client
        self._node = node
        self._now_ms = clock.now_ms
        self._sign = signer.signatures
        self._loop = asyncio.get_running_loop()

    def start(self, task: Task, plan: Plan, started_ms: int, ended: Callable[[Plan, Outcome], None]) -> None:
        """Call the target once. Never raises; `ended` is called later, with the plan and how it went."""
        deadline_ms = deadline_ms_of(task.spec, task.queue)
        outcome = Outcome(task, task.epoch, task.attempt, Verdict.FAILED, started_ms, started_ms)

        def end(result: Reply | Exception) -> None:
            self._conclude(outcome, result, deadline_ms)
            ended(plan, outcome)

        try:
            letter = plan.letter(task, self._node.fence_of(task), started_ms, self._sign)
        except Exception as error:  # noqa: BLE001 - one task's failure is its outcome; what is unknown is logged
            self._loop.call_soon(end, error)
            return
        self._client.send(letter, deadline_ms / 1000, end)

    def _conclude(self, outcome: Outcome, result: Reply | Exception, deadline_ms: int) -> None:
        try:
            if isinstance(result, Exception):
                raise result
            self._judge(result, outcome)
        except Exception as error:  # noqa: BLE001 - as above
            _explain(error, outcome, deadline_ms)
        outcome.ended_ms = self._now_ms()
        if outcome.verdict is Verdict.FAILED:
            outcome.jitter = random.random()  # noqa: S311 - spreads retries, guards nothing

    def _judge(self, reply: Reply, outcome: Outcome) -> None:
        """The head of an answer decides; only a success needs the body too. Raises what broke it."""
        status = outcome.status = reply.status
        verdict = verdict_of(status, reply.headers)
        if verdict is Verdict.SUCCEEDED:
            if reply.broken is not None:
                raise reply.broken
            outcome.result = reply.body or None
        elif verdict is not Verdict.LATER:
            outcome.error = f"HTTP {status}"
            outcome.retry_after_ms = retry_after_ms(status, reply.headers, self._now_ms())
        outcome.verdict = verdict


def _explain(error: Exception, outcome: Outcome, deadline_ms: int) -> None:
    """Put the failure into `outcome`."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
    if isinstance(error, LeaseEnded):
        outcome.verdict = Verdict.UNSENT
        outcome.error = "lease ended before the request was sent"
    elif isinstance(cause, Refused) and isinstance(error, aiohttp.ClientConnectorError):
        outcome.verdict = Verdict.NEVER
        outcome.error = f"{_target(error.host, cause)} is not allowed ({cause.why})"
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


def _target(host: str, refused: Refused) -> str:
    """The target as its task has it."""
    try:
        ip_address(host)
    except ValueError:
        return f"target {host[:NAME_CHARS]}"
    return f"target address {refused.address}"


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
        case HttpProcessingError():
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
    if error.errno is None:  # addresses that failed in different ways: the text names them
        return "connect failed"
    return f"connect failed: {os.strerror(error.errno)}"


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return str(getattr(error, "reason", None) or error)
