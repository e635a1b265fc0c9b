"""Input that must be refused: the right 4xx and pointer for one task, and for that item alone in a batch."""

import gzip
import zlib

import orjson
import pytest
from multidict import CIMultiDict

from tests.gateway.served import served

DEEP = b'{"payload":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
BIG = orjson.dumps({"payload": "x" * 300 * 1024})
HTTP = b'{"http":{"url":"http://sink.test/hook",%b}}'
URL = b'{"http":{"url":%b}}'
AT = b'{"schedule_time":"%b"}'

CASES: dict[str, tuple[bytes, int, str, str | None]] = {
    # name: body, status, problem type, pointer (None: the problem names no field)
    "not JSON": (b"{nonsense}", 400, "not-json", ""),
    "cut short": (b'{"queue":"a"', 400, "not-json", ""),
    "NaN in the payload": (b'{"payload":NaN}', 400, "not-json", ""),
    "NaN as a delay": (b'{"delay":NaN}', 400, "not-json", ""),
    "raw NUL in a text": (b'{"payload":"\x00"}', 400, "not-json", ""),
    "half a surrogate pair": (b'{"payload":"\\ud800"}', 400, "not-json", ""),
    "broken UTF-8 in retry": (b'{"retry":{"max_backoff":"\xff"}}', 400, "not-json", "/retry"),
    "broken UTF-8 in the payload": (b'{"payload":"\xff"}', 400, "not-json", "/payload"),
    "broken UTF-8 in a field": (b'{"queue":"\xff"}', 400, "not-json", ""),
    "broken UTF-8 in a name": (b'{"\xff":1}', 400, "not-json", ""),
    "depth 5,000": (DEEP, 422, "invalid", ""),
    "a number": (b"5", 422, "invalid", ""),
    "an array": (b"[[]]", 422, "invalid", ""),
    "null": (b"null", 422, "invalid", ""),
    "unknown field": (b'{"shedule_time":"x"}', 422, "invalid", "/shedule_time"),
    "unknown field, escaped": (b'{"a/b~c":1}', 422, "invalid", "/a~1b~0c"),
    "queue of another type": (b'{"queue":5}', 422, "invalid", "/queue"),
    "queue with a slash": (b'{"queue":"a/b"}', 422, "invalid", "/queue"),
    "queue with a line end": (b'{"queue":"a\\n"}', 422, "invalid", "/queue"),
    "queue with NUL": (b'{"queue":"\\u0000"}', 422, "invalid", "/queue"),
    "queue too long": (b'{"queue":"' + b"q" * 101 + b'"}', 422, "invalid", "/queue"),
    "queue named .": (b'{"queue":"."}', 422, "invalid", "/queue"),
    "queue named ..": (b'{"queue":".."}', 422, "invalid", "/queue"),
    "empty queue": (b'{"queue":""}', 422, "invalid", "/queue"),
    "time without zone": (AT % b"2026-10-01T00:00:00", 422, "invalid", "/schedule_time"),
    "year 10000": (AT % b"10000-01-01T00:00:00Z", 422, "invalid", "/schedule_time"),
    "year 9999": (AT % b"9999-01-01T00:00:00Z", 422, "invalid", "/schedule_time"),
    "leap second": (AT % b"2026-12-31T23:59:60Z", 422, "invalid", "/schedule_time"),
    "a day that is none": (AT % b"2026-02-30T00:00:00Z", 422, "invalid", "/schedule_time"),
    "years ago": (AT % b"2020-01-01T00:00:00Z", 422, "invalid", "/schedule_time"),
    "time with a line end": (AT % b"2026-10-01T00:00:00Z\\n", 422, "invalid", "/schedule_time"),
    "time as a number": (b'{"schedule_time":1790000000}', 422, "invalid", "/schedule_time"),
    "time and delay": (b'{"schedule_time":"2026-10-01T00:00:00Z","delay":1}', 422, "invalid", "/delay"),
    "negative delay": (b'{"delay":-1}', 422, "invalid", "/delay"),
    "endless delay": (b'{"delay":1e308}', 422, "invalid", "/delay"),
    "delay beyond a double": (b'{"delay":1e999}', 422, "invalid", "/delay"),
    "delay of 2**70": (b'{"delay":1180591620717411303424}', 422, "invalid", "/delay"),
    "delay as a truth value": (b'{"delay":true}', 422, "invalid", "/delay"),
    "delay in words": (b'{"delay":"soon"}', 422, "invalid", "/delay"),
    "attempts of 2**70": (b'{"retry":{"max_attempts":1180591620717411303424}}', 422, "invalid", "/retry/max_attempts"),
    "max_attempts 0": (b'{"retry":{"max_attempts":0}}', 422, "invalid", "/retry/max_attempts"),
    "max_attempts as text": (b'{"retry":{"max_attempts":"5"}}', 422, "invalid", "/retry/max_attempts"),
    "unknown field of retry": (b'{"retry":{"attempts":5}}', 422, "invalid", "/retry/attempts"),
    "retry of another type": (b'{"retry":[]}', 422, "invalid", "/retry"),
    "back-off upside down": (b'{"retry":{"min_backoff":9,"max_backoff":1}}', 422, "invalid", "/retry/max_backoff"),
    "back-off in words": (b'{"retry":{"min_backoff":"x"}}', 422, "invalid", "/retry/min_backoff"),
    "no time for an attempt": (b'{"dispatch_deadline":0}', 422, "invalid", "/dispatch_deadline"),
    "a week for an attempt": (b'{"dispatch_deadline":"7d"}', 422, "invalid", "/dispatch_deadline"),
    "ttl 0": (b'{"ttl":0}', 422, "invalid", "/ttl"),
    "both payloads": (b'{"payload":1,"payload_base64":"YQ=="}', 422, "invalid", "/payload_base64"),
    "no base64": (b'{"payload_base64":"?"}', 422, "invalid", "/payload_base64"),
    "content type of JSON": (b'{"payload":1,"content_type":"text/plain"}', 422, "invalid", "/content_type"),
    "content type with CRLF": (b'{"payload_base64":"","content_type":"a/b\\r\\n"}', 422, "invalid", "/content_type"),
    "payload of 300 KiB": (BIG, 413, "too-large", "/payload"),
    "empty key": (b'{"idempotency_key":""}', 422, "invalid", "/idempotency_key"),
    "key of 256": (b'{"idempotency_key":"' + b"k" * 256 + b'"}', 422, "invalid", "/idempotency_key"),
    "key with a control": (b'{"idempotency_key":"a\\u0007"}', 422, "invalid", "/idempotency_key"),
    "17 labels": (orjson.dumps({"labels": {f"k{i}": "v" for i in range(17)}}), 422, "invalid", "/labels"),
    "label of 256": (orjson.dumps({"labels": {"k": "v" * 256}}), 422, "invalid", "/labels/k"),
    "label name of 64": (orjson.dumps({"labels": {"k" * 64: "v"}}), 422, "invalid", "/labels/" + "k" * 64),
    "label name with a tilde": (orjson.dumps({"labels": {"/~": "v"}}), 422, "invalid", "/labels/~1~0"),
    "label with NUL": (b'{"labels":{"k":"\\u0000"}}', 422, "invalid", "/labels/k"),
    "label that is a number": (b'{"labels":{"k":1}}', 422, "invalid", "/labels/k"),
    "priority 6": (b'{"priority":6}', 422, "invalid", "/priority"),
    "priority 1": (b'{"priority":1}', 422, "not-supported", "/priority"),
    "ordering key": (b'{"ordering_key":"a"}', 422, "not-supported", "/ordering_key"),
    "flow control": (b'{"flow_control":{"key":"a"}}', 422, "not-supported", "/flow_control"),
    "fairness key": (b'{"fairness_key":"a"}', 422, "not-supported", "/fairness_key"),
    "no url": (b'{"http":{}}', 422, "invalid", "/http/url"),
    "http of another type": (b'{"http":"http://sink.test"}', 422, "invalid", "/http"),
    "unknown field of http": (HTTP % b'"body":1', 422, "invalid", "/http/body"),
    "broken UTF-8 in http": (URL % b'"http://\xff"', 400, "not-json", "/http"),
    "ftp": (URL % b'"ftp://sink.test/"', 422, "invalid", "/http/url"),
    "no host": (URL % b'"http:///x"', 422, "invalid", "/http/url"),
    "user in the url": (URL % b'"http://user:pw@sink.test/"', 422, "invalid", "/http/url"),
    "CRLF in the url": (URL % b'"http://sink.test/\\r\\nHost: x"', 422, "invalid", "/http/url"),
    "short address": (URL % b'"http://127.1/"', 422, "invalid", "/http/url"),
    "address as a number": (URL % b'"http://2130706433/"', 422, "invalid", "/http/url"),
    "url of 2,049": (URL % (b'"http://sink.test/' + b"x" * 2032 + b'"'), 422, "invalid", "/http/url"),
    "port 65536": (URL % b'"http://sink.test:65536/"', 422, "invalid", "/http/url"),
    "method TRACE": (HTTP % b'"method":"TRACE"', 422, "invalid", "/http/method"),
    "method with CRLF": (HTTP % b'"method":"GET\\r\\n"', 422, "invalid", "/http/method"),
    "CRLF in a header": (HTTP % b'"headers":{"x-a":"b\\r\\nc: d"}', 422, "invalid", "/http/headers/x-a"),
    "NUL in a header": (HTTP % b'"headers":{"x-a":"\\u0000"}', 422, "invalid", "/http/headers/x-a"),
    "space in a header's name": (HTTP % b'"headers":{"x a":"b"}', 422, "invalid", "/http/headers/x a"),
    "header that is a number": (HTTP % b'"headers":{"x-a":1}', 422, "invalid", "/http/headers/x-a"),
    "header twice": (HTTP % b'"headers":{"x-a":"1","X-A":"2"}', 422, "invalid", "/http/headers"),
    "reserved header": (HTTP % b'"headers":{"Host":"x"}', 422, "invalid", "/http/headers/Host"),
    "framing header": (HTTP % b'"headers":{"upgrade":"x"}', 422, "invalid", "/http/headers/upgrade"),
    "signature header": (HTTP % b'"headers":{"Webhook-Id":"x"}', 422, "invalid", "/http/headers/Webhook-Id"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_one_task_is_refused_with_its_pointer(name: str) -> None:
    body, status, kind, pointer = CASES[name]
    async with served() as world:
        answer = await world.post("/v1/tasks", body)
        assert (answer.status, answer.json["type"]) == (status, kind)
        assert answer.pointers == ([] if pointer is None else [pointer])
        assert answer.json["instance"] == "/v1/tasks"
        assert world.intake.drafts == []
        assert "Traceback" not in answer.body.decode()


@pytest.mark.parametrize(
    ("name", "media"),
    [
        *((name, "application/x-ndjson") for name in CASES),
        # In an array, an item without its end hides where the next one begins.
        *((name, "application/json") for name in CASES if name != "cut short"),
    ],
)
async def test_in_a_batch_only_that_item_is_refused(name: str, media: str) -> None:
    body, status, kind, pointer = CASES[name]
    good = b'{"queue":"good"}'
    whole = b"[%b,%b,%b]" % (good, body, good) if media.endswith("/json") else b"\n".join((good, body, good))
    async with served() as world:
        answer = await world.post("/v1/tasks:batch", whole, headers={"Content-Type": media})
        assert answer.status == 200
        first, second, third = answer.json["results"]
        assert first["state"] == third["state"] == "scheduled"
        problem = second["problem"]
        assert (problem["status"], problem["type"]) == (status, kind)
        assert [error["pointer"] for error in problem["errors"]] == ([] if pointer is None else [pointer])
        assert len(world.intake.drafts) == 2


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"", 400, "not-json"),
        (b"[", 400, "not-json"),
        (b'[{"queue":"a"}', 400, "not-json"),
        (b'[{"queue":"a}]', 400, "not-json"),
        (b"[]]", 400, "not-json"),
        (b"]{}[", 400, "not-json"),
        (b"[]", 422, "invalid"),
        (b"{}", 422, "invalid"),
        (b"5", 422, "invalid"),
        (b"[" + b"{}," * 50 + b"{}]", 413, "too-large"),
        (b"[" + b"{a}," * 50 + b"{}]", 413, "too-large"),
    ],
)
async def test_a_batch_that_has_no_items_or_too_many_is_refused_whole(body: bytes, status: int, kind: str) -> None:
    async with served() as world:
        answer = await world.post("/v1/tasks:batch", body)
        assert (answer.status, answer.json["type"]) == (status, kind)
        assert world.intake.drafts == []


@pytest.mark.parametrize(("body", "status"), [(b"", 422), (b"\n \n", 422), (b"{}\n" * 51, 413)])
async def test_lines_that_are_none_or_too_many_are_refused_whole(body: bytes, status: int) -> None:
    async with served() as world:
        answer = await world.post("/v1/tasks:batch", body, headers={"Content-Type": "application/x-ndjson"})
        assert (answer.status, answer.pointers) == (status, [""])


@pytest.mark.parametrize(
    ("body", "byte"),
    [(b'{"payload":NaN}', 11), (b'{"payload":"\x00"}', 12), (b"{nonsense}", 1)],
)
async def test_what_is_no_json_is_refused_with_its_place(body: bytes, byte: int) -> None:
    async with served() as world:
        (error,) = (await world.post("/v1/tasks", body)).json["errors"]
        assert error["detail"].endswith(f" at byte {byte}")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "x", "identity, gzip"])
async def test_bodies_come_as_they_are(coding: str) -> None:
    async with served() as world:
        for path, body in (("/v1/tasks", b"{}"), ("/v1/tasks:batch", b"[{}]"), ("/v1/tasks/x:cancel", b"{}")):
            sent = {"gzip": gzip.compress(body), "deflate": zlib.compress(body)}.get(coding, body)
            answer = await world.post(path, sent, headers={"Content-Encoding": coding})
            assert (answer.status, answer.headers["Accept-Encoding"]) == (415, "identity")
        assert (await world.post("/v1/tasks", b"{}", headers={"Content-Encoding": "Identity"})).status == 201


@pytest.mark.parametrize("codings", [["identity", "gzip"], ["gzip", "identity"], ["", "identity, br"]])
async def test_each_line_of_codings_counts(codings: list[str]) -> None:
    async with served() as world:
        lines = CIMultiDict(("Content-Encoding", coding) for coding in codings)
        for path in ("/v1/tasks", "/v1/tasks:batch"):
            assert (await world.post(path, b"[{}]", headers=lines)).status == 415


async def test_two_keys_for_one_task_are_refused() -> None:
    async with served() as world:
        key = {"Idempotency-Key": "a"}
        answer = await world.post("/v1/tasks", b'{"idempotency_key":"b"}', headers=key)
        assert (answer.status, answer.pointers) == (422, ["/idempotency_key"])
        assert (await world.post("/v1/tasks", b'{"idempotency_key":"a"}', headers=key)).status == 201
        twice = CIMultiDict([("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
        for path, body in (("/v1/tasks", b"{}"), ("/v1/tasks:batch", b"[{}]")):
            assert (await world.post(path, body, headers=twice)).status == 422
        assert len(world.intake.drafts) == 1


@pytest.mark.parametrize("key", ["k" * 256, "é"])
async def test_a_bad_key_in_the_header_is_refused(key: str) -> None:
    async with served() as world:
        for path, body in (("/v1/tasks", b"{}"), ("/v1/tasks:batch", b"[{}]")):
            answer = await world.post(path, body, headers={"Idempotency-Key": key})
            assert (answer.status, answer.json["type"]) == (422, "invalid")


@pytest.mark.parametrize(
    ("path", "media", "status"),
    [
        ("/v1/tasks", "text/plain", 415),
        ("/v1/tasks", "application/x-ndjson", 415),
        ("/v1/tasks", "application/x-www-form-urlencoded", 415),
        ("/v1/tasks:batch", "text/csv", 415),
        ("/v1/tasks", "Application/JSON; charset=utf-8", 201),
    ],
)
async def test_media_types(path: str, media: str, status: int) -> None:
    async with served() as world:
        answer = await world.post(path, b"{}", headers={"Content-Type": media})
        assert answer.status == status


async def test_a_body_without_media_type_is_json() -> None:
    async with served() as world:
        url = world.server.make_url("/v1/tasks")
        async with world.client.post(url, data=b"{}", skip_auto_headers=["Content-Type"]) as response:
            assert response.status == 201
