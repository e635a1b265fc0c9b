"""A session without a socket: what one watcher is told, step by step."""

from typing import Any

import orjson
import pytest

from actors.core.errors import Unavailable
from actors.core.events import Change
from actors.core.task import State
from gateway import interest
from gateway.hub import Hub
from gateway.session import Limits, Session
from gateway.subscription import FLOOR_MS
from tests.gateway.watched import FOREIGN, NOW_MS, OTHER, a_change, id_of

MANY = orjson.dumps({f"k{number}": "" for number in range(17)}).decode()


class Line:
    """A session on a hub of its own, spoken to in JSON."""

    def __init__(self, kept: int = 100, **limits: Any) -> None:
        self.hub = Hub("b", kept=kept)
        self.watching = self.hub.watching()
        self.watching.__enter__()
        self.session = Session(self.hub, "default", Limits(**limits))

    def say(self, kind: str, sub: str = "s", **fields: Any) -> None:
        self.session.receive(orjson.dumps({"type": kind, "sub": sub, **fields}))

    def hear(self) -> list[dict[str, Any]]:
        """Everything that it has to say now."""
        messages = []
        while self.session.busy:
            messages += self.session.take()
        return [orjson.loads(message) for message in messages]

    def watch(self, sub: str = "s", **wanted: str) -> None:
        """Subscribe to something that is empty yet."""
        self.say("subscribe", sub, filter=wanted)
        self.show()
        self.hear()

    def show(self, *tasks: Change, now_ms: int = NOW_MS) -> None:
        """Answer the next subscription that waits for a snapshot."""
        sub = self.session.next_opening()
        assert sub is not None
        self.session.opened(sub, tasks, seq=self.hub.seq, truncated=False, now_ms=now_ms)


def told(messages: list[dict[str, Any]]) -> list[Any]:
    """Messages in short: versions of events, the type of everything else."""
    return [message["task"]["version"] if message["type"] == "event" else message["type"] for message in messages]


def test_a_task_as_the_stream_shows_it() -> None:
    line = Line()
    line.watch(queue="mail")
    labels = '{"team":"blue"}'
    change = a_change(7, 4, State.DEAD, labels=labels, status=503, error="busy \U0001f4a5", lateness_ms=12)
    line.hub.publish([change])
    assert line.hear() == [
        {
            "type": "event",
            "sub": "s",
            "cursor": "b.1",
            "task": {
                "id": id_of(7),
                "queue": "mail",
                "state": "dead",
                "attempt": 2,
                "version": 4,
                "time": "2027-01-15T08:00:00.000Z",
                "schedule_time": "2027-01-15T08:00:00.000Z",
                "next_attempt_time": None,
                "lateness_ms": 12,
                "last_attempt": {"status": 503, "error": "busy \U0001f4a5"},
                "labels": {"team": "blue"},
            },
        }
    ]


def test_a_task_that_waits_says_when_it_goes_on() -> None:
    line = Line()
    line.watch(queue="mail")
    line.hub.publish([a_change(7, 1), a_change(7, 2)._replace(due_ms=NOW_MS + 5_000)])
    assert [event["task"]["next_attempt_time"] for event in line.hear()] == [None, "2027-01-15T08:00:05.000Z"]


def test_snapshot_then_events() -> None:
    line = Line()
    line.hub.publish([a_change(1)])
    line.say("subscribe", filter={"queue": "mail"})
    assert line.hear() == []
    line.show(a_change(1))
    line.hub.publish([a_change(1, 1), a_change(2, queue=OTHER)])
    snapshot, event = line.hear()
    assert snapshot["type"] == "snapshot"
    assert [task["id"] for task in snapshot["tasks"]] == [id_of(1)]
    assert (snapshot["cursor"], snapshot["truncated"]) == ("b.1", False)
    assert (event["cursor"], event["task"]["state"]) == ("b.2", "running")


def test_an_event_that_the_snapshot_knew_is_not_told_again() -> None:
    line = Line()
    line.say("subscribe", filter={"id": id_of(1)})
    line.show(a_change(1, 2))
    line.hub.publish([a_change(1, 1), a_change(1, 2), a_change(1, 3)])
    assert told(line.hear()) == ["snapshot", 3]


def test_a_floor_is_let_go_in_time() -> None:
    line = Line()
    line.say("subscribe", filter={"id": id_of(1)})
    line.show(a_change(1, 2), now_ms=NOW_MS - FLOOR_MS - 1)
    line.hub.publish([a_change(1, 2)])
    assert told(line.hear()) == ["snapshot", 2]


def test_resume_tells_exactly_what_was_missed() -> None:
    line = Line()
    line.hub.publish([a_change(1), a_change(1, 1), a_change(2, queue=OTHER), a_change(1, 2)])
    line.say("subscribe", filter={"queue": "mail"}, **{"from": "b.1"})
    line.hub.publish([a_change(1, 3)])
    messages = line.hear()
    assert told(messages) == ["resumed", 1, 2, 3]
    assert [message["cursor"] for message in messages] == ["b.1", "b.2", "b.4", "b.5"]


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [("b.1", "expired-cursor"), ("a.9", "unknown-cursor"), ("b.99", "unknown-cursor"), ("?", "unknown-cursor")],
)
def test_a_cursor_that_leads_nowhere_is_a_gap_and_a_snapshot(cursor: str, reason: str) -> None:
    line = Line(kept=2)
    line.hub.publish([a_change(1), a_change(1, 1), a_change(1, 2), a_change(1, 3)])
    line.say("subscribe", filter={"queue": "mail"}, **{"from": cursor})
    assert line.hear() == [{"type": "gap", "sub": "s", "reason": reason, "snapshot": True}]
    line.show(a_change(1, 3))
    assert told(line.hear()) == ["snapshot"]


def test_a_burst_beyond_the_outbox_is_told_in_full() -> None:
    line = Line(room=3)
    line.watch(queue="mail")
    line.hub.publish([a_change(n) for n in range(40)])
    messages = line.hear()
    assert [message["task"]["id"] for message in messages] == [id_of(n) for n in range(40)]
    line.hub.publish([a_change(1, 1)])
    assert told(line.hear()) == [1], "live again"


def test_two_subscriptions_of_one_task_are_each_told_once() -> None:
    line = Line(room=3)
    line.watch("s", queue="mail")
    line.watch("t", id=id_of(1))
    line.hub.publish([a_change(1, n) for n in range(5)])
    messages = line.hear()
    for sub in ("s", "t"):
        assert told([message for message in messages if message["sub"] == sub]) == [0, 1, 2, 3, 4]


def test_a_slow_reader_is_told_the_newest_and_how_much_it_missed() -> None:
    line = Line(kept=20, room=3)
    line.watch(queue="mail")
    line.hub.publish([a_change(1, 0), a_change(2, 0), a_change(3, 0)])
    for version in range(1, 8):
        line.hub.publish([a_change(1, version), a_change(2, version)])
    messages = line.hear()
    assert told(messages) == [0, 0, 0, "gap", 7, 7]
    assert messages[3] == {"type": "gap", "sub": "s", "reason": "conflated", "snapshot": False, "skipped": 12}


def test_the_newest_of_each_task_is_told_by_rising_cursor() -> None:
    line = Line(kept=8, room=3)
    line.watch(queue="mail")
    line.hub.publish([a_change(n) for n in (1, 2, 3)])
    line.hub.publish([a_change(1, 1), a_change(2, 1), a_change(1, 2), a_change(2, 2), a_change(1, 3)])
    messages = line.hear()
    assert told(messages) == [0, 0, 0, "gap", 2, 3]
    assert [message["cursor"] for message in messages[4:]] == ["b.7", "b.8"]


def test_a_reader_behind_all_memory_gets_a_gap_and_a_snapshot() -> None:
    line = Line(kept=5, room=3)
    line.watch(queue="mail")
    line.hub.publish([a_change(n) for n in range(3)])
    for version in range(1, 8):
        line.hub.publish([a_change(1, version), a_change(2, version)])
    messages = line.hear()
    assert told(messages) == [0, 0, 0, "gap"]
    assert messages[3] == {"type": "gap", "sub": "s", "reason": "overrun", "snapshot": True}
    line.show(a_change(1, 7), a_change(2, 7))
    line.hub.publish([a_change(1, 8)])
    assert told(line.hear()) == ["snapshot", 8]


def test_a_session_that_is_never_read_stays_small() -> None:
    line = Line(kept=50, room=10)
    line.watch(queue="mail")
    for number in range(1000):
        line.hub.publish([a_change(number)])
    assert len(line.session._outbox) == 10
    assert not line.hub._feeds, "it costs a publisher nothing"


def test_unsubscribe() -> None:
    line = Line()
    line.watch(queue="mail")
    line.hub.publish([a_change(1)])
    line.say("unsubscribe")
    line.hub.publish([a_change(2)])
    assert line.hear() == [{"type": "unsubscribed", "sub": "s"}]
    assert not line.hub._feeds
    line.watch(queue="mail")
    line.hub.publish([a_change(3)])
    assert told(line.hear()) == [0], "the name is free again"


def test_unsubscribe_while_opening_and_while_behind() -> None:
    line = Line(room=2)
    line.say("subscribe", filter={"queue": "mail"})
    line.say("unsubscribe")
    assert line.session.next_opening() is None
    assert told(line.hear()) == ["unsubscribed"]
    line.watch(queue="mail")
    line.hub.publish([a_change(n) for n in range(5)])
    line.say("unsubscribe")
    assert told(line.hear()) == ["unsubscribed"]


def test_unsubscribed_while_its_snapshot_is_read() -> None:
    line = Line()
    line.say("subscribe", filter={"queue": "mail"})
    sub = line.session.next_opening()
    assert sub is not None
    line.say("unsubscribe")
    line.session.opened(sub, [], seq=0, truncated=False, now_ms=NOW_MS)
    line.session.not_opened(sub, Unavailable("no database"))
    line.session.overrun(sub)
    assert told(line.hear()) == ["unsubscribed"]


def test_a_snapshot_that_fails_is_told_and_wanted_again() -> None:
    line = Line()
    line.say("subscribe", filter={"queue": "mail"})
    sub = line.session.next_opening()
    assert sub is not None
    line.session.not_opened(sub, Unavailable("no database"))
    (error,) = line.hear()
    assert (error["type"], error["sub"], error["problem"]) == ("error", "s", "unavailable")
    assert sub.reopened
    assert line.session.next_opening() is sub


def test_other_tenants_are_not_seen() -> None:
    line = Line()
    line.watch("s", queue="mail")
    line.watch("t", id=id_of(1))
    line.hub.publish([a_change(1, queue=FOREIGN)])
    assert line.hear() == []
    line.say("subscribe", "u", filter={"id": id_of(1)}, **{"from": "b.0"})
    assert told(line.hear()) == ["resumed"]


@pytest.mark.parametrize(
    ("text", "problem", "pointer"),
    [
        ("{", "not-json", ""),
        ("[" * 5000, "invalid", ""),
        ("1", "invalid", ""),
        ("{}", "invalid", "/type"),
        ('{"type":"fly","sub":"s"}', "invalid", "/type"),
        ('{"type":"subscribe","sub":"s"}', "invalid", "/filter"),
        ('{"type":"subscribe","sub":"","filter":{"queue":"a"}}', "invalid", "/sub"),
        ('{"type":"subscribe","sub":"s","filter":{}}', "invalid", "/filter"),
        ('{"type":"subscribe","sub":"s","filter":{"queue":"a","id":"b"}}', "invalid", "/filter"),
        ('{"type":"subscribe","sub":"s","filter":{"id":"b"}}', "invalid", "/filter/id"),
        ('{"type":"subscribe","sub":"s","filter":{"queue":""}}', "invalid", "/filter/queue"),
        ('{"type":"subscribe","sub":"s","filter":{"queue":"\\u0000"}}', "invalid", "/filter/queue"),
        ('{"type":"subscribe","sub":"s","filter":{"queue":"a/b"}}', "invalid", "/filter/queue"),
        ('{"type":"subscribe","sub":"s","filter":{"queue":"' + "q" * 101 + '"}}', "invalid", "/filter/queue"),
        ('{"type":"subscribe","sub":"s","filter":{"queue":"a"},"form":"x"}', "invalid", "/form"),
        ('{"type":"subscribe","sub":"s","filter":{"labels":null}}', "invalid", "/filter"),
        ('{"type":"subscribe","sub":"s","filter":{"labels":{}}}', "invalid", "/filter/labels"),
        ('{"type":"subscribe","sub":"s","filter":{"labels":{"a":1}}}', "invalid", "/filter/labels/a"),
        ('{"type":"subscribe","sub":"s","filter":{"labels":{"a b":""}}}', "invalid", "/filter/labels/a b"),
        ('{"type":"subscribe","sub":"s","filter":{"labels":{"a":"\\u0000"}}}', "invalid", "/filter/labels/a"),
        ('{"type":"subscribe","sub":"s","filter":{"labels":' + MANY + "}}", "invalid", "/filter/labels"),
        ('{"type":"subscribe","sub":"s","filter":{"labels":{"a":"b"},"id":"' + id_of(1) + '"}}', "invalid", "/filter"),
        ('{"type":"subscribe","sub":"s","filter":{"labels":{"a":"b"},"queue":"a/b"}}', "invalid", "/filter/queue"),
        ('{"type":"subscribe","sub":"s","filter":{"schedule":"x"}}', "not-supported", "/filter/schedule"),
        ('{"type":"unsubscribe","sub":"s"}', "not-found", None),
    ],
)
def test_a_bad_message_is_answered_and_harms_nothing(text: str, problem: str, pointer: str | None) -> None:
    line = Line()
    line.watch("good", queue="mail")
    line.session.receive(text)
    line.hub.publish([a_change(1)])
    error, event = line.hear()
    assert (error["type"], error["problem"]) == ("error", problem)
    assert error["detail"]
    assert [item["pointer"] for item in error["errors"]] == ([] if pointer is None else [pointer])
    assert event["type"] == "event"


def test_a_name_in_use_and_too_many() -> None:
    line = Line(subscriptions=2)
    line.watch("s", queue="mail")
    line.say("subscribe", "s", filter={"queue": "mail"})
    line.watch("t", queue="mail")
    line.say("subscribe", "u", filter={"queue": "mail"})
    messages = line.hear()
    assert [message["problem"] for message in messages] == ["overloaded"]
    line.hub.publish([a_change(1)])
    assert told(line.hear()) == [0, 0]


def test_closed_it_leaves_the_hub() -> None:
    line = Line()
    line.watch("s", queue="mail")
    line.watch("t", id=id_of(1))
    line.session.close()
    assert not line.hub._feeds


def test_subscriptions_that_come_and_go_before_their_snapshot_leave_nothing_behind() -> None:
    line = Line()
    line.say("subscribe", "first", filter={"queue": "mail"})
    opening = line.session.next_opening()
    for _ in range(1_000):
        line.say("subscribe", filter={"queue": "mail"})
        line.say("unsubscribe")
        line.hear()
    assert len(line.session._opening) == 0
    line.say("unsubscribe", "first")
    assert opening is not None
    line.session.opened(opening, [], seq=0, truncated=False, now_ms=NOW_MS)
    assert told(line.hear()) == ["unsubscribed"]


def test_one_pause_is_that_of_all_who_wait() -> None:
    line = Line()
    for name in "abc":
        line.watch(name, queue="mail")
    line.hub.interrupt()
    first = line.session.next_opening()
    assert first is not None
    assert first.reopened
    line.session.paused()
    rest = [line.session.next_opening(), line.session.next_opening()]
    assert [sub and sub.reopened for sub in rest] == [False, False]
    assert rest[0] is not None
    line.session.not_opened(rest[0], Unavailable("away"))
    again = line.session.next_opening()
    assert again is rest[0]
    assert again.reopened, "who fails again pauses again"


async def test_among_other_nodes_a_cursor_counts_from_when_they_were_told() -> None:
    line = Line()
    line.hub.interest.alone = False
    line.watch("early", queue="mail")
    cursor = line.hub.cursor(line.hub.seq)
    line.hub.publish([a_change(1)])
    line.say("unsubscribe", "early")
    line.hear()
    line.say("subscribe", filter={"queue": "mail"}, **{"from": cursor})
    assert [message.get("reason") for message in line.hear()] == ["expired-cursor"], "nobody was told"
    await line.hub.interest.told(("default", "mail"))
    line.show()
    line.hear()
    later = line.hub.cursor(line.hub.seq)
    for name, start, kind in (("a", cursor, "gap"), ("b", later, "resumed")):
        line.say("subscribe", name, filter={"queue": "mail"}, **{"from": start})
        assert told(line.hear()) == [kind]


def test_whoever_leaves_is_no_longer_of_interest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interest, "LINGER_S", 0.0)
    line = Line()
    for name in "abc":
        line.watch(name, queue="mail")
    line.say("unsubscribe", "a")
    line.say("subscribe", "d", filter={"queue": "no queue"})
    line.hub.interest.sweep()
    assert line.hub.interest.topics == [("default", "mail")]
    line.session.close()
    line.hub.interest.sweep()
    assert line.hub.interest.topics == []


def test_more_than_a_node_can_watch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interest, "TOPICS", 1)
    line = Line()
    line.watch("a", queue="mail")
    line.say("subscribe", "b", filter={"queue": "other"})
    assert [message["problem"] for message in line.hear()] == ["overloaded"]
    line.watch("b", queue="mail")
