"""Client commands as real processes against a service that answers as told."""

import asyncio
import fcntl
import os
import signal
import struct
import termios
from typing import Any

import orjson
import pytest

from actors.core.keys import Scope
from actors.core.task import State
from gateway.cli.bulk import LINE_BYTES
from tests.gateway.cli.double import a_problem, a_task, double
from tests.gateway.watched import a_change, a_row, id_of
from tests.support.keys import new_key


async def test_submit_sends_what_the_options_say() -> None:
    async with double() as service:
        service.answer(a_task(), 201)
        words = ["submit", "https://sink.test/hook", "--queue", "mail", "--delay", "1.5", "--idempotency-key", "k 1"]
        done = await service.run(*words, "--label", "team=blue", "--label", "x=a=b", "--payload", '{"n": 1.10}')
        assert done.code == 0
        assert id_of(1) in done.out
        (asked,) = service.asked
        assert asked.line == "POST /v1/tasks"
        assert asked.headers["Idempotency-Key"] == "k 1"
        assert b'"payload":{"n": 1.10}' in asked.body, "as it came"
        assert b'"labels":{"team":"blue","x":"a=b"}' in asked.body
        assert b'"delay":1.5' in asked.body
        assert b'"http":{"url":"https://sink.test/hook"}' in asked.body


async def test_submit_reads_standard_input_and_writes_json() -> None:
    async with double() as service:
        service.answer(a_task(), 201)
        done = await service.run("submit", "--payload", "-", "--at", "2027-01-01T00:00:00Z", "--json", stdin=b"[1,2]")
        assert done.code == 0
        assert done.json == [a_task()]
        assert orjson.loads(service.asked[0].body) == {"payload": [1, 2], "schedule_time": "2027-01-01T00:00:00Z"}


async def test_a_refusal_names_the_fields() -> None:
    async with double() as service:
        problem = a_problem(422, "The request breaks the contract", "no such \x1b[31munit", "/delay")
        service.answer(problem, 422)
        service.answer(problem, 422)
        done = await service.run("submit", "--delay", "1parsec")
        assert (done.code, done.out) == (2, "")
        assert done.err == (
            "error: The request breaks the contract\n  /delay: no such �[31munit\n"
        )  # fmt: skip
        done = await service.run("submit", "--delay", "1parsec", "--json")
        assert (done.code, done.out) == (2, "")
        assert orjson.loads(done.err) == problem


async def test_submit_and_wait() -> None:
    async with double() as service:
        hub, tables = service.world.hub, service.world.tables
        for state, code in ((State.SUCCEEDED, 0), (State.DEAD, 1)):
            tables.put(a_row(1, 0))
            service.answer(a_task(), 201)
            async with asyncio.TaskGroup() as group:
                running = group.create_task(service.run("submit", "http://x", "--wait"))
                await hub.until(lambda: hub.feeds(id_of(1)) == 1)
                hub.publish([a_change(1, 1), a_change(1, 2, state, status=200)])
            done = running.result()
            assert done.code == code
            assert [line.split()[2] for line in done.out.splitlines()[-3:]] == ["scheduled", "running", state.value]
            await hub.until(lambda: hub.watchers == 0)


FULL = "standard output can't be written: No space left on device"


async def test_an_accepted_task_that_can_not_be_shown_is_named() -> None:
    async with double() as service:
        for words in (("submit",), ("submit", "--wait"), ("submit", "--json")):
            service.answer(a_task(), 201)
            done = await service.run_full(*words)
            assert done.code == 1
            assert f"task {id_of(1)} was accepted, but {FULL}" in done.err
            assert done.err.count("\n") == 1


async def test_what_can_not_be_shown_is_said_in_one_line() -> None:
    async with double() as service:
        service.answer(a_task())
        service.answer({"tasks": [a_task()], "next_cursor": None})
        service.answer({"tasks": [a_task()], "next_cursor": None})
        for words in (("get", id_of(1)), ("list",), ("list", "--json"), ("watch", "--queue", "mail", "--json")):
            done = await service.run_full(*words)
            assert (done.code, done.err.count("\n")) == (1, 1)
            assert FULL in done.err


async def test_a_reader_that_has_left_has_seen_enough() -> None:
    async with double() as service:
        service.world.tables.put(a_row(1, 1))
        service.answer(a_task())
        service.answer({"tasks": [a_task()], "next_cursor": None})
        service.answer({"tasks": [a_task()], "next_cursor": None})
        for words in (("get", id_of(1)), ("list",), ("list", "--json"), ("watch", id_of(1))):
            done = await service.run_unread(*words)
            assert (done.code, done.err) == (141, "")
        service.answer(a_task(), 201)
        done = await service.run_unread("submit")
        assert (done.code, f"task {id_of(1)} was accepted, but" in done.err) == (1, True), "not to be lost"


async def test_watching_without_the_scope_is_told_in_the_words_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.keyring.MAX_AGE_S", 3600.0)  # nobody asks the tables again meanwhile
    async with double() as service:
        keyring, store = service.world.gateway.keyring, service.world.keys
        new, text = new_key(scopes=frozenset({Scope.SUBMIT}))
        await store.create(new)
        await keyring.refresh()
        done = await service.run("watch", id_of(1), "--key", text)
        assert (done.code, done.err) == (1, "error: Not allowed: the key lacks the scope read\n")
        done = await service.run("watch", id_of(1), "--key", f"{text[:-1]}x")
        assert (done.code, done.err) == (1, "error: Not authenticated: this key is not in use\n")
        done = await service.run("watch", id_of(1))
        assert (done.code, done.err) == (1, "error: Not authenticated: a key is needed: --key or RINGWHEEL_KEY\n")


async def test_get() -> None:
    async with double() as service:
        service.answer(a_task(labels={"a": "[red]b"}) | {"payload": {"n": 1}})
        service.answer({"attempts": [{"attempt": 1}]})
        done = await service.run("get", id_of(1), "--full", "--attempts")
        assert done.code == 0
        assert '{"a":"[red]b"}' in done.out
        assert [asked.line for asked in service.asked] == [
            f"GET /v1/tasks/{id_of(1)}?view=full",
            f"GET /v1/tasks/{id_of(1)}/attempts",
        ]


async def test_exit_codes() -> None:
    async with double() as service:
        for status, code in ((400, 2), (403, 1), (404, 3), (409, 4), (413, 2), (422, 2), (429, 1), (500, 1), (503, 5)):
            service.answer(a_problem(status, "No", "not so"), status)
            done = await service.run("get", "a/b?c")
            assert (done.code, done.err) == (code, "error: No: not so\n")
        assert service.asked[0].line == "GET /v1/tasks/a%2Fb%3Fc"


async def test_a_key_that_another_task_has_is_a_conflict() -> None:
    async with double() as service:
        service.answer(a_problem(422, "The idempotency key was used", "before") | {"type": "key-reused"}, 422)
        assert (await service.run("submit", "--idempotency-key", "k")).code == 4


async def test_what_is_no_service_of_ours() -> None:
    async with double() as service:
        service.answer([], 200)  # type: ignore[arg-type]
        done = await service.run("get", "x")
        assert (done.code, done.err) == (1, "error: Unexpected answer: 200 OK\n")


async def test_list_pages() -> None:
    async with double() as service:
        service.answer({"tasks": [a_task(n) for n in range(500)], "next_cursor": "c1"})
        service.answer({"tasks": [a_task(n) for n in range(500, 600)], "next_cursor": "c2"})
        done = await service.run("list", "--queue", "mail", "--state", "dead", "--state", "running", "--limit", "600")
        assert done.code == 0
        assert len(done.out.splitlines()) == 601
        assert done.err == "there are more: raise --limit\n"
        assert [asked.line for asked in service.asked] == [
            "GET /v1/tasks?queue=mail&state=dead,running&order=desc&limit=500",
            "GET /v1/tasks?queue=mail&state=dead,running&order=desc&limit=100&cursor=c1",
        ]


async def test_a_task_that_waits_for_a_retry_says_when() -> None:
    last = {"status": 503, "error": "busy"}
    again: dict[str, Any] = {"attempt": 2, "next_attempt_time": "2027-01-15T08:00:09.000Z", "last_attempt": last}
    async with double() as service:
        dead = a_task(2, "dead", attempt=2, last_attempt=last)
        service.answer({"tasks": [a_task(1, **again), dead], "next_cursor": None})
        listed = (await service.run("list")).out.splitlines()
        assert listed[1].endswith("again at 2027-01-15T08:00:09.000Z after 503 busy")
        assert listed[2].split()[-2:] == ["503", "busy"]
        service.answer(a_task(1, **again))
        got = (await service.run("get", id_of(1))).out
        assert ["next_attempt_time", "2027-01-15T08:00:09.000Z"] in [line.split() for line in got.splitlines()]


async def test_list_as_json_lines() -> None:
    async with double() as service:
        service.answer({"tasks": [a_task(1), a_task(2)], "next_cursor": None})
        assert (await service.run("list", "--json", "--oldest-first")).json == [a_task(1), a_task(2)]
        assert service.asked[0].line == "GET /v1/tasks?order=asc&limit=100"


async def test_cancel_goes_on_after_a_refusal() -> None:
    async with double() as service:
        service.answer(a_problem(409, "Not possible", "can't cancel a task that is running"), 409)
        service.answer(a_task(2, "cancelled"))
        done = await service.run("cancel", id_of(1), id_of(2))
        assert done.code == 4
        assert done.err == f"error: Not possible: {id_of(1)}: can't cancel a task that is running\n"
        assert "cancelled" in done.out


async def test_watch_ends_with_the_tasks() -> None:
    async with double() as service:
        service.world.tables.put(a_row(1, 3, State.SUCCEEDED), a_row(2, 1))
        hub = service.world.hub
        async with asyncio.TaskGroup() as group:
            running = group.create_task(service.run("watch", id_of(1), id_of(2).upper(), "--json"))
            await hub.until(lambda: hub.feeds(id_of(2)) == 1)
            hub.publish([a_change(2, 4, State.SUCCEEDED)])
        done = running.result()
        assert done.code == 0
        assert [message["type"] for message in done.json] == ["snapshot", "snapshot", "event"]


async def test_watch_an_unknown_task_is_3() -> None:
    async with double() as service:
        done = await service.run("watch", id_of(9))
        assert done.code == 3
        assert id_of(9) in done.err
        done = await service.run("watch", id_of(9), "nonsense")
        assert (done.code, done.err) == (3, "error: Not found: no such task: nonsense\n")


async def test_watching_what_the_service_takes_for_wrong_is_2() -> None:
    async with double() as service:
        done = await service.run("watch", "--queue", "a b", "--json")
        assert (done.code, orjson.loads(done.err)["type"]) == (2, "invalid")
        assert (await service.run("watch", "--label", "a b=c")).code == 2


@pytest.mark.parametrize("words", [("--queue", "mail"), ("--label", "team=blue", "--queue", "mail")])
async def test_watch_a_queue_or_labels_until_interrupted(words: tuple[str, ...]) -> None:
    async with double() as service:
        hub = service.world.hub
        process = await service.start("watch", *words)
        assert process.stdout is not None
        await hub.until(lambda: hub.feeds() == 1)
        hub.publish([a_change(7, 1, status=503, error="busy", labels='{"team":"blue"}')])
        line = await process.stdout.readline()
        assert line.decode().split()[1:] == [id_of(7), "running", "attempt", "1", "503", "busy"]
        hub.publish([a_change(7, 2, status=503, error="busy", labels='{"team":"blue"}')])
        line = await process.stdout.readline()
        assert line.decode().split()[5:] == ["again", "at", "2027-01-15T08:00:00.000Z", "after", "503", "busy"]
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 0


async def test_watch_asks_for_what_a_snapshot_after_a_gap_leaves_out() -> None:
    async with double() as service:
        hub, tables = service.world.hub, service.world.tables
        tables.put(a_row(7), a_row(8))
        process = await service.start("watch", "--queue", "mail")
        assert process.stdout is not None
        assert process.stderr is not None
        await hub.until(lambda: hub.feeds() == 1)
        assert [(await process.stdout.readline()).split()[2] for _ in range(2)] == [b"scheduled"] * 2
        tables.put(a_row(7, 1, State.SUCCEEDED))
        hub.interrupt()
        line = await process.stdout.readline()
        assert line.decode().split()[1:3] == [id_of(7), "succeeded"]
        note = (await process.stderr.readline()).decode()
        assert note.startswith("(some changes were not shown: a node could not be heard by the others")
        process.send_signal(signal.SIGINT)
        assert await process.communicate() == (b"", b"")


async def test_watch_on_a_terminal_is_a_live_table() -> None:
    async with double() as service:
        hub = service.world.hub
        service.world.tables.put(a_row(1, 1))
        screen, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 160, 0, 0))
        process = await service.start("watch", id_of(1), terminal=terminal)
        os.close(terminal)
        try:
            await hub.until(lambda: hub.feeds(id_of(1)) == 1)
            hub.publish([a_change(1, 4, State.DEAD, status=503, error="busy")])
            drawn = await asyncio.to_thread(all_of, screen)
        finally:
            os.close(screen)
        assert await process.wait() == 1
        assert "1 dead" in drawn
        assert "503 busy" in drawn


def all_of(screen: int) -> str:
    """What a terminal was sent until its last writer closed it."""
    drawn = b""
    while True:
        try:
            data = os.read(screen, 65_536)
        except OSError:
            return drawn.decode()
        drawn += data


async def test_ndjson_explains_refused_lines() -> None:
    async with double() as service:
        problem = a_problem(422, "The request breaks the contract", "expected `str`", "/queue")
        service.answer({"results": [{"id": id_of(1), "state": "scheduled"}, {"problem": problem}]})
        done = await service.run("submit", "--ndjson", "-", stdin=b'{"queue":"a"}\n\n  {"queue":1}\n')
        assert done.code == 1
        assert done.out == "1 accepted, 1 refused\n"
        assert done.err == "line 3 (/queue): The request breaks the contract: expected `str`\n"
        (asked,) = service.asked
        assert asked.line == "POST /v1/tasks:batch"
        assert asked.headers["Content-Type"] == "application/x-ndjson"
        assert asked.body == b'{"queue":"a"}\n{"queue":1}'


async def test_ndjson_goes_on_after_a_line_that_the_service_would_not_take() -> None:
    async with double() as service:
        service.answer({"results": [{"id": id_of(1), "state": "scheduled"}, {"id": id_of(2), "state": "scheduled"}]})
        long = b'{"payload":"' + b"x" * LINE_BYTES + b'"}\n'
        done = await service.run("submit", "--ndjson", "-", stdin=b"{}\n" + long + b'{"queue":"a"}\n')
        assert (done.code, done.out) == (1, "2 accepted, 1 refused\n")
        assert done.err == f"line 2: Too large: the line is longer than {LINE_BYTES} bytes\n"
        assert service.asked[0].body == b'{}\n{"queue":"a"}'


async def test_ndjson_whose_end_can_not_be_shown() -> None:
    async with double() as service:
        service.answer({"results": [{"id": id_of(1), "state": "scheduled"}]})
        service.answer(a_problem(503, "Not available", "unknown"), 503)
        done = await service.run_full("submit", "--ndjson", "-", stdin=b"{}\n")
        assert (done.code, done.err) == (1, f"error: The answer can't be shown: 1 accepted, 0 refused, but {FULL}\n")
        done = await service.run_full("submit", "--ndjson", "-", stdin=b"{}\n")
        assert (done.code, done.err.splitlines()[0]) == (5, f"0 accepted, 0 refused, but {FULL}")


async def test_ndjson_sends_batches_under_their_own_keys_and_insists() -> None:
    async with double() as service:
        accepted = {"id": id_of(1), "state": "scheduled"}
        service.answer(a_problem(429, "Too much", "wait"), 429)
        service.answer(a_problem(503, "Not available", "unknown"), 503)
        service.answer({"results": [accepted] * 1000})
        service.answer({"results": [accepted] * 500})
        done = await service.run(
            "submit", "--ndjson", "-", "--idempotency-key", "import-7", "--json", stdin=b"{}\n" * 1500
        )
        assert (done.code, done.json) == (0, [{"accepted": 1500, "refused": 0}])
        keys = [asked.headers["Idempotency-Key"] for asked in service.asked]
        assert keys == ["import-7/0", "import-7/0", "import-7/0", "import-7/1"]


async def test_ndjson_without_a_key_never_repeats_what_may_have_happened() -> None:
    async with double() as service:
        service.answer(a_problem(503, "Not available", "unknown"), 503)
        done = await service.run("submit", "--ndjson", "-", stdin=b"{}\n")
        assert done.code == 5
        assert done.out == "0 accepted, 0 refused\n"
        assert len(service.asked) == 1
