import typing
import uuid

import msgspec

from actors.core import events
from actors.core.events import LAST_ID, NO_ID, Answer, Change, Command, Effect, Event, Outcome, Verdict
from actors.core.queue import Queue
from actors.core.spec import Spec
from actors.core.task import Move, State, Task


def test_events_and_effects_do_not_overlap() -> None:
    happened, asked = set(typing.get_args(Event)), set(typing.get_args(Effect))
    assert happened
    assert asked
    assert not happened & asked


def test_no_event_or_effect_has_a_dict() -> None:
    """A typo in a field's name is an error."""
    nouns = {noun for noun in vars(events).values() if isinstance(noun, type) and issubclass(noun, msgspec.Struct)}
    assert nouns > {*typing.get_args(Event), *typing.get_args(Effect)}
    assert all(noun.__dictoffset__ == 0 for noun in nouns)


def test_every_id_lies_between_the_two_ends() -> None:
    assert NO_ID < str(uuid.UUID(int=1)) <= str(uuid.uuid4()) < LAST_ID
    assert str(uuid.UUID(NO_ID)) == NO_ID
    assert str(uuid.UUID(LAST_ID)) == LAST_ID


def test_an_outcome_without_dice_takes_the_middle() -> None:
    task = Task("id", 0, Queue(1, "default", "q"), 0, 0, 0, Spec())
    outcome = Outcome(task, 1, 1, Verdict.FAILED, 5, 6)
    assert (outcome.jitter, outcome.status, outcome.error, outcome.result) == (0.5, None, None, None)
    assert outcome.retry_after_ms is None


def test_a_command_belongs_to_a_tenant() -> None:
    command = Command(Move.CANCEL, "id", token=None)
    assert (command.tenant, command.due_ms, command.outcome) == ("default", None, None)


def test_an_answer_is_a_change_unless_it_says_so() -> None:
    change = Change("id", Queue(1, "default", "q"), State.CANCELLED, 0, 2, 5, 0, 0, None, None, None, None)
    assert Answer("token", change).changed
    assert Answer("token", change, changed=False).error is None
