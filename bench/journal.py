"""What a hand (`bench/hand.py`) did, a line for each thing, written before anything else happens: a kill -9 loses none.

| what | means |
|---|---|
| link, cut | the link to the node at `port` is open, has ended |
| got | a task came |
| stale | a task came whose lease had run out on the way: not begun |
| above | `count` tasks came beyond the credits |
| said, again | its result was sent, sent once more |
| recorded, refused | what the node answered |
| over | its lease is over, says the node: stopped; so is `cancelled`, and `forgot` without being told |
| kept | its lease is still this hand's, says a node after a new hello |
| error | a node could not read a frame |
"""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of them."""

    at_ms: float
    what: str
    id: str = ""
    lease: str = ""
    attempt: int = 0
    fence: str = ""
    script: str = ""
    period_s: float = 0.0
    port: int = 0
    status: int = 0
    count: int = 0
    detail: str = ""


class Journal:
    """The lines of one process."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._encode = msgspec.json.Encoder().encode

    def write(self, line: Line) -> None:
        """It is the kernel's from now on."""
        os.write(self._file, self._encode(line) + b"\n")


def read(path: Path) -> Sequence[Line]:
    """What was written; a last line that is not whole is left out."""
    text = path.read_bytes() if path.exists() else b""
    decode = msgspec.json.Decoder(Line).decode
    return [decode(line) for line in text.split(b"\n")[:-1]]
