"""Nodes that speak TLS: to clients, and to each other."""

from pathlib import Path

import aiohttp
import pytest
import structlog
import trustme

from gateway import link
from tests.service.served import serving, until, up
from tests.support.certificates import issue


async def test_clients_and_other_nodes_are_spoken_to_over_tls(database_url: str, tmp_path: Path) -> None:
    settings = issue(trustme.CA(), tmp_path)
    async with (
        serving(database_url, name="node-a", **settings) as a,
        serving(database_url, name="node-b", **settings) as b,
    ):
        await until(a, lambda: up(a, b) and up(b, a))
        cluster = (await a.call("GET", "/v1/cluster")).body
        assert a.url.startswith("https://127.0.0.1:")
        assert {node["address"] for node in cluster["nodes"]} == {a.url, b.url}
        task = await a.submit(queue="emails", delay=3600)
        assert (await b.get(task["id"]))["state"] == "scheduled"
        with pytest.raises(aiohttp.ClientError):
            await a.session.get(a.url.replace("https", "http") + "/livez")


async def test_a_node_with_a_strange_certificate_is_not_spoken_to(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PATIENCE_S", 0.0)
    ours, theirs = trustme.CA(), trustme.CA()
    mine, strange = issue(ours, tmp_path), issue(theirs, tmp_path, "strange")
    with strange["tls_authorities"].open("ab") as trusted:
        trusted.write(ours.cert_pem.bytes())
    with structlog.testing.capture_logs() as logs:
        async with (
            serving(database_url, name="node-a", **mine) as a,
            serving(database_url, name="node-b", **strange) as b,
        ):
            await until(a, lambda: up(b, a) and any("reached" in line["event"] for line in logs))
            assert not up(a, b)
    said = next(line for line in logs if "reached" in line["event"])
    assert said["url"] == f"{b.url}{link.PATH}"
    assert said["reason"] == "SSLCertVerificationError: unable to get local issuer certificate"
