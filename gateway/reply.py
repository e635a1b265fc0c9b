"""What a target answered: the head, and the body as far as it is wanted.

Promises: an answer costs no more than `MAX_RESULT_BYTES` and one read buffer. Refuses to read a body that is announced
to be longer, and to undo its encoding.
"""

from aiohttp import StreamReader
from aiohttp.hdrs import CONTENT_LENGTH
from multidict import CIMultiDictProxy

MAX_RESULT_BYTES = 64 * 1024
"""A longer answer is cut off: the attempt succeeds all the same, without a result."""


class Reply:
    """One answer. `broken` says why its body did not come whole, when it did not."""

    __slots__ = ("_content", "body", "broken", "headers", "status")

    def __init__(self, status: int, headers: CIMultiDictProxy[str], content: StreamReader) -> None:
        self.status = status
        self.headers = headers
        self.body: bytes | None = None
        """None when it is longer than `MAX_RESULT_BYTES`, or broken."""
        self.broken: Exception | None = None
        self._content = content

    @property
    def whole(self) -> bool:
        """The end of it came."""
        return self.broken is None and self._content.is_eof()

    async def read(self) -> None:
        """Fill `body`, or say in `broken` what went wrong."""
        content = self._content
        try:
            if content.is_eof():  # came with the head: the usual case
                body = content.read_nowait()
                self.body = body if len(body) <= MAX_RESULT_BYTES else None
            elif int(self.headers.get(CONTENT_LENGTH, 0)) <= MAX_RESULT_BYTES:
                self.body = await self._gather()
        except Exception as error:  # noqa: BLE001 - what the head says stands, whatever becomes of the rest
            self.broken = error

    async def _gather(self) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        while chunk := await self._content.readany():
            size += len(chunk)
            if size > MAX_RESULT_BYTES:
                return None
            chunks.append(chunk)
        return b"".join(chunks)
