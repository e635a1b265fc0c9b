import random
from datetime import datetime
from time import time

from actors.core.ids import keyed_id, shard_of
from bench.pulse import LEAD_MS, PERIOD_MS, PROBED, TENANT, Pulse, pauses_ms
from bench.scripted import Call
from bench.traffic import Plan
from bench.work import SHARDS

IN_SHARD = "00000000-0000-0000-0000-00000000{:02x}00"


def calls(*seen: tuple[float, int]) -> list[Call]:
    return [Call(at_ms, f"1.{epoch}.1", 1) for at_ms, epoch in seen]


def test_each_shard_has_its_turn_at_an_even_pace() -> None:
    pulse = Pulse(Plan("http://there", {"ok": 1}, 0.0, queue="pulse"), list)
    begin_ms = time() * 1e3
    items = [pulse._item("ok", random.Random(0)) for _ in range(2 * len(PROBED))]
    keys = [str(item["idempotency_key"]) for item in items]
    assert len(set(keys)) == len(keys)
    assert [shard_of(keyed_id(TENANT, key, "pulse", None), SHARDS) for key in keys] == 2 * list(PROBED)
    due_ms = [datetime.fromisoformat(str(item["schedule_time"])).timestamp() * 1e3 for item in items]
    assert len(set(due_ms[: len(PROBED)])) == 1
    assert due_ms[0] >= begin_ms + LEAD_MS - 1
    assert abs(due_ms[-1] - due_ms[0] - PERIOD_MS) <= 1


def test_a_pause_is_from_the_last_call_of_the_old_owner_to_the_first_of_the_new() -> None:
    first, second, other = IN_SHARD.format(8), IN_SHARD.format(9), "of nobody's pulse"
    seen = {
        f"{first[:-4]}0801": calls((0.0, 1)),
        f"{first[:-4]}0802": calls((100.0, 1)),
        f"{first[:-4]}0803": calls((350.0, 2), (900.0, 2)),
        f"{first[:-4]}0804": calls((360.0, 1)),
        second: calls((100.0, 7), (600.0, 7)),
        other: calls((0.0, 1), (5_000.0, 3)),
    }
    ids = dict.fromkeys(seen.keys() - {other}, "ok")
    assert pauses_ms(seen, ids) == [250.0]
    assert pauses_ms({}, ids) == []
