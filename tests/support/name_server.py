"""A name server on the loopback: it knows some names, and does not answer when asked for others."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

_A, _AAAA, _NO_ERROR, _NO_SUCH_NAME = 1, 28, 0x8180, 0x8183


class NameServer(asyncio.DatagramProtocol):
    """Says `addresses` for names that end in `.good.test`, nothing for those in `.tarpit.test`, else: no such name.

    A name in `known` has the addresses that stand there.
    """

    def __init__(self) -> None:
        self.addresses = ["127.0.0.1"]
        self.known: dict[str, list[str]] = {}
        self.ttl_s = 60
        self.asked: set[str] = set()
        self._news = asyncio.Event()
        self._transport: Any = None

    @property
    def port(self) -> int:
        return int(self._transport.get_extra_info("sockname")[1])

    async def until_asked(self, names: set[str]) -> None:
        """Return when all of these were asked for."""
        while not names <= self.asked:
            self._news.clear()
            await self._news.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, question = _question(data)
        self.asked.add(name)
        self._news.set()
        if name.endswith(".tarpit.test"):
            return
        known = name.endswith(".good.test") or name in self.known
        wanted = struct.unpack("!H", question[-4:-2])[0]
        addresses = [text for text in self.known.get(name, self.addresses) if known and _kind(text) == wanted]
        answers = [_record(text, self.ttl_s) for text in addresses]
        flags = _NO_ERROR if known else _NO_SUCH_NAME
        head = data[:2] + struct.pack("!HHHHH", flags, 1, len(answers), 0, 0)
        self._transport.sendto(head + question + b"".join(answers), addr)


def _kind(address: str) -> int:
    return _AAAA if ":" in address else _A


def _record(address: str, ttl_s: int) -> bytes:
    data = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return struct.pack("!HHHIH", 0xC00C, _kind(address), 1, ttl_s, len(data)) + data


def _question(data: bytes) -> tuple[str, bytes]:
    """The name asked for, and the question as it came (RFC 1035, 4.1.2)."""
    labels, at = [], 12
    while size := data[at]:
        labels.append(data[at + 1 : at + 1 + size].decode())
        at += 1 + size
    return ".".join(labels).lower(), data[12 : at + 5]


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """A running one."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
