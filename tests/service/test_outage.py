"""The database away: at the start, later on, in the middle of a statement.

Nothing that was accepted is lost, and nothing is a 500.
"""

import asyncio
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from storage.embedded import EmbeddedPostgres
from storage.migrations import migrate
from tests.service.api import LIMIT_S, Api, Tables, tables_of
from tests.service.gate import gate_before
from tests.service.hook import Held, Hook
from tests.service.served import ready, serving, starting

RETRY: dict[str, Any] = {"max_attempts": 9, "min_backoff": 0.02, "max_backoff": 0.05}
TASK_ID = "018f0000-0000-7000-8000-000000000000"
CLIENTS = 12
SUBMITS = 240
PLACES = [
    ("POST", "/v1/tasks", {}),
    ("POST", "/v1/tasks", {"queue": "new"}),
    ("POST", "/v1/tasks", {"idempotency_key": "k"}),
    ("POST", "/v1/tasks:batch", [{}, {}]),
    ("GET", f"/v1/tasks/{TASK_ID}", None),
    ("GET", f"/v1/tasks/{TASK_ID}?view=full", None),
    ("GET", f"/v1/tasks/{TASK_ID}/attempts", None),
    ("GET", "/v1/tasks?queue=mail&limit=3", None),
    ("GET", "/v1/cluster", None),
    ("POST", f"/v1/tasks/{TASK_ID}:cancel", {}),
    ("POST", f"/v1/tasks/{TASK_ID}:reschedule", {"delay": 1}),
    ("POST", f"/v1/tasks/{TASK_ID}:complete", {"fence": "00000001.0000000001.000001"}),
]


async def is_away(api: Api, within_s: float = LIMIT_S) -> None:
    """Everything that needs the database says so in time, and when to come back."""

    async def ask(method: str, path: str, body: object) -> None:
        began_s = asyncio.get_running_loop().time()
        answer = await api.call(method, path, body)
        assert asyncio.get_running_loop().time() - began_s < within_s, path
        if path.endswith(":batch") and answer.status == 200:
            problems = [item["problem"] for item in answer.body["results"]]
            assert {problem["type"] for problem in problems} == {"unavailable"}
            return
        assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json"), (path, answer)
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.body["type"] == "unavailable"

    async with asyncio.TaskGroup() as group:
        for method, path, body in PLACES:
            group.create_task(ask(method, path, body))
    for path in ("/livez", "/metrics"):
        assert (await api.call("GET", path)).status == 200


async def test_away_at_the_start(database_url: str, hook: Hook) -> None:
    async with gate_before(database_url) as gate, starting(gate.dsn) as api:
        await is_away(api)
        for path in ("/readyz", "/startupz"):
            assert (await api.call("GET", path)).status == 503
        await gate.open()
        await ready(api)
        assert (await api.call("GET", "/startupz")).status == 200
        task = await api.submit(http={"url": hook.url()})
        assert (await api.wait(task["id"]))["state"] == "succeeded"


async def test_an_outage_is_told_in_few_words(database_url: str, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and later on: when it begins and when it is over, and by whom it is not there."""
    monkeypatch.setattr("storage.outcry.QUIET_S", 0.1)
    with capture_logs() as lines:
        async with gate_before(database_url) as gate, starting(gate.dsn) as api:
            await is_away(api)
            await asyncio.sleep(0.6)  # it is tried again meanwhile
            await gate.open()
            await ready(api)
            await told(api, lines, 2)
            task = await api.submit(http={"url": hook.url()}, delay=0.5)
            gate.shut()
            await is_away(api)
            await asyncio.sleep(1)  # so do heartbeats, probe and keys
            await gate.open()
            await hook.called(task["id"])
            await told(api, lines, 4)
            node = api.service.node.name
            words = [(line["log_level"], line["event"]) for line in lines if line["log_level"] != "debug"]
        assert lines[-1]["event"] == "stopped"
    tries, over = ("warning", "the database can't be used; trying again"), ("info", "the database can be used again")
    assert [each for each in words if "database" in each[1]] == [tries, over, tries, over]
    assert len(words) <= 6
    (about,) = {line["database"] for line in lines if "database" in line}
    assert about == urlsplit(gate.dsn).netloc.partition("@")[2] + urlsplit(gate.dsn).path
    (stopping,) = [line for line in lines if line["event"].startswith("stopping")]
    assert (stopping["node"], stopping["grace_s"]) == (node, 0.05)


async def told(api: Api, lines: Sequence[Mapping[str, Any]], count: int) -> None:
    """Return once so many lines tell of the database."""
    async with asyncio.timeout(LIMIT_S):
        while sum("database" in line for line in lines) < count:
            await api.call("GET", "/livez")


async def test_told_to_stop_while_it_waits_for_its_database(database_url: str) -> None:
    async with gate_before(database_url) as gate, starting(gate.dsn) as api:
        assert (await api.call("GET", "/livez")).status == 200


async def test_away_later_on(database_url: str, hook: Hook, tables: Tables) -> None:
    held = Held()
    async with gate_before(database_url) as gate:
        await gate.open()
        async with serving(gate.dsn) as api:
            ids = await api.submit_many(
                [{"http": {"url": hook.url()}, "delay": 0.02 * number} for number in range(100)]
            )
            running = await api.submit(http={"url": hook.url(held)})
            await hook.called(running["id"])
            gate.shut()
            await is_away(api)
            held.release.set()  # an attempt ends while nothing can be written
            await gate.open()
            await ready(api)
            await hook.all_called(ids)
            await tables.empty()
        assert await tables.value("SELECT count(*) FROM finished WHERE state = 2") == len(ids) + 1
        assert {len(calls) for calls in hook.calls.values()} == {1}


async def test_nobody_waits_long_for_a_database_that_is_frozen(
    database_url: str, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and statements, and answers nothing."""
    monkeypatch.setattr("actors.membership.T_STOP_MS", 1_500)
    monkeypatch.setattr("actors.intake.PATIENCE_S", 0.7)
    monkeypatch.setattr("gateway.patience.SILENT_S", 1.0)
    monkeypatch.setattr("gateway.patience.TRY_S", 0.5)
    with capture_logs() as lines:
        async with gate_before(database_url) as gate:
            await gate.open()
            async with serving(gate.dsn) as api:
                await api.submit()  # its queue is known
                gate.freeze()
                await is_away(api, 1.7)
                await is_away(api, 0.7)
                while api.service.node.may_fire():
                    await api.call("GET", "/livez")
                await is_away(api, 0.3)
                await told(api, lines, 1)
                gate.thaw()
                await ready(api)
                task = await submitted(api, hook.url())
                await hook.called(task)
                assert (await api.wait(task))["state"] == "succeeded"
    assert next(line["detail"] for line in lines if "database" in line).startswith("no answer in ")


async def submitted(api: Api, url: str) -> str:
    """The id of a task that is accepted as soon as it can be."""
    async with asyncio.timeout(LIMIT_S):
        while (answer := await api.call("POST", "/v1/tasks", {"http": {"url": url}})).status != 201:
            assert answer.status == 503, answer
    return str(answer.body["id"])


async def test_nothing_fires_when_the_lease_is_over(
    database_url: str, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.membership.T_STOP_MS", 700)
    async with gate_before(database_url) as gate:
        await gate.open()
        async with serving(gate.dsn) as api:
            task = await api.submit(http={"url": hook.url()}, delay=1.5)
            gate.shut()
            await asyncio.sleep(1.8)  # its time passes meanwhile
            assert hook.calls == {}
            assert (await api.call("GET", "/readyz")).status == 503
            await gate.open()
            await hook.called(task["id"])
            assert (await api.wait(task["id"]))["lateness_ms"] > 200


async def test_backends_ended_at_random(service: Api, hook: Hook, tables: Tables) -> None:
    await submits_survive(service, hook, tables, lambda: end_a_backend(tables))


async def test_connections_cut_at_random(database_url: str, hook: Hook, tables: Tables) -> None:
    """Also in the middle of a COMMIT whose answer is lost."""
    async with gate_before(database_url) as gate:
        await gate.open()

        async def cut() -> None:
            gate.cut()

        async with serving(gate.dsn) as api:
            await submits_survive(api, hook, tables, cut)


async def end_a_backend(tables: Tables) -> None:
    await tables.value(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name LIKE 'ringwheel:%' ORDER BY random() LIMIT 1"
    )


async def submits_survive(api: Api, hook: Hook, tables: Tables, disturb: Callable[[], Any]) -> None:
    """Submit without keys and with keys, and disturb after every tenth answer; all that was accepted ends well."""
    url, roll = hook.url(), random.Random(11)
    accepted: set[str] = set()
    answers = itertools.count(1)

    async def submit(number: int) -> None:
        task = {"http": {"url": url}, "delay": round(roll.random() / 2, 3), "retry": RETRY}
        headers = {"Idempotency_Key": f"key-{number}"} if number % 2 else {}
        while True:
            answer = await api.call("POST", "/v1/tasks", task, **headers)
            if next(answers) % 10 == 0:
                await disturb()
            if answer.status in (200, 201):
                accepted.add(answer.body["id"])
                return
            assert (answer.status, "Retry-After" in answer.headers) == (503, True), answer
            if not headers:
                return  # outcome unknown: without a key it can't be asked again
            await asyncio.sleep(0.05)  # a client's own pause

    async def client(numbers: range) -> None:
        for number in numbers:
            await submit(number)

    async with asyncio.TaskGroup() as clients:
        for first in range(CLIENTS):
            clients.create_task(client(range(first, SUBMITS, CLIENTS)))
    await hook.all_called(sorted(accepted))
    await tables.empty()
    ended = {str(row["id"]) for row in await tables.rows("SELECT id FROM finished WHERE state = 2")}
    assert accepted <= ended
    keyed = await tables.value("SELECT count(*) FROM finished WHERE key_hash IS NOT NULL")
    assert keyed == SUBMITS // 2, "one task a key"


async def test_commands_while_backends_end(service: Api, tables: Tables) -> None:
    ids = await service.submit_many([{"queue": "pulled", "delay": 30 + n} for n in range(60)])
    statuses: Counter[int] = Counter()

    async def cancel(task_id: str) -> None:
        while True:
            answer = await service.command(task_id, "cancel")
            statuses[answer.status] += 1
            if answer.status == 200:
                return
            assert answer.status == 503, answer

    async with asyncio.TaskGroup() as group:
        for number, task_id in enumerate(ids):
            group.create_task(cancel(task_id))
            if number % 6 == 0:
                await end_a_backend(tables)
    assert statuses[200] == len(ids)
    assert await tables.value("SELECT count(*) FROM finished WHERE state = 5") == len(ids)


async def test_the_server_killed(tmp_path: Path, hook: Hook) -> None:
    """The embedded server dies by kill -9; its keeper starts it again, and the service goes on by itself."""
    async with EmbeddedPostgres(tmp_path / "data") as server:
        await migrate(server.dsn)
        async with serving(server.dsn) as api:
            url = hook.url()
            ids = await api.submit_many([{"http": {"url": url}, "delay": 0.02 * number} for number in range(150)])
            future = await api.submit(delay="10d", payload="kept")
            pid_file = server.folder.pgdata / "postmaster.pid"
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGKILL)
            accepted = await submit_until_back(api, url)
            await hook.all_called([*ids, *accepted])
            async with tables_of(server.dsn) as tables:
                await cancelled(api, future["id"])
                await tables.empty()
                ended = {str(row["id"]) for row in await tables.rows("SELECT id FROM finished WHERE state = 2")}
            assert ended >= {*ids, *accepted}


async def cancelled(api: Api, task_id: str) -> None:
    """Cancel as a client does: a 503, while connections that the outage broke are made anew, is asked again."""
    async with asyncio.timeout(LIMIT_S):
        while (answer := await api.command(task_id, "cancel")).status != 200:
            assert (answer.status, "Retry-After" in answer.headers) == (503, True), answer


async def submit_until_back(api: Api, url: str) -> list[str]:
    """Submit again and again: what was accepted, from the outage's begin to some time after it."""
    accepted: list[str] = []
    refused = False
    async with asyncio.timeout(LIMIT_S):
        while not refused or len(accepted) < 20:
            answer = await api.call("POST", "/v1/tasks", {"http": {"url": url}})
            assert answer.status in (201, 503), answer
            refused = refused or answer.status == 503
            if answer.status == 201:
                accepted.append(answer.body["id"])
    return accepted
