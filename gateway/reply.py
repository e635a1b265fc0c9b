"""What a target answered: the head, and the body as far as it is wanted.

Promises: an answer costs no more than `MAX_RESULT_BYTES` and what one read brings. Refuses to wait for a body that is
announced to be longer, and to undo its encoding.
"""

from aiohttp import StreamReader
from aiohttp.hdrs import CONTENT_LENGTH
from multidict import CIMultiDictProxy

MAX_RESULT_BYTES = 64 * 1024
"""A longer answer is cut off: the attempt succeeds all the same, without a result."""


class Reply:
    """One answer. `broken` says why its body did not come whole, when it did not."""

    __slots__ = ("_chunks", "_content", "_size", "body", "broken", "headers", "status")

    def __init__(self, status: int, headers: CIMultiDictProxy[str], content: StreamReader) -> None:
        self.status = status
        self.headers = headers
        self.body: bytes | None = None
        """None when it is longer than `MAX_RESULT_BYTES`, or broken."""
        self.broken: Exception | None = None
        self._content = content
        self._chunks: list[bytes] = []
        self._size = 0

    @property
    def whole(self) -> bool:
        """The end of it came."""
        return self.broken is None and self._content.is_eof()

    def read(self) -> bool:
        """Take what has come of the body; True: that was all that is waited for."""
        content = self._content
        try:
            if not content.is_eof() and int(self.headers.get(CONTENT_LENGTH, 0)) > MAX_RESULT_BYTES:
                return True
            while chunk := content.read_nowait():
                self._size += len(chunk)
                if self._size > MAX_RESULT_BYTES:
                    return True
                self._chunks.append(chunk)
        except Exception as error:  # noqa: BLE001 - what the head says stands, whatever becomes of the rest
            self.broken = error
            return True
        if not content.is_eof():
            return False
        self.body = b"".join(self._chunks)
        return True
