"""Every command in every state: the table of the contract, over HTTP and in the tables."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from tests.service.api import Answer, Api, Tables, ms
from tests.service.hook import LATER, OK, Held, Hook
from tests.support.raw_target import answers

Make = Callable[[Api, Hook], Awaitable[str]]
HOUR: dict[str, Any] = {"delay": 3600}
COMMANDS: dict[str, dict[str, Any]] = {
    "cancel": {},
    "run": {},
    "reschedule": HOUR,
    "redrive": {},
    "complete": {"fence": "00000001.0000000000.000001"},
}


async def scheduled(service: Api, hook: Hook) -> str:
    """In memory."""
    return await accepted(service, http={"url": hook.url(Held())}, delay=30)


async def far(service: Api, hook: Hook) -> str:
    """Beyond the horizon: only a row."""
    return await accepted(service, http={"url": hook.url(Held())}, delay="100d")


async def between(service: Api, hook: Hook) -> str:
    """Failed once, waiting for its next attempt."""
    url = hook.url(answers(500), Held())
    task_id = await accepted(service, http={"url": url}, retry={"min_backoff": 3600})
    await service.wait(task_id, "scheduled", attempt=1)
    return task_id


async def running(service: Api, hook: Hook) -> str:
    task_id = await accepted(service, http={"url": hook.url(Held())})
    await hook.called(task_id)
    return task_id


async def later(service: Api, hook: Hook) -> str:
    """Running at a target that took the work and answered."""
    task_id = await accepted(service, http={"url": hook.url(LATER)})
    await service.wait(task_id, "running")
    return task_id


async def succeeded(service: Api, hook: Hook) -> str:
    return await ended(service, http={"url": hook.url(OK)})


async def dead(service: Api, hook: Hook) -> str:
    return await ended(service, http={"url": hook.url(answers(410), Held())})


async def expired(service: Api, hook: Hook) -> str:
    return await ended(service, queue="pulled", ttl=0.05)


async def cancelled(service: Api, hook: Hook) -> str:
    task_id = await scheduled(service, hook)
    assert (await service.command(task_id, "cancel")).status == 200
    return task_id


async def accepted(service: Api, **task: object) -> str:
    return str((await service.submit(**task))["id"])


async def ended(service: Api, **task: object) -> str:
    task_id = await accepted(service, **task)
    await service.wait(task_id)
    return task_id


LIVE = {"cancel": "cancelled", "run": "scheduled", "reschedule": "scheduled"}
TABLE: dict[Make, tuple[str, dict[str, str]]] = {
    scheduled: ("scheduled", LIVE),
    far: ("scheduled", LIVE),
    between: ("scheduled", LIVE),
    running: ("running", {}),
    later: ("running", {}),
    succeeded: ("succeeded", {}),
    dead: ("dead", {"redrive": "scheduled"}),
    expired: ("expired", {"redrive": "scheduled"}),
    cancelled: ("cancelled", {"cancel": "cancelled", "redrive": "scheduled"}),
}
"""A task in some state -> that state, and the commands that are legal in it with the state that they lead to."""


async def test_every_command_in_every_state(service: Api, hook: Hook, tables: Tables) -> None:
    for make, (state, legal) in TABLE.items():
        for name in COMMANDS:
            await check(service, hook, tables, make, name, state, legal.get(name))


async def check(service: Api, hook: Hook, tables: Tables, make: Make, name: str, state: str, to: str | None) -> None:
    what = f"{name} when {make.__name__}"
    task_id = await make(service, hook)
    before = await service.get(task_id)
    assert before["state"] == state, what
    answer = await service.command(task_id, name, **COMMANDS[name])
    if to is not None:
        assert answer.status == 200, (what, answer)
        await check_done(tables, task_id, name, to, before, answer)
        return
    assert (answer.status, answer.headers["Content-Type"]) == (409, "application/problem+json"), what
    assert (answer.body["type"], answer.body["state"]) == ("conflict", state), what
    assert await service.get(task_id) == before, what


async def check_done(
    tables: Tables, task_id: str, name: str, state: str, before: dict[str, Any], answer: Answer
) -> None:
    """The answer came after the commit: what it says is in the tables."""
    assert await tables.state(task_id) == state, name
    if state == "cancelled":
        assert answer.body["state"] == state
        assert answer.body["finish_time"] is not None
        return
    due_ms, schedule_ms = (await tables.rows("SELECT due_ms, schedule_ms FROM tasks WHERE id = $1", task_id))[0]
    assert ms(answer.body["schedule_time"]) == schedule_ms
    assert answer.body["attempt"] - before["attempt"] in (0, 1), "it may have started already"
    if name == "reschedule":
        assert schedule_ms == due_ms
        assert 3_500_000 < due_ms - ms(before["create_time"]) < 3_700_000
    else:
        assert due_ms - ms(before["create_time"]) < 60_000
    if name == "run":
        assert answer.body["schedule_time"] == before["schedule_time"]
    if name == "redrive":
        assert answer.body["max_attempts"] == before["attempt"] + 5


async def test_an_unknown_task(service: Api) -> None:
    for task_id, (name, body) in itertools.product(("018f0000-0000-7000-8000-000000000000", "no-id"), COMMANDS.items()):
        answer = await service.command(task_id, name, **body)
        assert (answer.status, answer.body["type"]) == (404, "not-found"), (task_id, name)


async def test_run_fires_at_once_and_keeps_the_time_that_was_asked_for(service: Api, hook: Hook) -> None:
    for delay in (30, "100d"):
        task = await service.submit(http={"url": hook.url()}, delay=delay)
        assert (await service.command(task["id"], "run")).status == 200
        done = await service.wait(task["id"])
        assert (done["state"], done["schedule_time"]) == ("succeeded", task["schedule_time"])
        assert done["lateness_ms"] == 0, "early because it was asked for"


async def test_rescheduled_from_far_to_near_and_back(service: Api, hook: Hook) -> None:
    task = await service.submit(http={"url": hook.url()}, delay="100d")
    await service.command(task["id"], "reschedule", delay="50d")
    answer = await service.command(task["id"], "reschedule", delay=0.2)
    [call] = await hook.called(task["id"])
    assert call.arrived_ms >= ms(answer.body["schedule_time"])
    assert (await service.wait(task["id"]))["state"] == "succeeded"


# --- many at once


async def at_once(service: Api, task_id: str, names: list[str]) -> list[Answer]:
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(service.command(task_id, name, **COMMANDS[name])) for name in names]
    return [task.result() for task in asking]


async def test_fifty_commands_on_one_task(service: Api, tables: Tables) -> None:
    for delay in (30, "100d"):  # in memory; only a row
        await fifty(service, tables, await accepted(service, queue="pulled", delay=delay))


async def fifty(service: Api, tables: Tables, task_id: str) -> None:
    names = random.Random(3).choices(["run", "reschedule", "redrive"], k=49)
    answers_ = await at_once(service, task_id, [*names, "cancel"])
    statuses = Counter(zip([*names, "cancel"], (answer.status for answer in answers_), strict=True))
    assert statuses["cancel", 200] == 1
    assert set(statuses) <= {
        ("run", 200),
        ("reschedule", 200),
        ("run", 409),
        ("reschedule", 409),
        ("redrive", 409),
        ("redrive", 200),
        ("cancel", 200),
    }
    carried_out = sum(count for (_, status), count in statuses.items() if status == 200)
    [row] = await tables.rows(
        "SELECT rev FROM tasks WHERE id = $1 UNION ALL SELECT rev FROM finished WHERE id = $1", task_id
    )
    assert row["rev"] == carried_out, "each success is one revision, each refusal none"


async def test_fifty_cancels_of_one_task(service: Api, tables: Tables) -> None:
    task = await service.submit(queue="pulled", delay=30)
    found = await at_once(service, task["id"], ["cancel"] * 50)
    assert {(answer.status, answer.body["state"]) for answer in found} == {(200, "cancelled")}
    assert await tables.value("SELECT count(*) FROM finished WHERE id = $1", task["id"]) == 1


async def test_fifty_redrives_of_one_task(service: Api, hook: Hook, tables: Tables) -> None:
    task_id = await dead(service, hook)
    found = await at_once(service, task_id, ["redrive"] * 50)
    assert Counter(answer.status for answer in found) == {200: 1, 409: 49}
    assert await tables.value("SELECT count(*) FROM finished WHERE id = $1", task_id) == 0
    await hook.called(task_id, 2)


async def test_cancelled_means_never_called(service: Api, hook: Hook) -> None:
    url, roll = hook.url(), random.Random(5)
    gone = await service.submit_many([{"http": {"url": url}}] * 10)
    delays = [30.0] * 10 + [round(roll.random() / 5, 3) for _ in range(120)]
    racing = await service.submit_many([{"http": {"url": url}, "delay": delay} for delay in delays])
    await hook.all_called(gone)
    refused: dict[str, bool] = {}

    async def cancel(task_id: str) -> None:
        await asyncio.sleep(roll.random() / 5)  # spreads the commands over the time in which the tasks fire
        answer = await service.command(task_id, "cancel")
        assert answer.status in (200, 409), answer
        refused[task_id] = answer.status == 409

    async with asyncio.TaskGroup() as group:
        for task_id in gone + racing:
            group.create_task(cancel(task_id))
    for task_id in refused:
        state = (await service.wait(task_id))["state"]
        assert state == ("succeeded" if refused[task_id] else "cancelled")
        assert len(hook.calls[task_id]) == refused[task_id]
    assert [refused[task_id] for task_id in gone + racing[:10]] == [True] * 10 + [False] * 10
