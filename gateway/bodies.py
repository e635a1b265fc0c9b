"""Request bodies: read up to a limit, checked for their media type, and cut into the items of a batch.

Promises: no more than the limit is kept, however long a client sends; items of a batch are cut so that one which is
no JSON, is not UTF-8 or is nested too deeply is refused alone.
"""

import asyncio
import re
from collections.abc import Sequence
from itertools import pairwise

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.problems import Problem

JSON = "application/json"
NDJSON = "application/x-ndjson"

Item = bytes | msgspec.Raw

MAX_TOKENS = 2_000_000
"""Most tokens that a batch is searched for which the decoder could not cut."""

_items = msgspec.json.Decoder(list[msgspec.Raw])
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{]+|[\]}]+|,|"', re.DOTALL)


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body. Raises Problem: longer than `limit` bytes, or broken off."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    content = request.content
    try:
        body = await content.readany()
        if content.at_eof():
            return _within(body, limit)
        chunks = [body]
        size = len(body)
        while not content.at_eof() and size <= limit:
            chunks.append(await content.readany())
            size += len(chunks[-1])
    except (web.RequestPayloadError, ClientPayloadError, HttpProcessingError, ConnectionError) as error:
        raise Problem("unreadable", "the body broke off, or its encoding is damaged") from error
    return _within(b"".join(chunks), limit)


def media_type(request: web.Request, accepted: Sequence[str]) -> str:
    """The media type of the body, the first of `accepted` when none is given. Raises Problem when it is another."""
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
        items: Sequence[Item] = _items.decode(body)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        raise Problem("invalid", "expected an array of tasks", "") from error
    except (msgspec.DecodeError, RecursionError) as error:
        items = await asyncio.to_thread(_search, body, limit)
        if not items:
            raise Problem("not-json", str(error)) from error
    return _counted(items, limit)


def cut_lines(body: bytes, limit: int) -> Sequence[Item]:
    """The items of newline-delimited JSON; empty lines count for nothing. Raises Problem: more than `limit`."""
    return _counted([line for line in body.split(b"\n") if line and not line.isspace()], limit)


def _counted(items: Sequence[Item], limit: int) -> Sequence[Item]:
    if not items:
        raise Problem("invalid", "expected at least one task", "")
    if len(items) > limit:
        raise Problem("too-large", f"more than {limit} tasks in one batch", "")
    return items


def _search(body: bytes, limit: int) -> list[Item]:
    """Cuts at the commas of the outermost array, whatever lies between them; [] when that can't be done."""
    body = body.strip()
    if not (body.startswith(b"[") and body.endswith(b"]")):
        return []
    commas = [0]
    depth = 0
    for count, match in enumerate(_TOKEN.finditer(body, 1, len(body) - 1)):
        start, end = match.span()
        kind = body[start]
        if kind in b"[{":
            depth += end - start
        elif kind in b"]}":
            depth -= end - start
        elif kind in b"," and depth == 0:
            commas.append(start)
        if depth < 0 or count > MAX_TOKENS or (kind in b'"' and end - start == 1) or len(commas) > limit + 1:
            break
    else:
        commas.append(len(body) - 1)
    # Broken off: still worth an answer when there are too many items in any case.
    whole = commas[-1] == len(body) - 1 and depth == 0
    return [body[a + 1 : b] for a, b in pairwise(commas)] if whole or len(commas) > limit + 1 else []


def _within(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body


def _too_large(limit: int) -> Problem:
    return Problem("too-large", f"the body is larger than {limit} bytes", "")
