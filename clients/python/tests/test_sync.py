"""The client without `await`."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web

from fake_service import LIMIT_S, Fake, elsewhere
from ringwheel import Draft, NotFound, Unavailable
from ringwheel import client as asynchronous
from ringwheel.sync import Client


@pytest.fixture
def fake() -> Iterator[Fake]:
    with elsewhere() as fake:
        yield fake


def test_it_does_what_the_other_one_does(fake: Fake) -> None:
    with Client(fake.url) as client:
        task = client.submit("emails", {"to": "a"}, labels={"a": "b"})
        assert client.get(task.id).labels == {"a": "b"}
        assert len(client.submit_many([Draft("emails")] * 5).ids) == 5
        assert [one.id for one in client.list(queue="emails")] == [*fake.tasks]
        with pytest.raises(NotFound):
            client.get("nothing")
    assert not [thread for thread in threading.enumerate() if thread.name == "ringwheel-client"]


def test_it_may_be_used_after_it_was_closed_and_left_half_way(fake: Fake) -> None:
    client = Client(fake.url)
    client.close()
    client.submit_many([Draft("emails")] * 3)
    for task in client.list():
        assert task.id == "t1"
        break
    client.close()
    client.submit("emails")
    client.close()
    assert len(fake.tasks) == 4


def test_what_another_thread_waits_for_ends_when_it_is_closed(fake: Fake) -> None:
    asked = threading.Event()
    ends: list[str] = []

    def refuse(request: web.Request) -> int:
        asked.set()
        return 503

    def submit() -> None:
        with pytest.raises(Unavailable) as caught:
            client.submit("emails")
        ends.append(str(caught.value))

    fake.faults.extend([refuse] * 1_000)
    with Client(fake.url) as client:
        thread = threading.Thread(target=submit)
        thread.start()
        assert asked.wait(LIMIT_S)
    thread.join(LIMIT_S)
    assert ends == ["the client was closed"]
    assert not [thread for thread in threading.enumerate() if thread.name == "ringwheel-client"]


FORK = """
import os, sys
from ringwheel.sync import Client
client = Client(sys.argv[1], timeout=5)
client.submit("parent")
child = os.fork()
if child == 0:
    client.submit("child")
    client.close()
    os._exit(0)
os.waitpid(child, 0)
client.submit("parent")
"""


def test_a_forked_process_goes_on_with_it(fake: Fake) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", FORK, fake.url], check=True, timeout=LIMIT_S)
    assert [task.queue for task in fake.tasks.values()] == ["parent", "child", "parent"]


def test_no_method_was_forgotten() -> None:
    names = {name for name in vars(asynchronous.Client) if not name.startswith("_")}
    assert names <= vars(Client).keys()
