"""Heads of requests, as bytes: how long one may be, and what can be told of a request before it is parsed.

aiohttp bounds each line of a head and their number, which is a megabyte a connection: for nothing, before any key.
"""

import re

HEAD_BYTES = 32 * 1024
"""A head that is longer is refused while it comes."""
AHEAD_BYTES = 64 * 1024
"""So much may have come for requests that wait for the answer to another one; then nothing more is read for a while."""
PIECE_BYTES = 16 * 1024
"""More at once is parsed in pieces, so that what of it belongs to a head is known to within one."""

END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})\r")
_SPECIAL = (b"transfer-encoding", b"close", b"upgrade")


def is_whole(data: bytes) -> bool:
    """True for one request from its first byte to its last, after which its connection stays; False when in doubt."""
    end = data.find(END)
    head = data[: end + 2].lower()
    length = _LENGTH.search(head) if end > 0 else None
    if length is None or len(data) != end + len(END) + int(length[1]) or head.count(b"content-length") > 1:
        return False
    return not any(word in head for word in _SPECIAL)
