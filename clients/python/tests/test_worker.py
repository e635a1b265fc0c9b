"""Workers: tasks come, results go, whatever happens in between."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from at_work import at_work
from fake_service import Fake, answering, serving
from ringwheel import Client, Context, Discard, Forbidden, Retry, Snooze, Unauthenticated, Worker, link, shift, sync


def said(fake: Fake, kind: str) -> list[dict[str, Any]]:
    return [frame for frame in fake.frames if frame["type"] == kind]


def results(fake: Fake) -> list[dict[str, Any]]:
    return [result for frame in said(fake, "done") for result in frame["results"]]


async def test_tasks_run_and_their_results_are_recorded(fake: Fake, worker: Worker) -> None:
    @worker.task
    async def double(number: int) -> int:
        return number * 2

    tasks = [fake.add({"number": number}) for number in range(100)]
    async with at_work(worker):
        await fake.ended(*tasks)
    assert [task.ends for task in tasks] == [
        [{"id": task.id, "lease": f"{task.id}/1", "ok": True, "result": place * 2}] for place, task in enumerate(tasks)
    ]
    assert said(fake, "hello") == [{"worker": worker.name, "leases": [], "type": "hello"}]
    assert len(said(fake, "done")) < 30, "results are gathered"
    assert fake.authorization == {"Bearer rw_test_key"}


async def test_a_worker_without_handlers_takes_nothing(fake: Fake, worker: Worker) -> None:
    task = fake.add()
    with pytest.raises(RuntimeError, match="no handler"):
        await worker.run()
    assert task.state == "scheduled"
    assert not fake.seen


async def test_a_plain_function_runs_in_a_thread(fake: Fake, worker: Worker) -> None:
    together = threading.Barrier(3, timeout=5)

    @worker.task
    def work(task: Context) -> str:
        together.wait()
        return threading.current_thread().name

    tasks = [fake.add() for _ in range(3)]
    async with at_work(worker):
        await fake.ended(*tasks)
    assert all(task.ends[0]["result"].startswith("ringwheel-handler") for task in tasks)


async def test_no_more_come_than_there_is_room_for(fake: Fake, worker: Worker) -> None:
    most, running = 0, 0
    gates: list[asyncio.Event] = []
    full = asyncio.Event()

    @worker.task
    async def work() -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        if running == 10:
            full.set()
        gates.append(asyncio.Event())
        await gates[-1].wait()
        running -= 1

    tasks = [fake.add() for _ in range(25)]
    async with at_work(worker):
        await full.wait()
        while not all(task.ends for task in tasks):
            while gates:
                gates.pop().set()
            await asyncio.sleep(0)
    assert most == 10
    assert max(frame["credits"] for frame in said(fake, "ready")) == 10


async def test_how_a_task_goes_on_is_said(fake: Fake, worker: Worker) -> None:
    @worker.task
    async def work(task: Context, how: str) -> None:
        if task.attempt > 1:
            return
        match how:
            case "retry":
                raise Retry("busy", after=0)
            case "snooze":
                raise Snooze(0)
            case "discard":
                raise Discard("never")
            case "exit":
                raise SystemExit(3)
            case "stray":
                raise asyncio.CancelledError
        raise ValueError("broken")

    tasks = {how: fake.add({"how": how}) for how in ("retry", "snooze", "discard", "exit", "stray", "fail")}
    odd = fake.add({"what": 1}), fake.add(labels={"task": "other"})
    async with at_work(worker):
        await fake.until(lambda: all(tasks[how].state == "succeeded" for how in ("retry", "snooze")))
        await fake.ended(*tasks.values(), *odd)
    first = {how: {**task.ends[0], "id": "", "lease": ""} for how, task in tasks.items()}
    same = {"id": "", "lease": "", "ok": False}
    assert first["retry"] == same | {"error": "busy", "retry": 0}
    assert first["snooze"] == {"id": "", "lease": "", "snooze": 0}
    assert first["discard"] == same | {"error": "never", "retry": "never"}
    assert first["exit"]["error"].startswith("SystemExit: 3 (in work, test_worker.py:")
    assert first["stray"]["error"].startswith("asyncio.exceptions.CancelledError")
    assert first["fail"]["error"].startswith("ValueError: broken (in work, test_worker.py:")
    assert "retry" not in first["fail"]
    assert "missing required field `how`" in odd[0].ends[0]["error"] or "unknown field" in odd[0].ends[0]["error"]
    assert "no handler for tasks with the label task=other" in odd[1].ends[0]["error"]


class Odd(BaseException):
    """What somebody's library raises."""


class Unspeakable(Retry):
    """One that forgets what its parents are for."""

    def __init__(self) -> None:
        pass

    def __str__(self) -> str:
        raise Odd


def nested() -> ExceptionGroup[Any]:
    """So deep that no report of it can be made."""
    error: Exception = ValueError("within")
    for _ in range(5_000):
        error = ExceptionGroup("around", [error])
    assert isinstance(error, ExceptionGroup)
    return error


RAISED: dict[str, Callable[[], BaseException]] = {
    "Odd": Odd,
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("of two", [Odd(), ValueError()]),
    "CancelledError": asyncio.CancelledError,
    "Unspeakable": Unspeakable,
    "ExceptionGroup": nested,
}


@pytest.mark.parametrize("where", ["thread", "loop", "future"])
async def test_nothing_that_a_handler_raises_ends_the_worker(fake: Fake, worker: Worker, where: str) -> None:
    def fall(how: str) -> str:
        if how in RAISED:
            raise RAISED[how]()
        return how

    async def fall_in_the_loop(how: str) -> str:
        return fall(how) if where == "loop" else await asyncio.to_thread(fall, how)

    worker.concurrency = 1
    worker.task(fall if where == "thread" else fall_in_the_loop)
    tasks = {how: fake.add({"how": how}) for how in (*RAISED, "fine")}
    async with at_work(worker):
        await fake.ended(*tasks.values())
    assert tasks.pop("fine").ends[0]["result"] == "fine"
    for how, task in tasks.items():
        assert how in task.ends[0]["error"]
        assert (task.ends[0]["ok"], "retry" in task.ends[0]) == (False, False)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_handler_that_cancels_itself_fails(fake: Fake, worker: Worker, waits: bool) -> None:
    @worker.task
    async def work(cancel: bool) -> str:
        if cancel:
            current = asyncio.current_task()
            assert current is not None
            current.cancel()
            if waits:
                await asyncio.sleep(0)
        return "done"

    worker.concurrency = 1
    tasks = [fake.add({"cancel": cancel}) for cancel in (True, True, False)]
    async with at_work(worker):
        await fake.ended(*tasks)
    ends = [str(task.ends[0].get("error", task.ends[0].get("result"))) for task in tasks]
    assert ends[2] == "done"
    assert all(("CancelledError" in end) if waits else (end == "done") for end in ends[:2])


async def test_a_thread_that_runs_out_of_items_fails(fake: Fake, worker: Worker) -> None:
    @worker.task
    def work() -> Any:
        return next(iter([]))

    task = fake.add()
    async with at_work(worker):
        await fake.ended(task)
    assert "StopIteration" in task.ends[0]["error"]


async def test_a_handler_has_a_task_of_its_own(fake: Fake, worker: Worker) -> None:
    """What looks at the current task, time limits above all, must meet that of the handler and no other."""
    variable = contextvars.ContextVar("variable", default=0)
    seen: list[int] = []

    @worker.task
    async def work(task: Context) -> str:
        seen.append(variable.get())
        variable.set(7)
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            return "in time"
        raise AssertionError

    tasks = [fake.add() for _ in range(30)]
    async with at_work(worker):
        await fake.ended(*tasks)
    assert {task.ends[0]["result"] for task in tasks} == {"in time"}
    assert seen == [0] * 30, "no handler sees the context of another"


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_cancelled_task_has_its_handler_cancelled(fake: Fake, worker: Worker, stubborn: bool) -> None:
    ends: list[bool] = []

    @worker.task
    async def work(task: Context, wait: bool) -> str:
        if wait:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                ends.append(task.cancelled.is_set())
                if not stubborn:
                    raise
        return "done"

    waiting = fake.add({"wait": True})
    async with at_work(worker):
        await fake.until(lambda: waiting.state == "running")
        await fake.cancel(waiting)
        others = [fake.add({"wait": False}) for _ in range(20)]
        await fake.ended(*others)
    assert ends == [True]
    assert waiting.id not in {result["id"] for result in results(fake)}, "nobody wants its result"


async def test_a_thread_sees_that_its_task_was_cancelled(fake: Fake, worker: Worker) -> None:
    seen: list[bool] = []
    began, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    @worker.task
    def work(task: Context) -> None:
        loop.call_soon_threadsafe(began.set)
        seen.append(task.cancelled.wait(5))
        loop.call_soon_threadsafe(ended.set)

    task = fake.add()
    async with at_work(worker), asyncio.timeout(10):
        await began.wait()
        await fake.cancel(task)
        await ended.wait()
    assert seen == [True]
    assert results(fake) == []


async def test_a_broken_link_costs_nothing(fake: Fake, worker: Worker) -> None:
    gate = asyncio.Event()

    @worker.task
    async def work() -> None:
        await gate.wait()

    tasks = [fake.add() for _ in range(5)]
    async with at_work(worker):
        await fake.until(lambda: all(task.state == "running" for task in tasks))
        await fake.cut()
        await fake.until(lambda: len(fake.seen) == 2)
        gate.set()
        await fake.ended(*tasks)
    assert [task.attempt for task in tasks] == [1] * 5
    assert fake.lost == []
    hello = said(fake, "hello")[1]
    assert {lease["id"] for lease in hello["leases"]} == {task.id for task in tasks}


async def test_results_are_said_again_until_they_are_recorded(fake: Fake, worker: Worker) -> None:
    @worker.task
    async def work() -> str:
        return "done"

    fake.deaf = True
    tasks = [fake.add() for _ in range(5)]
    async with at_work(worker):
        await fake.until(lambda: len(results(fake)) == 5)
        fake.deaf = False
        await fake.cut()
        await fake.ended(*tasks)
    assert [task.attempt for task in tasks] == [1] * 5


async def test_work_that_was_given_to_others_meanwhile_is_stopped(client: Client, worker: Worker) -> None:
    ends: list[str] = []

    async with serving(back_s=0) as fake:
        worker.client = Client(fake.url)

        @worker.task
        async def work(task: Context) -> None:
            if task.attempt == 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    ends.append(task.id)

        task = fake.add()
        async with at_work(worker):
            await fake.until(lambda: task.state == "running")
            await fake.cut()
            await fake.ended(task)
        assert ends == [task.id] == fake.lost
        assert task.ends[0]["lease"] == f"{task.id}/2"


async def test_a_node_that_drains_is_left_at_once(worker: Worker) -> None:
    gate = asyncio.Event()

    async with serving() as one, serving() as two:
        worker.client = Client([one.url, two.url])
        two.tasks = one.tasks

        @worker.task
        async def work() -> None:
            await gate.wait()

        task = one.add()
        async with at_work(worker):
            await one.until(lambda: task.state == "running")
            await one.links[0].say("drain")
            await two.until(lambda: two.seen)
            gate.set()
            await two.ended(task)
        assert one.lost == []
        assert task.attempt == 1


async def test_a_node_that_hangs_is_left(fake: Fake, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "HEARTBEAT_S", 0.1)

    async def hang(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("ringwheel.v1.json",))
        await ws.prepare(request)
        await asyncio.Event().wait()  # nothing is read, and no ping answered
        return ws

    @worker.task
    async def work() -> None:
        pass

    task = fake.add()
    async with answering(hang) as url:
        worker.client = Client([url, fake.url])
        async with at_work(worker):
            await fake.ended(task)


async def test_a_service_that_comes_later_is_waited_for(fake: Fake, worker: Worker) -> None:
    @worker.task
    async def work() -> None: ...

    fake.door = 503
    task = fake.add()
    async with at_work(worker):
        await fake.until(lambda: fake.requests["/v1/worker"] >= 2)
        fake.door = None
        await fake.ended(task)


@pytest.mark.parametrize(
    ("door", "leaf"), [(401, Unauthenticated), (403, Forbidden), (4401, Unauthenticated), (4403, Forbidden)]
)
async def test_a_key_that_may_not_work_ends_it(fake: Fake, worker: Worker, door: int, leaf: type[Exception]) -> None:
    worker.task("none")(lambda: None)
    fake.door = door
    words = f"{door} A fault: as the test wants it" if door < 1000 else "No work for this key: no"
    with pytest.raises(leaf, match=words):
        await worker.run(signals=False)
    with pytest.raises(leaf):
        await worker.run()


async def test_it_stops_in_good_order(fake: Fake, worker: Worker) -> None:
    gate = asyncio.Event()

    @worker.task
    async def work(wait: bool) -> None:
        if wait:
            await gate.wait()

    waiting = fake.add({"wait": True})
    async with at_work(worker):
        await fake.until(lambda: waiting.state == "running")
        worker.stop()
        await fake.until(lambda: said(fake, "stop"))
        late = fake.add({"wait": False})
        gate.set()
    assert waiting.state == "succeeded"
    assert late.attempt == 0
    assert fake.lost == []


async def test_what_does_not_end_in_time_is_given_back(fake: Fake, worker: Worker) -> None:
    worker.grace_s = 0.05
    worker.concurrency = 2
    held = threading.Event()
    cancelled: list[str] = []

    @worker.task("thread")
    def thread(task: Context) -> None:
        held.wait(5)

    @worker.task("loop")
    async def loop(task: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(task.id)

    tasks = [fake.add(labels={"task": name}) for name in ("thread", "loop")]
    async with at_work(worker):
        await fake.until(lambda: all(task.state == "running" for task in tasks))
    held.set()
    assert [task.ends[0]["snooze"] for task in tasks] == [0, 0]
    assert cancelled == [tasks[1].id]


async def test_who_is_in_a_hurry_says_stop_twice(fake: Fake, worker: Worker) -> None:
    worker.grace_s = 3600

    @worker.task
    async def work() -> None:
        await asyncio.Event().wait()

    task = fake.add()
    async with at_work(worker):
        await fake.until(lambda: task.state == "running")
        worker.stop()
    assert task.ends[0]["snooze"] == 0


async def test_what_has_not_begun_is_given_back_at_once(fake: Fake, worker: Worker) -> None:
    worker.concurrency, worker.grace_s = 1, 0.05
    gate = threading.Event()

    @worker.task
    def work() -> None:
        gate.wait(5)

    busy = fake.add()
    async with at_work(worker):
        await fake.until(lambda: busy.state == "running")
        await fake.cancel(busy)  # the thread does not care
        waiting = fake.add()
        await fake.until(lambda: waiting.state == "running")
    gate.set()
    assert waiting.ends[0]["snooze"] == 0
    assert busy.ends == []


async def test_it_ends_although_nobody_records_its_results(
    fake: Fake, worker: Worker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift, "RECORD_S", 0.05)
    fake.deaf = True

    @worker.task
    async def work() -> None: ...

    fake.add()
    async with at_work(worker):
        await fake.until(lambda: results(fake))
    assert "1 results were not recorded" in caplog.text


async def test_another_attempt_takes_the_place_of_the_one_that_runs(fake: Fake, worker: Worker) -> None:
    ends: list[int] = []

    @worker.task
    async def work(task: Context) -> int:
        if task.attempt == 1:
            try:
                await asyncio.Event().wait()
            finally:
                ends.append(task.attempt)
        return task.attempt

    task = fake.add()
    async with at_work(worker):
        await fake.until(lambda: task.state == "running")
        fake.expire(task)
        await fake.ended(task)
    assert ends == [1]
    assert task.ends[0]["result"] == 2


async def test_frames_that_say_nothing_of_use(fake: Fake, worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    @worker.task
    async def work() -> None: ...

    async with at_work(worker):
        await fake.until(lambda: fake.links)
        [link] = fake.links
        await link.say("error", detail="what is this")
        await link.say("error", detail="no", errors=[{"pointer": "/queue", "detail": "expected 1 to 100 of A-Z"}])
        await link.say("news of a later version", ids={"an": "object"})
        await fake.until(lambda: len(fake.seen) == 2)
        await fake.ended(fake.add())
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert told[:2] == [
        "the service refuses a frame: what is this",
        "the service refuses a frame: /queue: expected 1 to 100 of A-Z",
    ]
    assert "a frame can't be read" in caplog.text


async def test_a_worker_works_once_at_a_time(worker: Worker) -> None:
    worker.task("none")(lambda: None)
    worker.stop()  # nothing to stop
    async with at_work(worker):
        with pytest.raises(RuntimeError, match="runs already"):
            await worker.run()


@pytest.mark.parametrize(
    ("name", "value", "leaf"),
    [
        ("concurrency", 0, ValueError),
        ("concurrency", 10_001, ValueError),
        ("concurrency", 1.5, TypeError),
        ("concurrency", "5", TypeError),
        ("concurrency", True, TypeError),
        ("queue", "", ValueError),
        ("queue", "a b", ValueError),
        ("queue", "a\n", ValueError),
        ("queue", 5, TypeError),
        ("grace", -1, ValueError),
        ("grace", float("nan"), ValueError),
        ("grace", float("inf"), ValueError),
        ("grace", "5s", TypeError),
        ("client", "http://nowhere", TypeError),
        ("client", sync.Client("http://nowhere"), TypeError),
        ("name", 5, TypeError),
        ("name", "two\nlines", ValueError),
    ],
)
def test_a_setting_that_can_t_work_is_refused_by_name(name: str, value: Any, leaf: type[Exception]) -> None:
    settings: dict[str, Any] = {"client": Client("http://nowhere"), name: value}
    with pytest.raises(leaf, match=f"^{name}: "):
        Worker(**settings)
