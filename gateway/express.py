"""The short way of a plain single submit: from its bytes to its place in a commit, and from there to its answer.

aiohttp's way to a handler and back (a task, a request, a route, a response) costs more than all that ringwheel does for
such a submit. So a connection that holds a whole one gives it to `Express`, and answers when its commit is done.
Whatever asks for more (an idempotency key, a new queue, a body that is still to come, an expectation, the end of the
connection) goes the long way, to `tasks_api.create`, which does the same with the same parts.

Promises: the answers are those of the long way, refusals too. For what it does not take, nothing was done.
"""

from asyncio import Future
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import RawRequestMessage
from multidict import CIMultiDictProxy, istr

from actors.core.draft import Draft, Receipt
from actors.core.errors import Unavailable
from actors.core.keys import Scope
from gateway.auth import admitted
from gateway.bodies import JSON, within
from gateway.context import Gateway
from gateway.decode import QueueMissing, TaskDecoder
from gateway.problems import GOING_AWAY, problem_of
from gateway.ready import written
from gateway.task_view import location, new_task
from gateway.trace import trace_of

KEY_HEADER = istr("Idempotency-Key")

_PATH = "/v1/tasks"

Answer = Callable[[bytes], None]
"""Takes the bytes of an HTTP/1.1 answer."""


class Express:
    """One an application."""

    def __init__(self, gateway: Gateway, decoder: TaskDecoder) -> None:
        self._gateway = gateway
        self._decoder = decoder

    def takes(self, message: RawRequestMessage) -> bool:
        """Whether it may go the short way, as far as its head says."""
        headers = message.headers
        plain = message.method == hdrs.METH_POST and message.path == _PATH and message.version == HttpVersion11
        if not plain or message.should_close or message.upgrade or headers.get(hdrs.CONTENT_TYPE, JSON) != JSON:
            return False
        return not (KEY_HEADER in headers or hdrs.EXPECT in headers or hdrs.CONTENT_ENCODING in headers)

    def submit(self, headers: CIMultiDictProxy[str], body: bytes, answer: Answer) -> bool:
        """Take a submit, and call `answer` once, now or when its commit is done; or leave it: False."""
        gateway = self._gateway
        try:
            tenant = admitted(gateway.keyring, Scope.SUBMIT, headers).tenant
            if gateway.draining:
                raise Unavailable(GOING_AWAY)
            draft = self._decoder.read(within(body, gateway.settings.body_bytes), tenant, gateway.clock.now_ms(), None)
            if draft.key is not None:
                return False
            shown = gateway.quota.take(tenant, 1)
            draft.trace = trace_of(headers)
            receipt = gateway.intake.submit_one(draft)
        except QueueMissing:
            return False
        except Exception as error:  # noqa: BLE001 - as in `answering`: it becomes a problem, logged when unexpected
            answer(problem_of(error).written(_PATH))
        else:
            receipt.add_done_callback(partial(_committed, answer, draft, shown))
        return True


EXPRESS: web.AppKey[Express] = web.AppKey("express", Express)


def _committed(answer: Answer, draft: Draft, shown: dict[str, str], receipt: "Future[Receipt]") -> None:
    try:
        safe = receipt.result()
        said = written(HTTPStatus.CREATED, new_task(draft, safe), shown | location(safe))
    except Exception as error:  # noqa: BLE001 - the same
        said = problem_of(error).written(_PATH)
    answer(said)
