"""Signing secrets made on the command line, and signed webhooks of a running node."""

import asyncio
import json
import logging
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.service.api import LIMIT_S, Api
from tests.service.hook import Call, Hook
from tests.service.programs import ringwheel


async def secret(dsn: str, *words: str) -> tuple[int, str]:
    """Exit code and output of `ringwheel secret ...`."""
    async with ringwheel("secret", *words, RINGWHEEL_DATABASE_URL=dsn) as program:
        code = await program.ended()
        async with asyncio.timeout(LIMIT_S):
            await program.heard.wait()
        return code, program.output


async def made(dsn: str, verb: str) -> dict[str, Any]:
    """The new secret, after the line that is kept of it."""
    code, output = await secret(dsn, verb, "--json")
    assert code == 0, output
    lines = [json.loads(text) for text in output.splitlines()]
    (line,) = (line for line in lines if "event" in line)
    (shown,) = (line for line in lines if "secret" in line)
    said = line["event"], line["by"], line["tenant"], line["id"]
    assert said == (f"signing secret {verb.removesuffix('e')}ed", "database", shown["tenant"], shown["id"])
    assert shown["secret"].removeprefix("whsec_") not in str(line)
    return shown  # type: ignore[no-any-return]


async def signed(api: Api, hook: Hook, signatures: int) -> Call:
    """A call with so many signatures: the node needs a moment to hear of a change."""
    url = hook.url()
    async with asyncio.timeout(LIMIT_S):
        while True:
            task = await api.submit(http={"url": url}, payload={"n": 1})
            [call] = await hook.called(task["id"])
            if len(call.headers.get("webhook-signature", "").split()) == signatures:
                return call


async def test_a_rotation_from_the_command_line(database_url: str, service: Api, hook: Hook) -> None:
    await signed(service, hook, 0)
    old = await made(database_url, "create")
    call = await signed(service, hook, 1)
    assert Webhook(old["secret"]).verify(call.body, call.headers) == {"n": 1}
    new = await made(database_url, "rotate")
    call = await signed(service, hook, 2)
    for one in (old, new):
        assert Webhook(one["secret"]).verify(call.body, call.headers) == {"n": 1}
    code, output = await secret(database_url, "revoke", str(old["id"]))
    (line,) = (json.loads(text) for text in output.splitlines() if text.startswith("{"))
    assert (line["event"], line["by"], line["tenant"]) == ("signing secret revoked", "database", "default")
    shown = [text.split() for text in output.splitlines() if not text.startswith("{")]
    assert (code, line["id"], shown) == (0, old["id"], [["id", str(old["id"])], ["revoked", "True"]])
    call = await signed(service, hook, 1)
    assert Webhook(new["secret"]).verify(call.body, call.headers) == {"n": 1}


async def test_a_secret_is_shown_once(database_url: str) -> None:
    one, two = await made(database_url, "create"), await made(database_url, "rotate")
    outputs = [
        await secret(database_url, "list"),
        await secret(database_url, "list", "--json"),
        await secret(database_url, "create"),
        await secret(database_url, "rotate", "--tenant", "nobody"),
        await secret(database_url, "revoke", "999999"),
        await secret(database_url, "revoke", "none"),
        await secret(database_url, "list", "--tenant", "nobody"),
    ]
    assert [code for code, _ in outputs] == [0, 0, 4, 3, 3, 2, 0]
    listed = [json.loads(line) for line in outputs[1][1].splitlines()]
    assert [line["id"] for line in listed] == [two["id"], one["id"]]
    for _, output in outputs:
        for text in (one["secret"], two["secret"]):
            assert text.removeprefix("whsec_") not in output


async def test_a_database_that_is_not_there() -> None:
    code, output = await secret("postgresql://nobody@127.0.0.1:1/none", "create")
    assert code == 5, output
    assert "whsec_" not in output


async def test_a_secret_is_in_no_answer_and_no_line(
    database_url: str, service: Api, hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text = (await made(database_url, "create"))["secret"].removeprefix("whsec_")
    call = await signed(service, hook, 1)
    task_id = call.headers["webhook-id"]
    for path in ("/metrics", "/readyz", f"/v1/tasks/{task_id}?view=full", f"/v1/tasks/{task_id}/attempts"):
        answer = await service.call("GET", path)
        assert answer.status == 200
        assert text not in str(answer.body)
    assert text not in caplog.text
