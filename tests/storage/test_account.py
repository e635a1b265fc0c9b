"""As whom PostgreSQL runs: an ordinary user as himself, root never as root."""

import os
from pathlib import Path

import pytest

from actors.core.errors import Misconfigured
from storage import account
from storage.account import Account

PROGRAM = Path("/usr/bin/env")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """What runs on a machine where we are root: a user namespace, a system user."""
    answers = {"namespace": True, "user": True}

    def answer(command: tuple[str, ...], who: Account) -> bool:
        return answers["namespace" if who.user is None else "user"]

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(account, "_runs", answer)
    monkeypatch.setattr(account, "_of", lambda name: Account(user=101, group=102) if name == "postgres" else None)
    return answers


def test_an_ordinary_user_stays_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account.choose(PROGRAM, None) == Account()


def test_root_takes_a_user_namespace(runs: dict[str, bool]) -> None:
    assert account.choose(PROGRAM, None).prefix[:2] == ("unshare", "--user")
    assert account.choose(PROGRAM, 0).user is None


def test_root_without_namespaces_drops_to_a_system_user(runs: dict[str, bool]) -> None:
    runs["namespace"] = False
    assert account.choose(PROGRAM, None) == Account(user=101, group=102)


def test_data_of_the_system_user_stays_his(runs: dict[str, bool]) -> None:
    assert account.choose(PROGRAM, 101) == Account(user=101, group=102)


@pytest.mark.parametrize("owner", [None, 0, 1000])
def test_root_with_nobody_to_drop_to_is_told_so(runs: dict[str, bool], owner: int | None) -> None:
    runs.update(namespace=False, user=False)
    with pytest.raises(Misconfigured, match="RINGWHEEL_DATABASE_URL"):
        account.choose(PROGRAM, owner)
