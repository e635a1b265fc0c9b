"""Commands of clients on one task: what is legal is read from the table of moves (`task.py`), and answered once."""

from actors.core.errors import Conflict, Overloaded, Unavailable, Unknown
from actors.core.events import Answer, Command, Effect, Found, Op, Outcome, Record, Verdict
from actors.core.holding import Holding
from actors.core.settle import finish, record, retry_of, settle
from actors.core.task import MOVES, TERMINAL, Move, Phase, State, Task, after

WAITING = 64
"""Commands that may wait for one record of one task."""
COMPLETIONS = frozenset({Move.SUCCEED, Move.RETRY, Move.DIE})


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

    def decide(
        self, task: Task, command: Command, epoch: int, now_ms: int, records: list[Record], effects: list[Effect]
    ) -> None:
        """Turn the command on a task in memory into a record, or refuse it."""
        if task.queue.tenant != command.tenant:
            effects.append(Answer(command.token, error=Unknown(command.id)))
            return
        state = State.RUNNING if task.phase is Phase.RUNNING or task.claim_ms is not None else State.SCHEDULED
        try:
            decided = self._record(task, state, command, epoch, now_ms)
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
        if found.task is None or found.task.queue.tenant != command.tenant:
            effects.append(Answer(command.token, error=Unknown(command.id)))
        elif found.state is not None and found.state in TERMINAL:
            self._decide_finished(found.task, found.state, command, epoch, now_ms, records, effects)
        else:
            found.task.phase = Phase.RUNNING if found.task.claim_ms is not None else Phase.GONE
            self.decide(found.task, command, epoch, now_ms, records, effects)
            if found.task.phase is Phase.WRITING:
                self._holding.adopt(found.task)

    @staticmethod
    def overruled(refused: Record) -> list[Effect]:
        """The command's record was refused: somebody else wrote the task first."""
        if refused.token is None:
            return []
        return [Answer(refused.token, error=Unavailable("the task changed hands; try again"))]

    def _record(self, task: Task, state: State, command: Command, epoch: int, now_ms: int) -> Record:
        move = command.move
        if move in COMPLETIONS:
            return settle(task, _completion(task, state, command), epoch, now_ms)
        to = after(state, move)
        if move is Move.CANCEL:
            return finish(task, epoch, move, now_ms, state)
        due_ms = now_ms if command.due_ms is None else max(command.due_ms, now_ms)
        moved = record(task, epoch, Op.MOVE, to, now_ms, due_ms)
        if move is Move.RESCHEDULE:
            moved.schedule_ms = due_ms
        return moved

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
            detail = f"a task that is {state.value} can't {command.move.value}"
            effects.append(Answer(command.token, error=Conflict(detail, state.value)))
        else:
            records.append(_redrive(task, command, epoch, now_ms))
            task.phase = Phase.WRITING
            self._holding.adopt(task)


def _completion(task: Task, state: State, command: Command) -> Outcome:
    """The outcome that came from outside, bound to the running attempt; its fence must be the current one."""
    outcome = command.outcome
    assert outcome is not None
    if state is not State.RUNNING:
        raise Conflict("the task is not running", state.value)
    if (outcome.epoch, outcome.attempt) != (task.epoch, task.attempt):
        raise Conflict("the fence is not that of the current attempt", state.value)
    outcome.task = task
    outcome.started_ms = task.started_ms or outcome.started_ms
    if command.move is Move.SUCCEED:
        outcome.verdict = Verdict.SUCCEEDED
    elif command.move is Move.DIE:
        outcome.verdict = Verdict.NEVER
    return outcome


def _redrive(task: Task, command: Command, epoch: int, now_ms: int) -> Record:
    again = record(task, epoch, Op.REDRIVE, State.SCHEDULED, now_ms, now_ms)
    again.budget = task.attempt + retry_of(task.spec, task.queue).max_attempts
    again.token = command.token
    return again
