"""`Worker`: takes tasks of a queue and runs functions of yours with them, many at a time.

Promises: a lease lives for as long as its handler runs, even one that blocks the loop; a result is kept until it is
recorded; a task that was cancelled, or whose lease was lost, has its handler cancelled; on SIGTERM and SIGINT nothing
new is taken, what runs has `grace` seconds to end, and what does not is given back without using up its attempt.
Refuses: a key that may not work ends `run` with Unauthenticated or Forbidden.
"""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Concatenate, ParamSpec, Protocol, overload

from ringwheel.arguments import of_type, printable, whole, word
from ringwheel.client import Client
from ringwheel.context import Context
from ringwheel.frames import MOST_LEASES, Delivery
from ringwheel.handler import LABEL, Handler, name_of
from ringwheel.seconds import seconds
from ringwheel.shift import Shift

P = ParamSpec("P")
NO_HANDLER = "this worker has no handler: register a function with its decorator `task`"


class Decorator(Protocol):
    """Registers a function, which may take the context first."""

    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], Any], /) -> Handler[P]: ...
    @overload
    def __call__(self, function: Callable[P, Any], /) -> Handler[P]: ...


class Worker:
    """Handlers of one queue, and what runs them."""

    def __init__(
        self,
        client: Client | None = None,
        queue: str = "default",
        concurrency: int = 100,
        *,
        grace: float = 30.0,
        name: str | None = None,
    ) -> None:
        """`concurrency`: tasks that are here at a time; more than run at once is good for short ones.

        `grace`: seconds that running handlers may take to end; `name`: for the service's logs. Raises TypeError or
        ValueError, which name the argument that can't work.
        """
        self.client = Client() if client is None else of_type(client, Client, "client", "a ringwheel.Client")
        self.queue = word(queue, "queue")
        self.concurrency = whole(concurrency, "concurrency", MOST_LEASES)
        self.grace_s = seconds(grace, "grace")
        self.name = printable(name or f"{socket.gethostname()}:{os.getpid()}", "name")
        self.handlers: dict[str, Handler[...]] = {}
        """By name."""
        self._default: Handler[...] | None = None
        self._unlabelled: Handler[...] | None = None
        self._shift: Shift | None = None

    @overload
    def task(self, function: Callable[Concatenate[Context, P], Any], /) -> Handler[P]: ...
    @overload
    def task(self, function: Callable[P, Any], /) -> Handler[P]: ...
    @overload
    def task(self, name: str | None = None, /, *, default: bool = False) -> Decorator: ...
    def task(self, what: Any = None, /, *, default: bool = False) -> Any:
        """Register a function, under its own name or another: tasks whose label `task` says so come to it.

        Tasks without that label go to the only handler there is, or to the one that is the `default`. Raises TypeError
        or ValueError: no task could be given to it, or another has its name or is the default.
        """
        if callable(what):
            return self._register(what, None, default)
        if not (what is None or isinstance(what, str)):
            raise TypeError(f"task: expected a function or a name, not a value of type {type(what).__qualname__}")
        return lambda function: self._register(function, what, default)

    async def run(self, *, signals: bool = True) -> None:
        """Work until `stop`, or until a signal says so (`signals`). Raises Unauthenticated or Forbidden.

        Raises RuntimeError: it runs already, or has no handler, so that every task that comes would fail.
        """
        if self._shift is not None:
            raise RuntimeError("this worker runs already")
        if not self.handlers:
            raise RuntimeError(NO_HANDLER)
        async with self.client:
            self._shift = Shift(self.client.transport, self.find, self.queue, self.concurrency, self.grace_s, self.name)
            try:
                with self._stopped_by_signals() if signals else nullcontext():
                    await self._shift.run()
            finally:
                self._shift = None

    def stop(self) -> None:
        """Take nothing new and end; said again: do not wait for what runs."""
        if self._shift is not None:
            self._shift.stop()

    def find(self, task: Delivery) -> Handler[...]:
        """Whose task this is. Raises LookupError."""
        name = task.labels.get(LABEL)
        handler = self._unlabelled if name is None else self.handlers.get(name)
        if handler is None:
            which = f"without the label {LABEL!r}" if name is None else f"with the label {LABEL}={name}"
            raise LookupError(f"this worker has no handler for tasks {which}")
        return handler

    def _register(self, function: Callable[..., Any], name: str | None, default: bool) -> Handler[...]:
        handler: Handler[...] = Handler(function, name or name_of(function), self.queue)
        if handler.name in self.handlers:
            raise ValueError(f"there is a handler {handler.name!r} already")
        if default and self._default is not None:
            raise ValueError(f"there is a default already, the handler {self._default.name!r}")
        self.handlers[handler.name] = handler
        if default:
            self._default = handler
        self._unlabelled = self._default or (handler if len(self.handlers) == 1 else None)
        return handler

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = signal.SIGTERM, signal.SIGINT
        with suppress(NotImplementedError):  # not on Windows: there Ctrl-C cancels `run`
            for number in numbers:
                loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            with suppress(NotImplementedError):
                for number in numbers:
                    loop.remove_signal_handler(number)
