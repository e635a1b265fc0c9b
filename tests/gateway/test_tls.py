"""A node's certificate: which files it refuses, and that a renewed one is used."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from actors.core.errors import Misconfigured
from gateway.settings import ServeSettings
from gateway.tls import Certificate, certificate_of, trusting
from tests.support.certificates import issue


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def made(authority: trustme.CA, folder: Path) -> Certificate:
    found = certificate_of(ServeSettings("postgresql://db", **issue(authority, folder)))
    assert found is not None
    return found


def test_without_files_there_is_no_certificate() -> None:
    assert certificate_of(ServeSettings("postgresql://db")) is None


def test_files_that_are_no_certificate_with_its_key_are_refused(authority: trustme.CA, tmp_path: Path) -> None:
    mine, others = issue(authority, tmp_path), issue(authority, tmp_path, "other")
    nothing, text = tmp_path / "nothing.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    for certificate, key in (
        (nothing, mine["tls_key"]),
        (mine["tls_certificate"], nothing),
        (text, mine["tls_key"]),
        (mine["tls_certificate"], others["tls_key"]),
    ):
        with pytest.raises(Misconfigured, match="can't use the certificate"):
            Certificate(certificate, key)
    for authorities in (nothing, text):
        with pytest.raises(Misconfigured, match="can't use the authorities"):
            trusting(authorities)


def test_a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked_for_it(authority: trustme.CA, tmp_path: Path) -> None:
    files = issue(authority, tmp_path)
    key = load_pem_private_key(files["tls_key"].read_bytes(), None)
    files["tls_key"].write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(Misconfigured, match="the key is encrypted"):
        Certificate(files["tls_certificate"], files["tls_key"])


async def shown(context: ssl.SSLContext, trust: ssl.SSLContext) -> bytes:
    """The certificate that a client sees now."""
    seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
        seen.set_result(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()
        await writer.wait_closed()
    return await seen


async def test_a_renewed_certificate_is_used_without_a_restart(authority: trustme.CA, tmp_path: Path) -> None:
    certificate = made(authority, tmp_path)
    trust = trusting(tmp_path / "node-authorities.pem")
    first = await shown(certificate.context, trust)
    certificate.renew()
    assert await shown(certificate.context, trust) == first
    issue(authority, tmp_path)
    certificate.renew()
    assert await shown(certificate.context, trust) != first


async def test_one_that_cannot_be_read_leaves_the_old_one(authority: trustme.CA, tmp_path: Path) -> None:
    certificate = made(authority, tmp_path)
    trust = trusting(tmp_path / "node-authorities.pem")
    first = await shown(certificate.context, trust)
    (tmp_path / "node-key.pem").write_text("half written")
    certificate.renew()
    assert await shown(certificate.context, trust) == first
    issue(authority, tmp_path)
    certificate.renew()
    assert await shown(certificate.context, trust) != first


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
async def test_old_versions_of_tls_are_refused(authority: trustme.CA, tmp_path: Path) -> None:
    certificate = made(authority, tmp_path)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(tmp_path / "node-authorities.pem")
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shown(certificate.context, old)
