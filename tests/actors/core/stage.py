"""One shard on a stage: events go in by name, and what it asks for is sorted by kind."""

from actors.core.events import (
    Answer,
    Asked,
    Change,
    Close,
    Command,
    Effect,
    Ended,
    Event,
    Find,
    Forward,
    Found,
    HandedOut,
    Living,
    Load,
    Loaded,
    Looked,
    Offer,
    Outcome,
    Page,
    Parted,
    Probed,
    Publish,
    Ready,
    Record,
    Recorded,
    Refused,
    Started,
    Submitted,
    Ticked,
    Verdict,
    Write,
)
from actors.core.queue import Queue, Unheard
from actors.core.shard import ShardState
from actors.core.spec import Spec
from actors.core.task import Move, State, Task
from tests.support.builders import SPEC, T0_MS, make_task

EPOCH = 7
HORIZON_MS = 60_000


class Stage:
    """A shard under epoch 7 whose tables are empty, at T0; what the last event led to lies in `effects`."""

    def __init__(
        self, *, limit: int = 100, loaded: bool = True, living: tuple[str, ...] = (), unknown: Unheard = Unheard.RETRY
    ) -> None:
        self.now_ms = T0_MS
        self.shard = ShardState(0, EPOCH, T0_MS - 1, limit=limit, horizon_ms=HORIZON_MS, living=frozenset(living))
        self.queue = Queue(1, "default", "q", unknown=unknown)
        self.effects: list[Effect] = []
        self.answers: list[Answer] = []
        """Of all events so far."""
        self._number = 0
        if loaded:
            self.apply(Ticked())
            self.apply(Loaded(self.pages[0], [], {}))

    # --- making things

    def task(
        self,
        *,
        in_ms: int = 0,
        ttl_ms: int | None = None,
        budget: int = 5,
        spec: Spec = SPEC,
        queue: Queue | None = None,
        payload: bytes | None = None,
    ) -> Task:
        """A new task, due in `in_ms`, as the Intake makes it."""
        self._number += 1
        if ttl_ms is not None:
            spec = Spec(http=spec.http, ttl_ms=ttl_ms)
        task = make_task(self._number, queue or self.queue, due_ms=self.now_ms + in_ms, spec=spec, payload=payload)
        task.budget = budget
        return task

    def waiting(self, in_ms: int = 5_000) -> Task:
        """A task that waits in the wheel."""
        task = self.task(in_ms=in_ms)
        self.hint(task)
        return task

    def offered(self, **how: int | None) -> Task:
        """A task at the desk."""
        task = self.task(**how)  # type: ignore[arg-type]
        self.hint(task)
        return task

    def running(self, **how: int | None) -> Task:
        """A task whose first attempt runs."""
        task = self.offered(**how)
        self.start(task)
        return task

    def claimed(self, **how: int | None) -> Task:
        """A task whose attempt runs and is claimed."""
        task = self.running(**how)
        self.tick(500)
        self.record()
        return task

    def ready(self, **how: int | None) -> Task:
        """A task whose attempt is claimed ahead, and not handed out yet."""
        task = self.running(**how)
        self.record()
        return task

    def sent(self, **how: int | None) -> Task:
        """A task whose attempt was claimed ahead and handed out."""
        task = self.ready(**how)
        self.hand_out(task)
        return task

    def later(self, **how: int | None) -> Task:
        """A task whose target took the work and completes it by itself."""
        task = self.running(**how)
        self.end(task, Verdict.LATER)
        self.record()
        return task

    def writing(self) -> Task:
        """A task whose success is being recorded."""
        task = self.running()
        self.end(task)
        return task

    def goes_on(self, *, due_in_ms: int = 0, boot: str = "boot-b") -> Task:
        """A row with a claim of 30 s that `boot` wrote under an earlier epoch, as the tables show it."""
        claim_ms = self.now_ms + 30_000
        task = row(self.task(in_ms=due_in_ms), rev=1, attempt=1, claim_ms=claim_ms, claim_boot=boot, epoch=EPOCH - 1)
        self.read(task)
        return task

    # --- events

    def apply(self, event: Event) -> list[Effect]:
        self.effects = self.shard.apply(event, self.now_ms)
        self.answers.extend(effect for effect in self.effects if isinstance(effect, Answer))
        return self.effects

    def hint(self, *tasks: Task, late_ms: int = 0, epoch: int = EPOCH) -> None:
        self.apply(Submitted(list(tasks), self.now_ms - late_ms, epoch))

    def read(self, *tasks: Task) -> None:
        """The tables show these rows."""
        self.apply(Probed(list(tasks), self.now_ms))

    def tick(self, after_ms: int = 0) -> None:
        self.now_ms += after_ms
        self.apply(Ticked())

    def start(self, *tasks: Task) -> None:
        self.apply(Started(list(tasks)))

    def hand_out(self, *tasks: Task) -> None:
        self.apply(HandedOut(list(tasks)))

    def end(self, task: Task, verdict: Verdict = Verdict.SUCCEEDED, **outcome: object) -> None:
        self.apply(Ended([self.outcome(task, verdict, **outcome)]))

    def outcome(self, task: Task, verdict: Verdict = Verdict.SUCCEEDED, **outcome: object) -> Outcome:
        what = Outcome(task, task.epoch, task.attempt, verdict, task.started_ms, self.now_ms)
        for name, value in outcome.items():
            setattr(what, name, value)
        return what

    def record(self, *records: Record) -> None:
        """The ledger committed these records (those that the last event led to)."""
        self.apply(Recorded(list(records) or self.records))

    def refuse(self, record: Record, found: Found) -> None:
        self.apply(Refused([record], [found]))

    def ask(self, task: Task, move: Move, **what: object) -> Command:
        command = self.command(task, move, **what)
        self.apply(Asked([command]))
        return command

    def command(self, task: Task, move: Move, **what: object) -> Command:
        command = Command(move, task.id, token=object())
        for name, value in what.items():
            setattr(command, name, value)
        return command

    def close(self) -> None:
        self.apply(Close())

    def see(self, *boots: str) -> None:
        """These boots live."""
        self.apply(Living(frozenset(boots)))

    def look(self, *pairs: tuple[Command, Found]) -> None:
        self.apply(Looked([command for command, _ in pairs], [found for _, found in pairs]))

    # --- what the last event led to

    @property
    def offers(self) -> list[Task]:
        return [task for effect in self.effects if isinstance(effect, Offer) for task in effect.tasks]

    @property
    def made_ready(self) -> list[Task]:
        return [task for effect in self.effects if isinstance(effect, Ready) for task in effect.tasks]

    @property
    def records(self) -> list[Record]:
        return [record for effect in self.effects if isinstance(effect, Write) for record in effect.records]

    @property
    def pages(self) -> list[Page]:
        return [effect.page for effect in self.effects if isinstance(effect, Load)]

    @property
    def finds(self) -> list[Command]:
        return [command for effect in self.effects if isinstance(effect, Find) for command in effect.commands]

    @property
    def changes(self) -> list[Change]:
        return [change for effect in self.effects if isinstance(effect, Publish) for change in effect.changes]

    @property
    def parted(self) -> int:
        """How often it said so."""
        return sum(isinstance(effect, Parted) for effect in self.effects)

    @property
    def forwarded(self) -> list[Outcome]:
        return [outcome for effect in self.effects if isinstance(effect, Forward) for outcome in effect.outcomes]

    def answer(self, command: Command) -> Answer | None:
        """The answer to this command, so far; there is never a second one."""
        answers = [answer for answer in self.answers if answer.token is command.token]
        assert len(answers) <= 1
        return answers[0] if answers else None

    def error(self, command: Command) -> Exception | None:
        answer = self.answer(command)
        assert answer is not None
        return answer.error

    def holds(self, task: Task) -> bool:
        return self.shard.holding.known.get(task.id) is task


def row(task: Task, *, rev: int | None = None, due_ms: int | None = None, **rest: object) -> Task:
    """A fresh task that mirrors this one's row, but for what is named."""
    fresh = Task(
        task.id,
        task.shard,
        task.queue,
        task.schedule_ms,
        task.due_ms if due_ms is None else due_ms,
        task.accept_us,
        task.spec,
        payload_bytes=task.payload_bytes,
        budget=task.budget,
        rev=task.rev if rev is None else rev,
        attempt=task.attempt,
        lateness_ms=task.lateness_ms,
        claim_ms=task.claim_ms,
        claim_boot=task.claim_boot,
    )
    for name, value in rest.items():
        setattr(fresh, name, value)
    return fresh


def live(task: Task, epoch: int = EPOCH) -> Found:
    """The tables say that this row is live."""
    return Found(task.id, task, None, epoch)


def over(task: Task, state: State = State.SUCCEEDED, epoch: int = EPOCH) -> Found:
    """The tables say that this row is finished."""
    return Found(task.id, task, state, epoch)


def nowhere(task: Task) -> Found:
    """The tables know nothing of it."""
    return Found(task.id, None, None)
