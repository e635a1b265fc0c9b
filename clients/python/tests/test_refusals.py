"""What becomes of results, and of credits, that the service refuses."""

import asyncio

import pytest

from at_work import at_work
from fake_service import Fake
from ringwheel import Context, Retry, Snooze, Worker
from test_worker import results, said


async def test_refused_results(fake: Fake, worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    @worker.task
    async def work() -> str:
        return "done"

    unsure, stale, bad = (fake.add() for _ in range(3))
    fake.refusals = {unsure.id: [503], stale.id: [409], bad.id: [422]}
    async with at_work(worker):
        await fake.ended(unsure, bad)
    assert unsure.ends[0]["result"] == "done"
    assert bad.ends[0]["error"] == "the result was refused: because 422"
    assert bad.ends[0]["retry"] == "never"
    assert sum(result["id"] == stale.id for result in results(fake)) == 1
    assert f"the result of task {stale.id} was refused: because 409" in caplog.text


@pytest.mark.parametrize("status", [422, 400, 413])
async def test_an_attempt_whose_result_is_not_acceptable_fails(fake: Fake, worker: Worker, status: int) -> None:
    """It does not run its lease out, whatever it was that the service did not like."""

    @worker.task
    async def work(how: str) -> str:
        match how:
            case "retry":
                raise Retry(after=1)
            case "snooze":
                raise Snooze(1)
            case "fail":
                raise ValueError(how)
        return how

    tasks = {how: fake.add({"how": how}) for how in ("retry", "snooze", "fail", "done", "hopeless", "fine")}
    fake.refusals = {task.id: [status] for how, task in tasks.items() if how != "fine"}
    fake.refusals[tasks["hopeless"].id] *= 2
    async with at_work(worker):
        await fake.ended(*(task for how, task in tasks.items() if how != "hopeless"))
        await fake.until(lambda: not fake.refusals[tasks["hopeless"].id])
    assert tasks.pop("fine").ends[0]["result"] == "fine"
    said_of = {how: [result for result in results(fake) if result["id"] == task.id] for how, task in tasks.items()}
    assert {how: len(said) for how, said in said_of.items()} == dict.fromkeys(tasks, 2), "no third time"
    for how, (first, second) in said_of.items():
        assert (second["lease"], second["ok"]) == (first["lease"], False)
        assert second["error"] == f"the result was refused: because {status}"
        assert second.get("retry") == ("never" if first.get("ok") else None), how
    assert tasks["hopeless"].ends == []


async def test_the_worker_does_not_leave_before_the_second_result_is_recorded(
    fake: Fake, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    @worker.task
    async def work(task: Context) -> str:
        worker.stop()
        return "done"

    task = fake.add()
    fake.refusals = {task.id: [503, 422]}  # the first one keeps it until all else is at an end
    async with at_work(worker):
        await fake.until(lambda: said(fake, "done"))
    assert task.ends[0]["error"] == "the result was refused: because 422"
    assert "not recorded" not in caplog.text


@pytest.mark.parametrize("often", [1, 2, 1_000])
async def test_a_refused_frame_costs_only_the_result_that_is_to_blame(fake: Fake, worker: Worker, often: int) -> None:
    """It is said again alone, like the others of its frame; then that it failed; then nothing any more."""
    gate = asyncio.Event()

    @worker.task
    async def work() -> str:
        await gate.wait()
        return "done"

    tasks = [fake.add() for _ in range(10)]
    bad = tasks.pop(4)
    fake.spoilers = {bad.id: often}
    async with at_work(worker):
        await fake.until(lambda: bad.state == "running" and all(task.state == "running" for task in tasks))
        gate.set()
        await fake.ended(*tasks)
        if often < 3:
            await fake.ended(bad)
        await fake.ended(fake.add())
    assert [task.ends[0]["result"] for task in tasks] == ["done"] * 9
    assert [task.attempt for task in [*tasks, bad]] == [1] * 10
    match often:
        case 1:
            assert bad.ends[0]["result"] == "done", "it was another's fault"
        case 2:
            assert bad.ends[0]["error"] == "the result was refused: what is this"
        case _:
            assert bad.ends == []
            assert often - fake.spoilers[bad.id] == 4, "it is not said for ever"
    assert len(fake.seen) == 1


async def test_a_worker_that_leaves_has_all_recorded_that_is_not_to_blame(fake: Fake, worker: Worker) -> None:
    @worker.task
    async def work(task: Context) -> str:
        if len(fake.seen[0].frames) and task.id == bad.id:
            worker.stop()
        return "done"

    good, bad = fake.add(), fake.add()
    fake.spoilers = {bad.id: 2}
    async with at_work(worker):
        await fake.ended(good)
    assert good.ends[0]["result"] == "done"
    assert bad.ends[0]["error"] == "the result was refused: what is this"


async def test_credits_that_were_refused_are_granted_again(fake: Fake, worker: Worker) -> None:
    """Or the worker would wait for ever for tasks that it was never ready for."""

    @worker.task
    async def work() -> None: ...

    fake.credits_refused = 3
    task = fake.add()
    async with at_work(worker):
        await fake.ended(task)
    assert [frame["credits"] for frame in said(fake, "ready")][:4] == [10] * 4
    assert len(said(fake, "stop")) == 4, "what was granted is counted anew each time"
