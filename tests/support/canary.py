"""A listener on every address of this machine that nobody may reach: it counts who does."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Canary:
    """Its port, and how many connections came."""

    port: int = 0
    hits: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def hit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hits += 1
        self.heard.set()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")
        writer.close()


@asynccontextmanager
async def canary() -> AsyncIterator[Canary]:
    """A listening one. Both families where the machine has both."""
    bird = Canary()
    both = socket.has_dualstack_ipv6()
    listening = socket.create_server(
        ("", 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both, backlog=1024
    )
    bird.port = listening.getsockname()[1]
    async with await asyncio.start_server(bird.hit, sock=listening):
        _, writer = await asyncio.open_connection("127.0.0.1", bird.port)  # it would be heard
        writer.close()
        await bird.heard.wait()
        bird.hits = 0
        yield bird
