"""A hand keeps to the contract: what it says, and when."""

from datetime import timedelta
from typing import Any

import msgspec

from bench import frames
from bench.deliveries import Deliveries
from bench.holding import AGAIN_S, HELD, LATE_S, SLOW_S, Holding
from bench.journal import Line
from tests.bench.fake_service import BEGIN, rfc3339, task

NOW_S = BEGIN.timestamp()


class Talk:
    """A holding with room for four tasks, and both ends of what is said."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.holding = Holding("h", "bench", 4, self.lines.append)
        self.hello: Any = self.holding.hello()

    def say(self, kind: str, after_s: float = 0.0, **fields: object) -> None:
        frame = frames.DECODER.decode(msgspec.json.encode({"type": kind, **fields}))
        self.holding.heard(frame, NOW_S + after_s)

    def begin(self, *leases: str) -> None:
        """Still its own: `lease-<task>-<attempt>`."""
        ids = [task(int(lease.split("-")[1]))["id"] for lease in leases]
        held = [{"id": task_id, "lease": lease} for task_id, lease in zip(ids, leases, strict=True)]
        self.say("hello", worker="h", leases=held)

    def give(self, *tasks: dict[str, object], after_s: float = 0.0) -> None:
        self.say("tasks", after_s, tasks=list(tasks))

    def due(self, after_s: float, kind: str) -> Any:
        """The frame of this kind that is said then; None = none is."""
        return next((each for each in self.holding.due(NOW_S + after_s) if each["type"] == kind), None)

    def noted(self, what: str) -> list[str]:
        return [line.lease for line in self.lines if line.what == what]


def begun(*tasks: dict[str, object]) -> Talk:
    """One that has said hello, given its credits, and got these tasks."""
    talk = Talk()
    talk.begin()
    talk.due(0, "ready")
    talk.give(*tasks)
    return talk


def test_nothing_is_said_before_the_hello_is_answered() -> None:
    talk = Talk()
    assert talk.hello == {"type": "hello", "worker": "h", "leases": []}
    assert talk.holding.due(NOW_S) == []
    talk.begin()
    assert talk.holding.due(NOW_S) == [{"type": "ready", "queue": "bench", "credits": 4}]
    assert talk.holding.due(NOW_S) == []


def test_credits_are_what_is_free_and_was_not_given() -> None:
    talk = begun(task(1, "long"), task(2))
    assert talk.due(0.0, "ready") is None, "two are left, two work"
    assert talk.due(1.0, "ready") == {"type": "ready", "queue": "bench", "credits": 1}


def test_tasks_above_the_credits_are_noted() -> None:
    talk = begun(*(task(number, "long") for number in range(6)))
    assert [line.count for line in talk.lines if line.what == "above"] == [2]


def test_a_task_is_done_and_recorded() -> None:
    talk = begun(task(7))
    assert talk.due(0.006, "done") is None
    result = {"id": task(7)["id"], "lease": "lease-7-1", "ok": True}
    assert talk.due(0.007, "done") == {"type": "done", "results": [result]}
    assert talk.due(0.1, "done") is None
    talk.say("recorded", ids=[task(7)["id"]])
    assert talk.noted("got") == talk.noted("said") == talk.noted("recorded") == ["lease-7-1"]


def test_a_slow_task_takes_its_time() -> None:
    talk = begun(task(1, "slow"))
    assert talk.due(SLOW_S - 0.1, "done") is None
    assert talk.due(SLOW_S, "done") is not None


def test_a_task_fails_as_often_as_its_script_says() -> None:
    talk = begun(task(1, "fail"), task(2, "fail", attempt=2), task(3, "fail", attempt=3))
    results = talk.due(1.0, "done")["results"]
    assert [result["ok"] for result in results] == [False, False, True]
    assert results[0]["retry"] == 0.1


def test_a_long_job_is_extended_until_it_is_done() -> None:
    talk = begun(task(1, "long", lease_s=3.0))
    assert talk.due(0.9, "extend") is None
    lease = {"id": task(1)["id"], "lease": "lease-1-1"}
    assert talk.due(1.0, "extend") == {"type": "extend", "leases": [lease]}
    assert talk.due(1.9, "extend") is None
    assert talk.due(2.0, "extend") is not None
    assert talk.due(3.0 * HELD - 0.1, "done") is None
    assert talk.due(3.0 * HELD, "done") is not None


def test_a_late_answer_is_late_at_the_first_attempt_alone() -> None:
    talk = begun(task(1, "late"), task(2, "late", attempt=2))
    assert [result["lease"] for result in talk.due(0.1, "done")["results"]] == ["lease-2-2"]
    assert talk.due(1.9, "extend") is None
    assert talk.due(2.0 + LATE_S - 0.1, "done") is None
    assert talk.due(2.0 + LATE_S, "done")["results"][0]["lease"] == "lease-1-1"


def test_of_two_results_of_one_task_the_later_attempt_is_recorded() -> None:
    talk = begun(task(1, "late"), task(1, "late", attempt=2))
    talk.due(9.0, "done")
    problem = {"type": "about:blank", "title": "Conflict", "status": 409, "detail": "the lease is over"}
    talk.say("recorded", ids=[task(1)["id"]])
    talk.say("refused", results=[{"id": task(1)["id"], "lease": "lease-1-1", "problem": problem}])
    assert (talk.noted("recorded"), talk.noted("refused")) == (["lease-1-2"], ["lease-1-1"])


def test_what_was_refused_for_now_is_said_again() -> None:
    talk = begun(task(1))
    talk.due(1.0, "done")
    problem = {"type": "about:blank", "title": "Unavailable", "status": 503, "detail": "say it again"}
    talk.say("refused", 1.0, results=[{"id": task(1)["id"], "lease": "lease-1-1", "problem": problem}])
    assert talk.due(1.0 + AGAIN_S / 2, "done") is None
    assert talk.due(1.0 + AGAIN_S, "done") is not None
    assert talk.noted("again") == ["lease-1-1"]


def test_a_job_whose_extension_is_refused_is_over() -> None:
    talk = begun(task(1, "long"))
    talk.due(1.0, "extend")
    problem = {"type": "about:blank", "title": "Conflict", "status": 409, "detail": "the lease is over"}
    talk.say("refused", results=[{"id": task(1)["id"], "lease": "lease-1-1", "problem": problem}])
    assert talk.noted("over") == ["lease-1-1"]
    assert talk.due(1e6, "done") is None


def test_leases_of_several_tasks_may_read_the_same() -> None:
    talk = begun(task(1, "long", lease="1.1.1"), task(2, "long", lease="1.1.1"))
    assert len(talk.due(1.0, "extend")["leases"]) == 2
    talk.say("cancel", ids=[task(1)["id"]])
    assert talk.due(2.0, "extend")["leases"] == [{"id": task(2)["id"], "lease": "1.1.1"}]
    found = Deliveries({"h": talk.lines})
    assert [each.id for each in found.held((NOW_S + 1) * 1e3, ["h"])] == [task(2)["id"]]


def test_cancelled_work_stops() -> None:
    talk = begun(task(1, "long"), task(2, "long"))
    talk.say("cancel", ids=[task(1)["id"]])
    assert talk.noted("cancelled") == ["lease-1-1"]
    assert [lease["lease"] for lease in talk.due(1.0, "extend")["leases"]] == ["lease-2-1"]


def test_a_lease_that_ran_out_on_the_way_is_not_begun() -> None:
    talk = begun()
    talk.give(task(1), task(2, lease_expire_time=rfc3339(BEGIN + timedelta(seconds=5))), after_s=2.0)
    assert (talk.noted("stale"), talk.noted("got")) == (["lease-1-1"], ["lease-2-1"])


def test_on_a_new_link_it_goes_on_with_what_is_still_its_own() -> None:
    talk = begun(task(1, "long"), task(2, "long"), task(3))
    talk.due(1.0, "done")
    hello: Any = talk.holding.hello()
    assert [lease["lease"] for lease in hello["leases"]] == ["lease-1-1", "lease-2-1", "lease-3-1"]
    assert talk.holding.due(NOW_S + 1.0) == []
    talk.begin("lease-1-1")
    assert (talk.noted("kept"), talk.noted("over")) == (["lease-1-1"], ["lease-2-1"])
    said = talk.holding.due(NOW_S + 1.1)
    assert [message["type"] for message in said] == ["done", "ready"]
    assert said[1]["credits"] == 3
    assert talk.noted("again") == ["lease-3-1"], "its answer may have been lost with the link"


def test_what_is_forgotten_is_never_said() -> None:
    talk = begun(task(1), task(2, "long"))
    talk.due(0.5, "done")
    talk.holding.forget(NOW_S + 1)
    hello: Any = talk.holding.hello()
    assert hello["leases"] == []
    assert talk.noted("forgot") == ["lease-2-1"]


def test_what_a_node_can_not_read_is_noted() -> None:
    talk = begun()
    talk.say("error", detail="what?", errors=[])
    assert [line.detail for line in talk.lines if line.what == "error"] == ["what?"]
