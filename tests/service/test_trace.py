"""A trace goes through the service: also through the tables, from process to process."""

from tests.service.api import Api
from tests.service.hook import Hook
from tests.service.served import serving
from tests.support.builders import TRACE
from tests.support.raw_target import answers


async def test_a_trace_outlives_the_node_and_the_death_of_its_task(database_url: str, hook: Hook) -> None:
    fails = answers(500)
    soon = {"max_attempts": 2, "min_backoff": 0.01, "max_backoff": 0.01}
    async with serving(database_url) as api:
        url = hook.url(fails, fails, fails)
        submitted = await api.call(
            "POST", "/v1/tasks", {"http": {"url": url}, "retry": soon, "delay": 120}, traceparent=TRACE
        )
        task_id = submitted.body["id"]
    async with serving(database_url) as api:
        await _run(api, task_id)
        assert (await api.wait(task_id))["state"] == "dead"
        assert (await api.command(task_id, "redrive")).status == 200
        calls = await hook.called(task_id, 3)
    sent = [call.headers["traceparent"] for call in calls]
    assert {trace[:36] + trace[52:] for trace in sent} == {TRACE[:36] + TRACE[52:]}
    assert len({*sent, TRACE}) == len(sent) + 1


async def _run(api: Api, task_id: str) -> None:
    assert (await api.command(task_id, "run")).status == 200
