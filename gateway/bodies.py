"""Request bodies: read up to a limit, checked for their media type, and cut into the items of a batch.

Promises: no more than the limit is kept, however long a client sends, and not for longer than BODY_S, nor of all bodies
more than there is room for (`room.py`); items of a batch
are cut so that one which is no JSON, is not UTF-8 or is nested too deeply is refused alone; no body, whatever is in it,
keeps the loop for longer than reading it once takes.
"""

import asyncio
import re
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import msgspec
from aiohttp import ClientPayloadError, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.context import GATEWAY
from gateway.faults import malformed
from gateway.problems import Problem
from gateway.room import Share

JSON = "application/json"
NDJSON = "application/x-ndjson"
IDENTITY = "identity"
CONTINUE = "100-continue"

BODY_S = 30.0
"""A body that takes longer to come is given up."""

Item = bytes | msgspec.Raw

MAX_TOKENS = 2_000_000
"""Most tokens that a batch is searched for which the decoder could not cut."""

FEW_BYTES = 64 * 1024
"""A body up to here is decoded whatever it holds: even so many items are no time."""
WINDOW_BYTES = 256 * 1024
"""Lines are looked for in so much of a body in one turn of the loop."""
STEP_BYTES = 64 * 1024

_few = msgspec.json.Decoder(list[msgspec.Raw])
_ABSENT = msgspec.Raw()
_MARK = re.compile(rb'[\[\]{},"]')


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body. Raises Problem: longer than `limit` bytes, broken off, or one too many."""
    announced = request.content_length or 0
    if announced > limit:
        raise _too_large(limit)
    content = request.content
    try:
        if content.is_eof():  # all of it came with the head: the usual case
            return within(await content.readany(), limit)
        room = request.app[GATEWAY].room
        room.check(announced)
        share = Share(room)
        if hdrs.EXPECT in request.headers and request.version >= HttpVersion11:
            await _invite(request)
        async with asyncio.timeout(BODY_S):
            chunks = [await content.readany()]
            size = len(chunks[0])
            share.grow(size)
            while not content.at_eof() and size <= limit:
                chunks.append(await content.readany())
                size += len(chunks[-1])
                share.grow(size)
    except TimeoutError as error:
        raise Problem("too-slow", f"the body did not come within {BODY_S:g} s") from error
    except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError, ConnectionError) as error:
        raise Problem("unreadable", "the body broke off, or its encoding is damaged") from error
    return within(b"".join(chunks), limit)


async def _invite(request: web.Request) -> None:
    """Tell a client that waits for it to send the body: what it could be refused for without one, it was not."""
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # aiohttp's: it is no part of the answer


async def read_json(request: web.Request, limit: int) -> bytes:
    """The body of a command: JSON, or none. Raises Problem."""
    if request.can_read_body:
        media_type(request, (JSON,))
    return await read_body(request, limit)


def media_type(request: web.Request, accepted: Sequence[str]) -> str:
    """The media type of the body, the first of `accepted` when none is given.

    Raises Problem when it is another, or when the body has a content coding.
    """
    if hdrs.CONTENT_ENCODING in request.headers:
        _check_coding(request)
    given = request.headers.get("Content-Type")
    if given is None:
        return accepted[0]
    if given in accepted:
        return given
    bare = given.partition(";")[0].strip().lower()
    if bare not in accepted:
        raise Problem("unsupported-media-type", f"expected {' or '.join(accepted)}")
    return bare


async def cut_array(body: bytes, limit: int) -> Sequence[Item]:
    """The items of a JSON array. Raises Problem: more than `limit`, or no array."""
    try:
        items = _few.decode(body) if len(body) <= FEW_BYTES else _bounded(body, limit)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Problem("invalid", "expected an array of tasks", "") from error
    except (msgspec.DecodeError, RecursionError) as error:
        items = await asyncio.to_thread(_search, body, limit)
        if not items:
            raise await asyncio.to_thread(malformed, error, body) from error
    return _counted(items, limit)


async def cut_lines(body: bytes, limit: int) -> Sequence[Item]:
    """The items of newline-delimited JSON; empty lines count for nothing. Raises Problem: more than `limit`."""
    lines: list[Item] = []
    start = 0
    while start < len(body) and len(lines) <= limit:
        if start:
            await asyncio.sleep(0)
        end = body.find(b"\n", start + WINDOW_BYTES) if len(body) - start > WINDOW_BYTES else -1
        end = len(body) if end < 0 else end + 1
        lines += [line for line in body[start:end].split(b"\n") if line and not line.isspace()]
        start = end
    return _counted(lines, limit)


def _bounded(body: bytes, limit: int) -> Sequence[Item]:
    """The items of a long array. Raises Problem at the first one beyond `limit`, before all the others are made."""
    try:
        items = msgspec.structs.astuple(array_of(limit).decode(body))
    except msgspec.ValidationError:
        if body.lstrip().startswith(b"["):
            raise _too_many(limit) from None
        raise
    return items[: bisect_left(items, 1, key=lambda item: item is _ABSENT)]


@lru_cache(maxsize=4)
def array_of(limit: int) -> msgspec.json.Decoder[msgspec.Struct]:
    """A list has no bound that is looked at while it grows; an array-like struct ends where its fields do."""
    fields = [(f"item{place}", msgspec.Raw, _ABSENT) for place in range(limit)]
    return msgspec.json.Decoder(
        msgspec.defstruct("Batch", fields, array_like=True, forbid_unknown_fields=True, gc=False)
    )


def _check_coding(request: web.Request) -> None:
    codings = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING)).split(",")
    if any(coding.strip().lower() not in ("", IDENTITY) for coding in codings):
        raise Problem("unsupported-media-type", "a body must be sent as it is", headers={"Accept-Encoding": IDENTITY})


def _counted(items: Sequence[Item], limit: int) -> Sequence[Item]:
    if not items:
        raise Problem("invalid", "expected at least one task", "")
    if len(items) > limit:
        raise _too_many(limit)
    return items


def _search(body: bytes, limit: int) -> list[Item]:
    """Cuts at the commas of the outermost array, whatever lies between them; [] when that can't be done.

    For a thread: no single step of it keeps the interpreter from the loop for long.
    """
    body = body.strip()
    if not (body.startswith(b"[") and body.endswith(b"]")):
        return []
    last = len(body) - 1
    commas = [0]
    depth = count = 0
    place = _mark(body, 1, last)
    while place < last:
        after = place + 1
        kind = body[place]
        if kind in b"[{":
            depth += 1
        elif kind in b"]}":
            depth -= 1
        elif kind in b'"':
            after, quotes = _string(body, after)
            count += quotes
        elif depth == 0:
            commas.append(place)
        count += 1
        if depth < 0 or count > MAX_TOKENS or after > last or len(commas) > limit + 1:
            break
        place = _mark(body, after, last)
    else:
        commas.append(last)
    # Broken off: still worth an answer when there are too many items in any case.
    whole = commas[-1] == last and depth == 0
    return [body[a + 1 : b] for a, b in pairwise(commas)] if whole or len(commas) > limit + 1 else []


def _mark(body: bytes, start: int, last: int) -> int:
    """The next bracket, comma or quote from `start` on, or `last`."""
    while start < last:
        match = _MARK.search(body, start, min(start + STEP_BYTES, last))
        if match is not None:
            return match.start()
        start += STEP_BYTES
    return last


def _string(body: bytes, start: int) -> tuple[int, int]:
    """Where the text that begins at `start` is over, and how many quotes were looked at; len(body) + 1: nowhere."""
    quotes = 0
    end = body.find(b'"', start)
    while end >= 0:
        quotes += 1
        escapes = end
        while body[escapes - 1] in b"\\":  # the opening quote at the latest is none
            escapes -= 1
        if (end - escapes) % 2 == 0:
            return end + 1, quotes
        end = body.find(b'"', end + 1)
    return len(body) + 1, quotes


def within(body: bytes, limit: int) -> bytes:
    """The body. Raises Problem when it is longer than `limit` bytes."""
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_many(limit: int) -> Problem:
    return Problem("too-large", f"more than {limit} tasks in one batch", "")


def _too_large(limit: int) -> Problem:
    return Problem("too-large", f"the body is larger than {limit} bytes", "")
