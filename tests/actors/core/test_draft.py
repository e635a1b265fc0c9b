from actors.core.draft import Draft, Receipt
from actors.core.queue import Queue
from actors.core.spec import Spec
from actors.core.task import State


def test_a_draft_asks_for_now_and_nothing_else() -> None:
    queue, spec = Queue(1, "default", "q"), Spec()
    draft = Draft(queue, spec)
    assert (draft.queue, draft.spec) == (queue, spec)
    rest = (draft.schedule_ms, draft.delay_ms, draft.payload, draft.labels, draft.key, draft.key_hash, draft.ring_key)
    assert rest == (None,) * 7
    assert not hasattr(draft, "__dict__")


def test_a_draft_keeps_what_it_is_given() -> None:
    draft = Draft(
        Queue(1, "default", "q"), Spec(), schedule_ms=5, payload=b"1", labels="{}", key="k", key_hash=b"h", ring_key="r"
    )
    assert draft.trace is None
    draft.trace = "00-a-b-01"
    assert draft.trace == "00-a-b-01"
    rest = (draft.schedule_ms, draft.payload, draft.labels, draft.key, draft.key_hash, draft.ring_key)
    assert rest == (5, b"1", "{}", "k", b"h", "r")


def test_a_receipt() -> None:
    assert Receipt("id", 3, State.SCHEDULED, new=True) == Receipt("id", 3, State.SCHEDULED, new=True)
