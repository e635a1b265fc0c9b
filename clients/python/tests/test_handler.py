"""Functions and payloads: what becomes of a payload, and what a task for a function looks like."""

import functools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest

from ringwheel import Client, Context, Draft, Handler, Worker
from ringwheel.frames import Delivery

NOW = datetime(2027, 1, 31, tzinfo=UTC)


def delivered(payload: Any = None, raw: bytes | None = None, **fields: Any) -> Delivery:
    data = msgspec.Raw() if payload is None else msgspec.Raw(msgspec.json.encode(payload))
    return Delivery("t1", "q", 1, 5, "f", "l", NOW, 30.0, NOW, data, raw, **fields)


def context(task: Delivery) -> Context:
    return Context(task, lambda context, by_s: None)


def call(handler: Handler[Any], payload: Any = None, raw: bytes | None = None) -> Any:
    positional, named = handler.arguments(context(delivered(payload, raw)))
    return handler(*positional, **named)


@pytest.fixture
def worker() -> Worker:
    return Worker(Client("http://nowhere"), "q")


@dataclass
class Order:
    number: int
    day: date


def test_fields_become_parameters(worker: Worker) -> None:
    @worker.task
    def resize(order: Order, width: int = 7, *, name: str | None = None) -> Any:
        return order, width, name

    day = date(2027, 1, 31)
    assert call(resize, {"order": {"number": 1, "day": "2027-01-31"}}) == (Order(1, day), 7, None)
    assert call(resize, {"order": Order(1, day), "name": "x", "width": 8}) == (Order(1, day), 8, "x")
    assert resize.draft(Order(1, day), name="x") == Draft(
        "q", {"order": Order(1, day), "name": "x"}, labels={"task": "resize"}
    )


def test_positional_fields_and_the_context(worker: Worker) -> None:
    @worker.task("other")
    def work(task: Context, first: int, second: str = "b") -> Any:
        return task.id, first, second

    assert call(work, {"first": 1}) == ("t1", 1, "b")
    assert work.draft(1, "c").payload == {"first": 1, "second": "c"}
    assert work.draft(1).labels == {"task": "other"}


def test_a_default_is_not_copied_and_never_shared(worker: Worker) -> None:
    marker = object()

    @worker.task
    def work(values: list[int] | None = None, thing: Any = marker) -> Any:
        return values, thing

    assert call(work) == (None, marker)


def test_the_whole_payload(worker: Worker) -> None:
    @worker.task
    def one(task: Context, order: Order | None, /) -> Any:
        return order

    @worker.task
    def two(data: bytes, /) -> Any:
        return data

    assert call(one, {"number": 1, "day": "2027-01-31"}) == Order(1, date(2027, 1, 31))
    assert call(one) is None
    assert call(two, raw=b"\0\1") == b"\0\1"
    assert one.draft(None).payload is None
    assert msgspec.json.decode(two.draft(b"\0\1").encoded(None)) == {
        "queue": "q",
        "labels": {"task": "two"},
        "payload_base64": "AAE=",
    }


@pytest.mark.parametrize("payload", [{}, {"width": "wide"}, {"width": 1, "other": 2}, [1], "text", 7])
def test_what_does_not_fit_is_refused(worker: Worker, payload: Any) -> None:
    @worker.task
    def resize(width: int) -> None: ...

    with pytest.raises(msgspec.ValidationError):
        call(resize, payload)


def test_bytes_have_no_fields(worker: Worker) -> None:
    @worker.task
    def nothing() -> str:
        return "done"

    assert call(nothing) == call(nothing, {}) == "done"
    with pytest.raises(msgspec.ValidationError, match="bytes"):
        call(nothing, raw=b"\0")


def test_signatures_that_say_nothing_are_refused(worker: Worker) -> None:
    with pytest.raises(TypeError, match="payload, /"):
        worker.task(lambda **named: None)
    with pytest.raises(TypeError, match="the only one"):

        @worker.task
        def two(first: int, second: int, /) -> None: ...


def test_a_generator_is_refused(worker: Worker) -> None:
    def plain() -> Iterator[int]:
        yield 1

    async def asynchronous() -> AsyncIterator[int]:
        yield 1

    class Object:
        async def __call__(self) -> AsyncIterator[int]:
            yield 1

    for function in (plain, asynchronous, Object(), functools.partial(asynchronous)):
        with pytest.raises(TypeError, match=r"^mine: a generator can't be a handler"):
            worker.task("mine")(function)
    assert worker.handlers == {}


def test_a_context_has_to_be_the_first(worker: Worker) -> None:
    def second(width: int, task: Context) -> None: ...

    def perhaps(task: Context | None = None) -> None: ...

    for function in (second, perhaps):
        with pytest.raises(TypeError, match=rf"^{function.__name__}: 'task' is annotated Context"):
            worker.task(function)


def test_what_annotations_can_t_say_is_refused_by_the_handler_s_name(worker: Worker) -> None:
    def work(width: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    def odd(width: dict[str, int] | Order) -> None: ...

    with pytest.raises(TypeError, match=r"^work: its signature can't be read: name 'Nowhere' is not defined"):
        worker.task(work)
    with pytest.raises(TypeError, match=r"^odd: no payload can be converted to its parameters: "):
        worker.task(odd)


def test_what_has_no_name_has_to_be_given_one(worker: Worker) -> None:
    def resize(width: int, by: int) -> int:
        return width * by

    double: Any = functools.partial(resize, by=2)
    with pytest.raises(TypeError, match=r"^a partial has no name of its own: give it one"):
        worker.task(double)
    assert call(worker.task("double")(double), {"width": 4}) == 8


def test_what_is_no_function_is_refused(worker: Worker) -> None:
    odd: Any = 5
    with pytest.raises(TypeError, match=r"^task: expected a function or a name, not a value of type int"):
        worker.task(odd)
    with pytest.raises(TypeError, match=r"^mine: expected a function, not a value of type int"):
        worker.task("mine")(odd)


def test_who_gets_a_task(worker: Worker) -> None:
    @worker.task
    def one() -> None: ...

    assert worker.find(delivered()) is one
    assert worker.find(delivered(labels={"other": "x"})) is one

    @worker.task("second")
    def two() -> None: ...

    assert worker.find(delivered(labels={"task": "second"})) is two
    with pytest.raises(LookupError, match="without the label 'task'"):
        worker.find(delivered())
    with pytest.raises(LookupError, match="task=third"):
        worker.find(delivered(labels={"task": "third"}))

    @worker.task(default=True)
    def three() -> None: ...

    assert worker.find(delivered()) is three
    with pytest.raises(ValueError, match="already"):
        worker.task("second")(lambda: None)
    with pytest.raises(ValueError, match="there is a default already, the handler 'three'"):
        worker.task("fourth", default=True)(lambda: None)
    assert worker.find(delivered()) is three


def test_which_functions_run_in_threads(worker: Worker) -> None:
    class Callable:
        async def __call__(self) -> None: ...

    async def function() -> None: ...

    assert not Handler(Callable(), "a", "q").threaded
    assert not Handler(function, "a", "q").threaded
    assert Handler(lambda: None, "a", "q").threaded


def test_what_a_handler_may_know() -> None:
    task = context(delivered([1, 2], labels={"a": "b"}, traceparent="00-1"))
    assert (task.id, task.queue, task.attempt, task.max_attempts, task.fence) == ("t1", "q", 1, 5, "f")
    assert (task.labels, task.traceparent, task.schedule_time) == ({"a": "b"}, "00-1", NOW)
    assert task.payload == [1, 2]
    assert context(delivered(raw=b"x")).payload == b"x"
    assert context(delivered()).payload is None
    assert not task.cancelled.is_set()
    task.give_up()
    assert task.cancelled.is_set()


@pytest.mark.parametrize("by", [0, -1, float("nan"), 1e30, 86_401])
def test_an_extension_that_no_lease_can_have_is_refused_where_it_is_said(by: float) -> None:
    asked: list[float] = []
    task = Context(delivered(), lambda context, by_s: asked.append(by_s))
    with pytest.raises(ValueError, match=r"^extend\(by\): expected 0.001 to 86400 seconds, not "):
        task.extend(by)
    with pytest.raises(TypeError, match=r"^extend\(by\): expected a number"):
        task.extend("5s")  # type: ignore[arg-type]
    assert asked == []
    task.extend(86_400)
    assert asked == [86_400]
