"""What a hand holds: tasks that it works on, results that are not answered yet, and credits that it gave and that are
not used up. It keeps strictly to the contract of workers, but for tasks that are to be answered late on purpose.

Messages in, messages out; the time is an argument, in seconds since 1970.

What is done with a task, by the script in its payload:
`ok` is done after a few milliseconds, `slow` after SLOW_S; `fail` fails at the first two attempts; `long` is held for
HELD lease periods, with extensions; `late` is held at the first attempt, without any, until LATE_S after its lease has
run out.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench import frames
from bench.journal import Line

HELD = 12
SLOW_S = 1.5
LATE_S = 1.0
AGAIN_S = 0.2
FAILURES = 2
EXTENSIONS = 3
"""In a lease period."""
NEVER_S = float("inf")
MOST_RESULTS = 1_000

Message = dict[str, object]
Key = tuple[str, str]
"""Id and lease: the text of a lease may be that of others."""


@dataclass(slots=True)
class Job:
    """A task that it works on."""

    id: str
    lease: str
    attempt: int
    script: str
    period_s: float
    until_s: float
    extend_s: float

    @property
    def key(self) -> Key:
        """Which one it is."""
        return self.id, self.lease

    @property
    def is_late(self) -> bool:
        """Whether it is to be answered late."""
        return self.script == "late" and self.attempt == 1


@dataclass(slots=True)
class Said:
    """A result that waits for its answer."""

    job: Job
    result: Message
    send_s: float = 0.0
    """When it is to be sent; NEVER_S: it was."""
    sent: bool = False


class Holding:
    """Of one hand. `note` gets a line of everything."""

    def __init__(self, name: str, queue: str, capacity: int, note: Callable[[Line], None]) -> None:
        self._name = name
        self._queue = queue
        self._capacity = capacity
        self._note = note
        self._jobs: dict[Key, Job] = {}
        self._said: dict[Key, Said] = {}
        self._left = 0
        self.known = False
        """The node at the other end has answered the hello."""

    def hello(self) -> Message:
        """The first message on a new link, on which all credits are new."""
        self.known = False
        self._left = 0
        for said in self._said.values():
            said.send_s = 0.0
        held = [*self._jobs.values(), *(said.job for said in self._said.values())]
        return {"type": "hello", "worker": self._name, "leases": _leases(held)}

    def forget(self, now_s: float) -> None:
        """Stop everything, and tell nobody."""
        self._drop(list(self._jobs.values()), "forgot", now_s)
        self._said.clear()

    def heard(self, frame: frames.Frame, now_s: float) -> None:
        """A node said this."""
        match frame:
            case frames.Hello():
                self._keep({(lease.id, lease.lease) for lease in frame.leases}, now_s)
            case frames.Tasks():
                self._take(frame.tasks, now_s)
            case frames.Recorded():
                self._recorded(frame.ids, now_s)
            case frames.Refused():
                for refusal in frame.results:
                    self._refused(refusal, now_s)
            case frames.Cancel():
                self._drop([job for job in self._jobs.values() if job.id in frame.ids], "cancelled", now_s)
            case frames.Complaint():
                self._note(Line(now_s * 1e3, "error", detail=frame.detail))

    def due(self, now_s: float) -> list[Message]:
        """What is to be said now."""
        if not self.known:
            return []
        for job in [job for job in self._jobs.values() if job.until_s <= now_s]:
            del self._jobs[job.key]
            self._said[job.key] = Said(job, _result(job))
        return [*self._results(now_s), *self._extensions(now_s), *self._credits()]

    def _keep(self, kept: set[Key], now_s: float) -> None:
        """Only these are still its own."""
        self.known = True
        for task_id, lease in kept & (self._jobs.keys() | self._said.keys()):
            self._note(Line(now_s * 1e3, "kept", task_id, lease))
        self._drop([job for job in self._jobs.values() if job.key not in kept], "over", now_s)

    def _take(self, tasks: Sequence[frames.Task], now_s: float) -> None:
        self._left -= len(tasks)
        if self._left < 0:
            self._note(Line(now_s * 1e3, "above", count=-self._left))
            self._left = 0
        for task in tasks:
            if task.lease_expire_time.timestamp() <= now_s:
                self._note(_line(task, "stale", now_s))
            else:
                self._note(_line(task, "got", now_s))
                self._jobs[task.id, task.lease] = _job(task, now_s)

    def _recorded(self, ids: Iterable[str], now_s: float) -> None:
        """Of two results of one task it is the later one's: the other's lease has run out."""
        for task_id in ids:
            some = [said.job for said in self._said.values() if said.job.id == task_id and said.sent]
            if some:
                job = max(some, key=lambda job: job.attempt)
                del self._said[job.key]
                self._note(Line(now_s * 1e3, "recorded", job.id, job.lease, job.attempt))

    def _refused(self, refusal: frames.Refusal, now_s: float) -> None:
        key, problem = (refusal.id, refusal.lease), refusal.problem
        said, job, unknown = self._said.get(key), self._jobs.get(key), problem.status == 503
        if said is not None and unknown:
            said.send_s = now_s + AGAIN_S
        elif said is not None:
            del self._said[key]
            self._note(Line(now_s * 1e3, "refused", *key, status=problem.status, detail=problem.detail))
        elif job is not None and unknown:
            job.extend_s = now_s + AGAIN_S
        elif job is not None:
            self._drop([job], "over", now_s)

    def _drop(self, jobs: Iterable[Job], what: str, now_s: float) -> None:
        for job in jobs:
            del self._jobs[job.key]
            self._note(Line(now_s * 1e3, what, job.id, job.lease, job.attempt))

    def _results(self, now_s: float) -> list[Message]:
        """Those that are to be sent, in one frame."""
        some = [said for said in self._said.values() if said.send_s <= now_s][:MOST_RESULTS]
        for said in some:
            self._note(Line(now_s * 1e3, "again" if said.sent else "said", said.job.id, said.job.lease))
            said.sent, said.send_s = True, NEVER_S
        return [{"type": "done", "results": [said.result for said in some]}] if some else []

    def _extensions(self, now_s: float) -> list[Message]:
        some = [job for job in self._jobs.values() if job.extend_s <= now_s]
        for job in some:
            job.extend_s = now_s + job.period_s / EXTENSIONS
        return [{"type": "extend", "leases": _leases(some)}] if some else []

    def _credits(self) -> list[Message]:
        free = self._capacity - len(self._jobs) - self._left
        if free <= 0:
            return []
        self._left += free
        return [{"type": "ready", "queue": self._queue, "credits": free}]


def _job(task: frames.Task, now_s: float) -> Job:
    script, period_s = task.payload.script, task.lease_seconds
    work_s = {"long": HELD * period_s, "slow": SLOW_S}.get(script, task.payload.number % 50 / 1e3)
    job = Job(task.id, task.lease, task.attempt, script, period_s, now_s + work_s, now_s + period_s / EXTENSIONS)
    if job.is_late:
        job.until_s = task.lease_expire_time.timestamp() + LATE_S
        job.extend_s = NEVER_S
    return job


def _result(job: Job) -> Message:
    if job.script == "fail" and job.attempt <= FAILURES:
        return {"id": job.id, "lease": job.lease, "ok": False, "error": "as its script says", "retry": 0.1}
    return {"id": job.id, "lease": job.lease, "ok": True}


def _leases(jobs: Iterable[Job]) -> list[Message]:
    return [{"id": job.id, "lease": job.lease} for job in jobs]


def _line(task: frames.Task, what: str, now_s: float) -> Line:
    return Line(
        now_s * 1e3, what, task.id, task.lease, task.attempt, task.fence, task.payload.script, task.lease_seconds
    )
