"""Which result a refused frame is blamed on."""

from ringwheel.doubt import Doubt
from ringwheel.frames import Result
from ringwheel.outbox import Outbox


def an_outbox(*said: str) -> tuple[Outbox, list[Result]]:
    outbox = Outbox()
    results = [Result(name, "l", ok=True) for name in said]
    for result in results:
        outbox.put(result)
    outbox.take()
    return outbox, results


def test_each_result_without_an_answer_is_tried_alone() -> None:
    outbox, (one, two, three) = an_outbox("one", "two", "three")
    outbox.put(Result("not said yet", "l", ok=True))
    doubt = Doubt(outbox)
    assert doubt.refused() is None
    assert (doubt.next(), doubt.next()) == ([], None), "only stop, and once"
    assert doubt.refused() is None, "another frame from before"
    doubt.stopped()
    assert (doubt.next(), doubt.next()) == ([one], None)
    doubt.stopped()
    assert doubt.next() == [two]
    assert doubt.refused() is two
    assert doubt.refused() is None, "once"
    outbox.recorded(["three"])
    assert doubt.open
    doubt.stopped()
    assert (doubt.open, doubt.found) == (False, True), f"{three.id} had its answer meanwhile"


def test_where_no_result_is_under_way_nothing_is_to_blame() -> None:
    doubt = Doubt(Outbox())
    for _ in range(2):
        assert doubt.refused() is None
        assert doubt.next() == []
        doubt.stopped()
        assert (doubt.open, doubt.found) == (False, False)
