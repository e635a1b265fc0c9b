"""The client without `await`: the async one, its loop in a thread of its own.

Every method is made from the async method of the same name, and takes and gives the same; what that iterates over with
`async for` is iterated over with `for`. Threads may share one, and a process that was forked may go on with it.
Callbacks and iterables of drafts are run by the client's thread.
"""

import asyncio
import functools
import ssl
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from ringwheel import client
from ringwheel.errors import Unavailable
from ringwheel.transport import CLOSED

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_Coroutine = Coroutine[Any, Any, T]


def _call(method: Callable[Concatenate[client.Client, P], _Coroutine[T]]) -> Callable[Concatenate["Client", P], T]:
    def call(self: "Client", /, *arguments: P.args, **named: P.kwargs) -> T:
        return self.result_of(method(self.client, *arguments, **named))

    return _named(call, method)


def _iterate(
    method: Callable[Concatenate[client.Client, P], AsyncIterator[T]],
) -> Callable[Concatenate["Client", P], Iterator[T]]:
    def iterate(self: "Client", /, *arguments: P.args, **named: P.kwargs) -> Iterator[T]:
        items, loop = method(self.client, *arguments, **named), self._running()
        try:
            while True:
                try:
                    item = self.result_of(_next(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if self._is_running and self._loop is loop:  # else its loop is gone, and it with it
                self.result_of(_close(items))

    return _named(iterate, method)


def _named(function: F, method: Callable[..., Any]) -> F:
    functools.update_wrapper(function, method)
    return function


class Client:
    """A service, as `ringwheel.Client`, which takes the same arguments."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        key: str | None = None,
        *,
        patience: float = 30.0,
        timeout: float = 10.0,
        ssl: ssl.SSLContext | None = None,
    ) -> None:
        self.client = client.Client(url, key, patience=patience, timeout=timeout, ssl=ssl)
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] = lambda: None

    submit = _call(client.Client.submit)
    submit_many = _call(client.Client.submit_many)
    get = _call(client.Client.get)
    attempts = _call(client.Client.attempts)
    list = _iterate(client.Client.list)
    watch = _iterate(client.Client.watch)
    wait = _call(client.Client.wait)
    cancel = _call(client.Client.cancel)
    run = _call(client.Client.run)
    reschedule = _call(client.Client.reschedule)
    redrive = _call(client.Client.redrive)
    complete = _call(client.Client.complete)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread, as the program's end does; the next call starts a new one.

        What other threads wait for raises Unavailable.
        """
        with self._starting:  # what is begun from now on has another loop
            end, self._end, self._loop = self._end, lambda: None, None
        end()

    def result_of(self, work: _Coroutine[T]) -> T:
        """Run it in the client's loop and wait for it."""
        with self._starting:  # so that the loop does not end between these two
            future = asyncio.run_coroutine_threadsafe(work, self._begun())
        try:
            return future.result()
        except CancelledError:
            raise Unavailable(CLOSED) from None
        except BaseException:
            future.cancel()  # Ctrl-C comes to this thread, not to that
            raise

    @property
    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()  # not in a fork, for example

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            return self._begun()

    def _begun(self) -> asyncio.AbstractEventLoop:
        """Its loop; `_starting` is held."""
        if self._loop is None or not self._is_running:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(self._loop,), name="ringwheel-client", daemon=True)
            self._end = weakref.finalize(self, _end, self.client, self._loop, self._thread)
            self._thread.start()
        return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left))
    finally:
        loop.close()


def _end(asynchronous: client.Client, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Once: when somebody closes the client, when nobody has it any more, or when the program ends."""
    if not thread.is_alive():
        return
    if thread is not threading.current_thread():
        asyncio.run_coroutine_threadsafe(asynchronous.close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join()


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


async def _close(items: AsyncIterator[Any]) -> None:
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()
