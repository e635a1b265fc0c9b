"""`key ...` as it is used, and the key that client commands send."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from actors.core.errors import Unavailable
from actors.core.keys import key_parts, secret_hash
from gateway.cli import main
from storage.memory import MemoryDatabase, MemoryKeyStore, MemoryStores
from tests.gateway.cli.double import a_task, double
from tests.support.keys import new_key

NOW_MS = 1_800_000_000_000
DSN = "postgresql://db"


class FakeDatabase:
    """Stands in for the connection."""

    error: Exception | None = None

    def __init__(self, dsn: str, boot: str) -> None:
        assert dsn == DSN

    async def __aenter__(self) -> "FakeDatabase":
        if self.error is not None:
            raise self.error
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryKeyStore:
    stores = MemoryStores(MemoryDatabase(lambda: NOW_MS), "boot")
    monkeypatch.setattr("storage.pool.Database", FakeDatabase)
    monkeypatch.setattr("storage.keys.PgKeyStore", lambda database: stores.keys)
    monkeypatch.setattr("gateway.logs.set_up", lambda *, errors: None)
    monkeypatch.setattr("gateway.audit.key_created", lambda key: None)
    monkeypatch.setattr("gateway.audit.key_revoked", lambda key: None)
    return stores.keys


def run(*words: str, **env: str) -> Result:
    return CliRunner(env={"RINGWHEEL_DATABASE_URL": DSN, "RINGWHEEL_KEY": None, **env}).invoke(main, ["key", *words])


def test_a_key_is_shown_once_and_fits_what_is_kept(store: MemoryKeyStore) -> None:
    result = run("create", "--tenant", "acme", "--scope", "read", "--scope", "work", "--expires-in", "90d")
    assert result.exit_code == 0
    parts = key_parts(result.stdout.strip())
    assert parts is not None
    [key] = store._db.keys.values()
    assert (key.prefix, key.hash) == (parts[0], secret_hash(parts[1]))
    assert (key.tenant, sorted(key.scopes)) == ("acme", ["read", "work"])
    assert key.expires_ms == NOW_MS + 90 * 86_400_000
    assert parts[1] not in run("list").output + run("list", "--json").output
    assert "not shown again" in result.stderr


def test_no_two_keys_are_alike(store: MemoryKeyStore) -> None:
    shown = {run("create").stdout for _ in range(20)}
    assert len(shown) == len(store._db.keys) == 20
    assert {len({text.split("_")[place] for text in shown}) for place in (1, 2)} == {20}


def test_a_key_is_revoked_by_its_prefix_or_by_itself(store: MemoryKeyStore) -> None:
    for whole in (False, True):
        text = run("create").stdout.strip()
        prefix = text.split("_")[1]
        result = run("revoke", text if whole else prefix)
        assert (result.exit_code, result.stdout) == (0, f"revoked {prefix}\n")
    assert all(key.revoked_ms == NOW_MS for key in store._db.keys.values())


@pytest.mark.parametrize(
    "words",
    [
        ["create", "--scope", "fly"],
        ["create", "--tenant", ""],
        ["create", "--tenant", "a b"],
        ["create", "--tenant", "é"],
        ["create", "--tenant", "a\n"],
        ["create", "--name", "a\nb"],
        ["create", "--expires-in", "soon"],
        ["create", "--expires-in", "0s"],
        ["list", "--tenant", "/"],
        ["revoke"],
        ["fly"],
    ],
)
def test_wrong_usage_is_2(store: MemoryKeyStore, words: list[str]) -> None:
    assert run(*words).exit_code == 2
    assert store._db.keys == {}


def test_exit_codes(store: MemoryKeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("revoke", "nothing").exit_code == 3
    monkeypatch.setattr("storage.memory.keys.MAX_KEYS", 0)
    assert run("create").exit_code == 4
    monkeypatch.setattr(FakeDatabase, "error", Unavailable("away"))
    assert run("list").exit_code == 5


@pytest.mark.parametrize("given", ["flag", "file"])
async def test_a_client_command_sends_its_key(given: str, tmp_path: Path) -> None:
    _, text = new_key()
    keyfile = tmp_path / "key"
    keyfile.write_text(f"{text}\n")
    async with double() as service:
        service.answer(a_task())
        done = await service.run("get", "x", "--key", text if given == "flag" else f"@{keyfile}")
        [asked] = service.asked
        assert (done.code, asked.headers["Authorization"]) == (0, f"Bearer {text}")


async def test_without_a_key_none_is_sent() -> None:
    async with double() as service:
        service.answer(a_task())
        assert (await service.run("get", "x")).code == 0
        assert "Authorization" not in service.asked[0].headers


@pytest.mark.parametrize("value", ["rw_x_supersecret", "@/nowhere/at/all", "k 1"])
def test_what_is_no_key_is_refused_and_not_shown(value: str) -> None:
    result: Any = CliRunner(env={"RINGWHEEL_KEY": value}).invoke(main, ["get", "x", "--url", "http://127.0.0.1:1"])
    assert result.exit_code == 2
    assert "supersecret" not in result.output
