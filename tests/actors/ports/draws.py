"""What the random steps are drawn from."""

from hypothesis import strategies as st

from actors.core.events import Op, Verdict
from actors.core.task import State
from tests.actors.ports.steps import (
    BOOTS,
    NUMBERS,
    QUEUES,
    SHARDS,
    TERMINAL,
    Accept,
    AcceptKeyed,
    BeatOnce,
    Condemn,
    Depart,
    Draw,
    DropDays,
    Find,
    Get,
    Give,
    Join,
    Leave,
    Load,
    PageDraw,
    ReadPage,
    RecordDraw,
    Step,
    Sweep,
    Write,
)
from tests.support.builders import HASH, LABELS, OTHER_HASH

_number = st.sampled_from(NUMBERS)
_shard = st.sampled_from(SHARDS)
_boot = st.sampled_from(BOOTS)
_mortal = st.sampled_from(BOOTS[:2])
_writer = st.sampled_from([None, None, None, None, None, None, *BOOTS])
_queue = st.sampled_from(range(len(QUEUES)))
_tenant = st.sampled_from(["default", "acme"])
_offset = st.integers(0, 3)
_limit = st.integers(1, 4)
_mostly_right = st.sampled_from([0] * 12 + [1, -1])
_draws = st.lists(
    st.builds(
        Draw,
        _number,
        _queue,
        _offset,
        st.sampled_from([None, b"body"]),
        st.sampled_from([None, LABELS]),
        st.sampled_from([HASH, HASH, OTHER_HASH]),
    ),
    min_size=1,
    max_size=5,
)
_records = st.lists(
    st.builds(
        RecordDraw,
        _number,
        st.sampled_from(Op),
        st.sampled_from([True, True, True, True, False]),
        st.sampled_from(TERMINAL),
        _mostly_right,
        _mostly_right,
        _offset,
        st.sampled_from([None, Verdict.SUCCEEDED, Verdict.FAILED, Verdict.NEVER]),
        st.sampled_from([10, 499, 500]),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda draw: draw.number,
)
_place = st.none() | st.tuples(_offset, _number)
_write = st.builds(Write, _writer, _records)
_writing: st.SearchStrategy[Step] = st.one_of(st.builds(AcceptKeyed, _draws), st.builds(Accept, _draws), _write, _write)
_leasing: st.SearchStrategy[Step] = st.one_of(
    st.builds(Join, _boot),
    st.builds(BeatOnce, _boot),
    st.builds(Condemn, _mortal, _mostly_right),
    st.builds(Sweep, _boot, st.fixed_dictionaries(dict.fromkeys(SHARDS, _mostly_right))),
    st.builds(Sweep, _boot, st.fixed_dictionaries(dict.fromkeys(SHARDS, _mostly_right))),
    st.builds(Leave, _mortal),
    st.builds(Depart, _mortal),
    st.builds(Give, _writer, st.fixed_dictionaries(dict.fromkeys(SHARDS, st.tuples(_mostly_right, _boot)))),
    st.builds(Give, st.none(), st.dictionaries(_shard, st.tuples(_mostly_right, _boot))),
)
_reading: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        Load,
        st.lists(
            st.builds(
                PageDraw,
                _shard,
                st.none() | _queue,
                _place,
                _offset,
                _limit,
                _limit,
                st.none() | st.tuples(_queue, _offset),
            ),
            min_size=1,
            max_size=3,
        ),
    ),
    st.builds(Find, st.none() | _tenant, st.lists(_number, max_size=4)),
    st.builds(Get, _tenant, _number, st.booleans()),
    st.builds(
        ReadPage,
        _tenant,
        st.sampled_from([None, "q0", "q1", "q9"]),
        st.lists(st.sampled_from([State.SCHEDULED, *TERMINAL]), unique=True, min_size=1),
        _place,
        _limit,
        st.booleans(),
    ),
    st.builds(DropDays, st.integers(0, 3)),
)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(_writing, _writing, _leasing, _reading), min_size=10, max_size=40
)
