"""Hub, session and snapshots against a dumb model: whatever happens in whatever order, a client never sees a task go
back, and never misses a change without a word.
"""

import types
from collections.abc import Coroutine, Generator
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.core.events import Change
from actors.core.spec import Spec
from actors.core.task import TERMINAL, Phase, State, Task
from gateway.session import Limits, Session
from gateway.snapshot import Snapshot, read_snapshot
from gateway.subscription import Subscription
from tests.gateway.watched import NOW_MS, QUEUE, Tables, World, a_change, a_row, id_of, make_world

LIMITS = Limits(room=3, scan=4, chunk_bytes=500)
BLUE, RED = '{"app":"shop","team":"blue"}', '{"app":"shop","team":"red"}'
FILTERS: dict[str, tuple[dict[str, Any], set[int]]] = {
    "id": ({"id": id_of(0)}, {0}),
    "queue": ({"queue": "mail"}, {0, 1, 2}),
    "a label": ({"labels": {"app": "shop"}}, {0, 1}),
    "labels of a queue": ({"queue": "mail", "labels": {"team": "blue", "app": "shop"}}, {0}),
}
"""What is watched, and which tasks of the model that is."""
LABELS = (BLUE, RED, None)
LAST = 40
"""The version in which a task of the model has succeeded: twenty attempts."""
TASKS = 3


@types.coroutine
def one_turn() -> Generator[None, None, None]:
    """Give way once, to whoever drives the coroutine by hand."""
    yield


class SlowTables(Tables):
    """Answers with what the tables held one turn ago."""

    async def _wait(self) -> None:
        await one_turn()


class Cluster:
    """The tasks' owner: starts are published at once, commits first reach the tables and are published later."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.version = dict.fromkeys(range(TASKS), 0)
        self.unpublished: list[Change] = []
        self.published: list[Change] = []
        world.tables.put(*(a_row(number, labels=LABELS[number]) for number in range(TASKS)))
        world.memory.tasks = {
            id_of(number): Task(id_of(number), 0, QUEUE, NOW_MS, NOW_MS, 0, Spec()) for number in range(TASKS)
        }

    def burst(self, number: int) -> None:
        for _ in range(3):
            for other in range(number, TASKS):
                self.step(other)

    def step(self, number: int) -> None:
        if self.version[number] == LAST:
            return
        if any(change.id == id_of(number) for change in self.unpublished):
            self.publish()
        self.version[number] += 1
        change = self.change(number)
        task = self.world.memory.tasks[change.id]
        if change.state is State.RUNNING:
            task.phase, task.started_ms, task.attempt, task.step = Phase.RUNNING, NOW_MS, change.attempt, 1
            self.tell([change])
        else:
            task.phase = Phase.WRITING
            self.world.tables.put(a_row(number, change.version // 2, change.state, labels=change.labels))
            self.unpublished.append(change)

    def change(self, number: int) -> Change:
        version = self.version[number]
        return a_change(number, version, State.SUCCEEDED if version == LAST else None, labels=LABELS[number])

    def publish(self) -> None:
        """The ledger's answer arrives."""
        for change in self.unpublished:
            task = self.world.memory.tasks[change.id]
            task.phase, task.started_ms, task.rev, task.step = Phase.WAITING, 0, change.version // 2, 0
            if change.state in TERMINAL:
                del self.world.memory.tasks[change.id]
        self.tell(self.unpublished)
        self.unpublished = []

    def tell(self, changes: list[Change]) -> None:
        self.published += changes
        self.world.hub.publish(list(changes))


class Client:
    """Believes what it is told, and checks it."""

    def __init__(self, cluster: Cluster, by: str) -> None:
        self.cluster = cluster
        self.wanted, numbers = FILTERS[by]
        self.watched = {id_of(number) for number in numbers}
        self.known: dict[str, int] = {}
        self.at: int | None = None
        """Number of the last cursor; None: a snapshot has to come first."""
        self.conflated = False
        self.resumed = False
        """Gone on after a snapshot's cursor: a commit that it showed may be told once more."""
        self.left_out: set[str] = set()
        """Tasks that a snapshot left out: they have ended, and the word of it may be on its way."""

    def connect(self, session: Session) -> None:
        cursor = {} if self.at is None else {"from": f"boot.{self.at}"}
        self.conflated = self.resumed = False
        session.receive(orjson.dumps({"type": "subscribe", "sub": "s", "filter": self.wanted} | cursor))

    def hear(self, message: dict[str, Any]) -> None:
        getattr(self, f"on_{message['type']}")(message)

    def on_resumed(self, message: dict[str, Any]) -> None:
        assert message["cursor"] == f"boot.{self.at}"
        self.resumed = True

    def on_snapshot(self, message: dict[str, Any]) -> None:
        assert self.at is None, "a snapshot comes first, or after a gap that announces it"
        assert not message["truncated"]
        for task in message["tasks"]:
            self.learn(task)
        shown = {task["id"] for task in message["tasks"]}
        self.left_out = self.known.keys() - shown
        for task_id in self.left_out:
            self.known[task_id] = LAST
        self.at = int(message["cursor"].removeprefix("boot."))

    def on_gap(self, message: dict[str, Any]) -> None:
        if message["snapshot"]:
            self.at = None
        else:
            assert message["skipped"] > 0
            self.conflated = True

    def on_event(self, message: dict[str, Any]) -> None:
        assert self.at is not None, "no event between a gap and its snapshot"
        seq = int(message["cursor"].removeprefix("boot."))
        assert seq > self.at
        missed = [change for change in self.cluster.published[self.at : seq - 1] if self.matters(change)]
        if missed:
            assert self.conflated, f"{missed} were lost in silence"
        task = message["task"]
        told = (
            not self.resumed and task["id"] not in self.left_out and task["version"] <= self.known.get(task["id"], -1)
        )
        assert not told, "nothing is told twice"
        self.left_out.discard(task["id"])
        self.learn(task)
        self.at = seq

    def matters(self, change: Change) -> bool:
        return change.id in self.watched and change.version > self.known.get(change.id, -1)

    def learn(self, task: dict[str, Any]) -> None:
        assert task["id"] in self.watched
        assert task["version"] >= self.known.get(task["id"], -1), "never back"
        assert (task["state"] == "running") == (task["version"] % 2 == 1)
        self.known[task["id"]] = task["version"]


class Play:
    """A client that connects, reads, stalls and goes away, while the cluster works."""

    def __init__(self, by: str, kept: int) -> None:
        self.world = make_world(kept)
        self.world.gateway.reader = SlowTables()
        self.world.tables = self.world.gateway.reader
        self.cluster = Cluster(self.world)
        self.client = Client(self.cluster, by)
        self.session: Session | None = None
        self.reading: tuple[Subscription, Coroutine[Any, Any, Snapshot | None]] | None = None
        self.watching = self.world.hub.watching()
        self.watching.__enter__()

    def connected(self) -> Session:
        if self.session is None:
            self.session = Session(self.world.hub, "default", LIMITS)
            self.client.connect(self.session)
        return self.session

    def disconnect(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None
        if self.reading is not None:
            self.reading[1].close()
            self.reading = None

    def take(self) -> None:
        for message in self.connected().take():
            self.client.hear(orjson.loads(message))

    def read(self) -> None:
        """Whatever there is."""
        for _ in range(4):
            self.open()
            self.take()

    def open(self) -> None:
        """One turn of whoever reads snapshots."""
        session = self.connected()
        if self.reading is None:
            sub = session.next_opening()
            if sub is None:
                return
            self.reading = sub, read_snapshot(self.world.gateway, sub.topic, "default", 100, LIMITS.scan)
        sub, reading = self.reading
        try:
            reading.send(None)
        except StopIteration as done:
            self.reading = None
            self.answer(session, sub, done.value)

    def answer(self, session: Session, sub: Subscription, found: Snapshot | None) -> None:
        if found is None:
            session.overrun(sub)
        else:
            session.opened(sub, found.tasks.values(), seq=found.seq, truncated=found.truncated, now_ms=NOW_MS)

    def settle(self) -> None:
        """Nothing new happens, and the client reads all that there is."""
        self.cluster.publish()
        for _ in range(50):
            self.read()
        assert not self.connected().busy
        assert self.reading is None


STEP = st.one_of(
    st.tuples(st.sampled_from(["step", "burst"]), st.integers(0, TASKS - 1)),
    st.tuples(st.sampled_from(["publish", "take", "take", "open", "open", "read", "disconnect"]), st.just(0)),
)


@settings(max_examples=400)
@given(st.sampled_from(sorted(FILTERS)), st.sampled_from([4, 16, 64]), st.lists(STEP, max_size=80))
def test_a_client_never_sees_a_task_go_back_nor_loses_a_change_in_silence(
    by: str, kept: int, steps: list[tuple[str, int]]
) -> None:
    play = Play(by, kept)
    play.read()
    for name, number in steps:
        match name:
            case "step" | "burst":
                getattr(play.cluster, name)(number)
            case "publish":
                play.cluster.publish()
            case _:
                getattr(play, name)()
    play.settle()
    for number, version in play.cluster.version.items():
        if id_of(number) in play.client.watched:
            assert play.client.known.get(id_of(number), LAST) == version
    play.disconnect()
