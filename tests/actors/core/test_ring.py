import os
import random
import subprocess
import sys
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.ring import Ring, limit, moves

names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12, unique=True)
shard_counts = st.sampled_from([1, 2, 3, 16, 64, 256])


def cluster(nodes: int) -> list[str]:
    return [f"node-{number}" for number in range(nodes)]


def loads(ring: Ring) -> list[int]:
    return [len(ring.shards_of(name)) for name in ring.nodes]


def test_no_node_no_owner() -> None:
    ring = Ring([], 256)
    assert ring.owner(0) is None
    assert ring.shards_of("node-0") == []
    assert ring.nodes == ()


def test_one_node_owns_all() -> None:
    assert Ring(["a"], 256).shards_of("a") == list(range(256))


@pytest.mark.parametrize("nodes", range(1, 51))
def test_load_is_bounded_and_every_shard_is_owned(nodes: int) -> None:
    ring = Ring(cluster(nodes), 256)
    assert sum(loads(ring)) == 256
    assert max(loads(ring)) <= limit(nodes, 256)


@given(names, shard_counts)
def test_load_is_bounded_for_any_names(nodes: list[str], shards: int) -> None:
    ring = Ring(nodes, shards)
    owned = [shard for name in nodes for shard in ring.shards_of(name)]
    assert sorted(owned) == list(range(shards))
    assert all(ring.owner(shard) == name for name in nodes for shard in ring.shards_of(name))
    assert max(loads(ring)) <= limit(len(nodes), shards)


def test_limit() -> None:
    assert limit(1, 256) == 282
    assert limit(5, 256) == 57
    assert limit(10, 100) == 11
    assert limit(50, 1) == 1


@given(names, st.randoms(use_true_random=False))
def test_order_and_doubles_do_not_matter(nodes: list[str], rng: random.Random) -> None:
    shuffled = [*nodes, nodes[0]]
    rng.shuffle(shuffled)
    assert moves(Ring(nodes, 64), Ring(shuffled, 64)) == []


TABLE = "print([ring.owner(shard) for ring in [Ring(['a', 'b', 'c', 'd', 'e'], 256)] for shard in range(256)])"


def test_the_table_is_the_same_in_every_process_and_version() -> None:
    program = f"from actors.core.ring import Ring; {TABLE}"
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    ring = Ring(["e", "d", "c", "b", "a"], 256)
    table = str([ring.owner(shard) for shard in range(256)])
    assert done.stdout.strip() == table
    assert blake2b(table.encode(), digest_size=8).hexdigest() == "e02a0cb33808014a"


def test_moves_names_each_shard_with_both_sides() -> None:
    old, new = Ring(["a", "b"], 16), Ring(["b", "c"], 16)
    moved = moves(old, new)
    assert [shard for shard, _, _ in moved] == sorted({shard for shard, _, _ in moved})
    table = {shard: old.owner(shard) for shard in range(16)}
    for shard, source, target in moved:
        assert source != target
        assert table[shard] == source
        table[shard] = target
    assert table == {shard: new.owner(shard) for shard in range(16)}


def test_moves_from_and_to_nobody() -> None:
    nobody, one = Ring([], 3), Ring(["a"], 3)
    assert moves(nobody, one) == [(0, None, "a"), (1, None, "a"), (2, None, "a")]
    assert moves(one, nobody) == [(0, "a", None), (1, "a", None), (2, "a", None)]
    assert moves(nobody, nobody) == []


@pytest.mark.parametrize("nodes", range(2, 51))
def test_one_node_more_or_less_moves_few_shards(nodes: int) -> None:
    # Beyond ten nodes the limit is a small number; where one node more lowers it, every full node sheds a shard.
    whole = Ring(cluster(nodes), 256)
    for leaver in range(0, nodes, 5):
        rest = Ring([name for name in whole.nodes if name != f"node-{leaver}"], 256)
        moved = len(moves(whole, rest))
        assert moved == len(moves(rest, whole))
        if nodes <= 10:
            assert moved <= 1.5 * 256 / nodes
        else:
            shed = nodes * (limit(nodes - 1, 256) - limit(nodes, 256))
            assert moved <= 3.5 * 256 / nodes + shed
