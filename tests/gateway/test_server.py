"""Bytes that are no HTTP, on a real socket."""

import logging

import orjson
import pytest

from tests.gateway.served import raw, served

HOST = b"Host: a\r\n"
CASES = {
    "no request line": (b"nonsense\r\n\r\n", "Invalid method encountered"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00", "Received HTTPS traffic on an HTTP port"),
    "version": (b"GET / HTTP/9.9\r\n\r\n", "Bad status line"),
    "header without colon": (b"GET / HTTP/1.1\r\n" + HOST + b"bad header\r\n\r\n", "Invalid header token"),
    "NUL in a header": (b"GET / HTTP/1.1\r\n" + HOST + b"X: \0\r\n\r\n", "Invalid header value char"),
    "long header": (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 9_000 + b"\r\n\r\n", "longer than 8190 bytes"),
    "long path": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", "longer than 8190 bytes"),
    "URL": (b"GET http://[ HTTP/1.1\r\n" + HOST + b"\r\n", "the URL can't be read"),
    "length": (b"POST /v1/tasks HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n", "Content-Length"),
    "chunk": (
        b"POST /v1/tasks HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "Invalid character in chunk size",
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_is_no_http_gets_a_problem_and_no_traceback(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    request, words = CASES[name]
    async with served() as world:
        head, _, body = (await raw(world.server, request)).partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0].endswith(b" 400 Bad Request")
    assert b"Content-Type: application/problem+json" in head
    problem = orjson.loads(body)
    assert (problem["type"], problem["status"], problem["errors"]) == ("malformed", 400, [])
    assert words in problem["detail"]
    assert len(body) < 300
    assert [record for record in caplog.records if record.exc_info or record.levelno > logging.INFO] == []


async def test_a_damaged_body_is_no_traceback_either(caplog: pytest.LogCaptureFixture) -> None:
    request = b"POST /v1/tasks HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno size\r\n"
    async with served() as world:
        answer = await raw(world.server, request)
    assert b"application/problem+json" in answer
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 400
    assert [record for record in caplog.records if record.exc_info] == []


async def test_what_escapes_from_the_application_is_still_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.problems.problem_of", lambda error: 1 // 0)
    async with served() as world:
        assert (await world.get("/v1/tasks/x")).status == 500
    assert "ZeroDivisionError" in caplog.text
