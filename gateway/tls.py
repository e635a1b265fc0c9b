"""TLS of a node: what its clients and the other nodes see, and whom it trusts among those.

Promises: TLS 1.2 or newer. A certificate that was renewed is used within RELOAD_S, without a restart; one that can't be
read then is told of, and the old one stays.
Refuses, as Misconfigured, to start with files that are no certificate with its key, or no certificates at all.
"""

import asyncio
import ssl
from pathlib import Path

import structlog

from actors.core.errors import Misconfigured
from gateway.settings import ServeSettings

RELOAD_S = 60.0
log = structlog.get_logger("tls")


class Certificate:
    """A node's own certificate, with its chain, and its key: files in PEM."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises Misconfigured."""
        self._files = certificate, key
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self._seen = self._state()
            self._load()
        except (OSError, ValueError) as error:
            raise Misconfigured(f"can't use the certificate {certificate} with the key {key}: {error}") from error

    async def run(self) -> None:
        """Look for another one until cancelled."""
        while True:
            await asyncio.sleep(RELOAD_S)
            self.renew()

    def renew(self) -> None:
        """Use what the files have now, if they have changed."""
        try:
            seen = self._state()
            if seen != self._seen:
                self._load()
                self._seen = seen
                log.info("using a renewed certificate", path=str(self._files[0]))
        except (OSError, ValueError) as error:
            log.error("the renewed certificate can't be used; the old one stays", detail=str(error))

    def _state(self) -> list[tuple[int, int]]:
        return [(state.st_mtime_ns, state.st_size) for state in (path.stat() for path in self._files)]

    def _load(self) -> None:
        # At first into a context that nobody uses: what can't be loaded there leaves ours alone.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(*self._files, _no_password)
        self.context.load_cert_chain(*self._files, _no_password)


def _no_password() -> str:
    """Nobody is there to be asked for one."""
    raise ValueError("the key is encrypted: give one without a pass phrase, in a file that only this service can read")


def certificate_of(settings: ServeSettings) -> Certificate | None:
    """A node's own, if it has one. Raises Misconfigured."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_certificate, settings.tls_key)


def trusting(authorities: Path | None) -> ssl.SSLContext:
    """What other nodes' certificates are held against; None: the authorities of the system. Raises Misconfigured."""
    try:
        return ssl.create_default_context(cafile=authorities)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"can't use the authorities in {authorities}: {error}") from error
