"""Commands of clients on one task: what is legal is read from the table of moves (`task.py`), and answered once."""

from actors.core.errors import Conflict, Overloaded, Unavailable, Unknown
from actors.core.events import Answer, Command, Effect, Found, Op, Outcome, Record, Reply, Verdict
from actors.core.holding import Holding
from actors.core.settle import finish, move, retry_of, settle, started_ms_of
from actors.core.task import MOVES, TERMINAL, Move, Phase, State, Task, after, refusal

WAITING = 64
"""Commands that may wait for one record of one task."""
COMPLETIONS = frozenset({Move.SUCCEED, Move.RETRY, Move.DIE})
"""An attempt's end that came from outside; its verdict says which."""
MOVES_OF = {Verdict.SUCCEEDED: Move.SUCCEED, Verdict.NEVER: Move.DIE}
"""Of an attempt's end that is told as a command; all others are RETRY: what becomes of the task, the verdict says."""


def as_command(outcome: Outcome, reply: Reply, tenant: str) -> Command:
    """A worker's report of an attempt that memory does not know as running: what the tables say decides."""
    move = MOVES_OF.get(outcome.verdict, Move.RETRY)
    return Command(move, reply.id, reply, outcome=outcome, tenant=tenant, reported=True)


class Commands:
    """Decides commands for one shard, and keeps those that wait for a record under way."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self.waiting: dict[str, list[Command]] = {}

    def wait(self, command: Command, effects: list[Effect]) -> None:
        """Decide this command once the record of its task is settled."""
        waiting = self.waiting.setdefault(command.id, [])
        if len(waiting) >= WAITING:
            effects.append(Answer(command.token, error=Overloaded("too many commands wait for this task")))
        else:
            waiting.append(command)

    def reported(self) -> list[Command]:
        """Reports among those that wait."""
        return [command for waiting in self.waiting.values() for command in waiting if command.reported]

    def recorded(self, records: list[Record], effects: list[Effect]) -> None:
        """Answer those that say again what these have recorded: where much is late, all of it is said again, and what
        had to be looked up for that would make it later.
        """
        for record in records:
            waiting = self.waiting.get(record.task.id, [])
            effects += [Answer(command.token, changed=False) for command in waiting if _says(command, record)]
            waiting[:] = [command for command in waiting if not _says(command, record)]

    def decide(
        self, task: Task, command: Command, epoch: int, now_ms: int, records: list[Record], effects: list[Effect]
    ) -> None:
        """Turn the command on a live task into a record, which makes it WRITING, or refuse it."""
        if task.queue.tenant != command.tenant:
            effects.append(Answer(command.token, error=Unknown(command.id)))
            return
        state = State.RUNNING if task.phase is Phase.RUNNING or task.claim_ms is not None else State.SCHEDULED
        if command.reported and state is not State.RUNNING and _was_recorded(task, task.epoch, None, command):
            effects.append(Answer(command.token, changed=False))
            return
        try:
            decided = _record(task, state, command, epoch, now_ms)
        except Conflict as error:
            effects.append(Answer(command.token, error=error))
            return
        decided.token = command.token
        self._holding.withdraw(task, Phase.WRITING)
        records.append(decided)

    def decide_found(
        self, found: Found, command: Command, epoch: int, now_ms: int, records: list[Record], effects: list[Effect]
    ) -> None:
        """The same for a task that was not in memory: it is far from due, finished, or not there."""
        task = found.task
        if task is None or task.queue.tenant != command.tenant:
            effects.append(Answer(command.token, error=Unknown(command.id)))
        elif command.reported and _was_recorded(task, found.epoch, found.state, command):
            effects.append(Answer(command.token, changed=False))
        elif found.state in TERMINAL:
            self._decide_finished(task, found.state, command, epoch, now_ms, records, effects)
        else:
            task.phase = Phase.GONE
            task.epoch = found.epoch
            self.decide(task, command, epoch, now_ms, records, effects)
            if task.phase is Phase.WRITING:
                self._holding.adopt(task)

    @staticmethod
    def overruled(refused: Record) -> list[Effect]:
        """The command's record was refused: somebody else wrote the task first."""
        if refused.token is None:
            return []
        return [Answer(refused.token, error=Unavailable("the task changed hands; try again"))]

    def _decide_finished(
        self,
        task: Task,
        state: State,
        command: Command,
        epoch: int,
        now_ms: int,
        records: list[Record],
        effects: list[Effect],
    ) -> None:
        to = MOVES.get((state, command.move))
        if to is state:
            effects.append(Answer(command.token, changed=False))
        elif to is None:
            effects.append(Answer(command.token, error=refusal(state, command.move)))
        else:
            records.append(_redrive(task, command, epoch, now_ms))
            self._holding.adopt(task)


def _record(task: Task, state: State, command: Command, epoch: int, now_ms: int) -> Record:
    """What the command makes of the live task; raises Conflict when it is not legal."""
    if command.move in COMPLETIONS:
        return settle(task, _completion(task, state, command), epoch, now_ms)
    to = after(state, command.move, leased=task.pulled)
    if to in TERMINAL:
        return finish(task, epoch, to, now_ms)
    due_ms = now_ms if command.due_ms is None else max(command.due_ms, now_ms)
    moved = move(task, epoch, to, now_ms, due_ms)
    if command.move is Move.RESCHEDULE:
        moved.schedule_ms = due_ms
    return moved


def _completion(task: Task, state: State, command: Command) -> Outcome:
    """The outcome that came from outside, bound to the running attempt; its fence must be the current one."""
    outcome = command.outcome
    assert outcome is not None
    if state is not State.RUNNING:
        raise Conflict("the task is not running", state.value)
    if (outcome.epoch, outcome.attempt) != (task.epoch, task.attempt):
        raise Conflict("the fence is not that of the current attempt", state.value)
    outcome.task = task
    outcome.started_ms = started_ms_of(task) or outcome.started_ms
    return outcome


def _says(command: Command, record: Record) -> bool:
    """Whether this report is of the attempt's end that was recorded."""
    said, outcome = command.outcome, record.outcome
    if not command.reported or said is None or outcome is None or command.tenant != record.task.queue.tenant:
        return False
    return _gist(said) == _gist(outcome)


def _gist(outcome: Outcome) -> tuple[object, ...]:
    return outcome.epoch, outcome.attempt, outcome.verdict, outcome.error, outcome.retry_after_ms


def _was_recorded(task: Task, epoch: int, ended: State | None, command: Command) -> bool:
    """Whether this report was recorded before: the task is what it would make of it, under the same fence."""
    outcome = command.outcome
    assert outcome is not None
    if (outcome.epoch, outcome.attempt) != (epoch, task.attempt):
        return False
    if outcome.verdict is Verdict.SUCCEEDED:
        return ended is State.SUCCEEDED
    return ended in (None, State.DEAD) and task.last[1] == outcome.error


def _redrive(task: Task, command: Command, epoch: int, now_ms: int) -> Record:
    """A new life: what counts from `schedule_ms` (ttl, retry duration, lateness) counts from now."""
    again = move(task, epoch, State.SCHEDULED, now_ms, now_ms, Op.REDRIVE)
    again.schedule_ms, again.lateness_ms = now_ms, None
    again.budget = task.attempt + retry_of(task.spec, task.queue).max_attempts
    again.token = command.token
    return again
