"""How two nodes prove to each other that they are of one cluster, before a frame is read.

Each end sends a nonce and proves by HMAC-SHA-256 (RFC 2104) that it knows the cluster's secret. A proof covers who
proves, both boots and the nonce, so that none can be sent back, or used for another link.

The end that is connected to also says who it is, under a seal that only the cluster can make: a process that came after
another one at its address is told from a stranger, who alone is worth a warning. To an older node all of that is one
long nonce.

Before the handshake a node knocks, with a header that strangers can't make: from them, no message is taken that is
longer than a handshake's. A knock that was overheard opens no more than that.
"""

import asyncio
import hmac
import secrets
from collections.abc import Mapping

import structlog
from aiohttp import WSMsgType, web

from gateway.link_socket import LinkSocket

HANDSHAKE_S = 3.0
HANDSHAKE_BYTES = 1_024
"""No message of a handshake is longer."""
NONCE_BYTES = 32
KNOCK = "ringwheel-peer"
"""The header of a knock."""
_CLIENT, _SERVER, _HELLO = b"ringwheel peer client", b"ringwheel peer server", b"ringwheel peer hello"
_KNOCK = b"ringwheel peer knock"
log = structlog.get_logger("peers")


class Refused(Exception):
    """The other end is not who it should be."""


def knock(secret: bytes, mine: str) -> dict[str, str]:
    """The header with which a node asks for a link."""
    return {KNOCK: f"{mine} {_proof(secret, _KNOCK, b'', mine, '').hex()}"}


def is_known(headers: Mapping[str, str], secret: bytes) -> bool:
    """Whether they bear the knock of a node of this cluster, or of somebody who overheard it."""
    mine, _, proof = headers.get(KNOCK, "").partition(" ")
    known = bool(secret) and mine.isascii() and proof.isascii()
    return known and hmac.compare_digest(proof, _proof(secret, _KNOCK, b"", mine, "").hex())


async def introduce(socket: LinkSocket, secret: bytes, mine: str, theirs: str) -> None:
    """The end that connects. Raises Refused, and TimeoutError."""
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            nonce = secrets.token_bytes(NONCE_BYTES)
            challenge = await socket.receive()
            if _is_another(challenge, secret, theirs):
                raise Refused
            await socket.send(nonce + _proof(secret, _CLIENT, challenge, mine, theirs) + mine.encode())
            proof = await socket.receive()
            if not hmac.compare_digest(proof, _proof(secret, _SERVER, nonce, theirs, mine)):
                log.warning("a peer could not prove that it is of this cluster", boot=theirs)
                raise Refused
    except ConnectionError:  # it left instead
        raise Refused from None


async def examine(ws: web.WebSocketResponse, secret: bytes, mine: str) -> str:
    """The end that is connected to; answers who the other one is. Raises Refused or TimeoutError."""
    if not secret:
        raise Refused
    async with asyncio.timeout(HANDSHAKE_S):
        challenge = _hello(secret, secrets.token_bytes(NONCE_BYTES), mine)
        await ws.send_bytes(challenge)
        message = await ws.receive()
        if message.type is not WSMsgType.BINARY or len(message.data) > 3 * NONCE_BYTES:
            raise Refused
        nonce, proof = message.data[:NONCE_BYTES], message.data[NONCE_BYTES : 2 * NONCE_BYTES]
        theirs: str = message.data[2 * NONCE_BYTES :].decode(errors="replace")
        if not hmac.compare_digest(proof, _proof(secret, _CLIENT, challenge, theirs, mine)):
            log.warning("a peer could not prove that it is of this cluster")
            raise Refused
        await ws.send_bytes(_proof(secret, _SERVER, nonce, mine, theirs))
        return theirs


def _hello(secret: bytes, nonce: bytes, mine: str) -> bytes:
    return nonce + _proof(secret, _HELLO, nonce, mine, "") + mine.encode()


def _is_another(challenge: bytes, secret: bytes, theirs: str) -> bool:
    """Whether it comes from another boot of this cluster; one without a name is an older node's."""
    boot = challenge[2 * NONCE_BYTES :].decode(errors="replace")
    return boot not in ("", theirs) and hmac.compare_digest(challenge, _hello(secret, challenge[:NONCE_BYTES], boot))


def _proof(secret: bytes, role: bytes, nonce: bytes, mine: str, theirs: str) -> bytes:
    return hmac.digest(secret, b"\0".join((role, nonce, mine.encode(), theirs.encode())), "sha256")
