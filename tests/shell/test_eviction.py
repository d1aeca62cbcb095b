# mypy: no-warn-unused-ignores, disable-error-code="arg-type"
"""The eviction order: who leaves, who stays, and what it costs to find out."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemesh.shell.eviction import MAX_VISITS, Resident, S3Fifo, _Queue

if TYPE_CHECKING:
    from collections.abc import Iterable

TRACE = Path(__file__).parents[3] / "shared" / "traces" / "cloudphysics-first-half.csv.gz"


class Table:
    """A table as the shell keeps one, with every promise of `S3Fifo` checked on the way."""

    def __init__(self, capacity: int | None) -> None:
        self.capacity = capacity
        self.order = S3Fifo(capacity)
        self.residents: dict[str, Resident] = {}
        self.evicted: list[str] = []

    def request(self, key: str) -> bool:
        """Whether `key` was a hit; a miss puts it in."""
        resident = self.residents.get(key)
        if resident is not None:
            if resident.visits < MAX_VISITS:
                resident.visits += 1
            return True

        resident = Resident(key.upper(), 0.0, 60.0, 60.0, key, self.residents)
        self.residents[key] = resident
        victims = self.order.admit(resident, len(self.residents))
        for victim in victims:
            assert self.residents.get(victim.key) is victim, "a victim is alive, and named once"
            assert victim is not resident or self.capacity == 0, "the newcomer stays"
            del self.residents[victim.key]
            self.evicted.append(victim.key)
        assert self.capacity is None or len(self.residents) <= self.capacity
        return False

    def request_all(self, keys: Iterable[str]) -> int:
        """How many of `keys` were hits."""
        return sum(self.request(key) for key in keys)

    def queued(self) -> int:
        """How many residents the queues hold on to, dead ones included."""
        queues = (self.order._small, self.order._main)
        for queue in queues:
            assert queue.length == len(queue.swept) + len(queue.unswept)
        return sum(queue.length for queue in queues)


@pytest.mark.parametrize(
    ("capacity", "requests", "left"),
    [
        (0, "ab", ""),
        (1, "a", "a"),
        (1, "ab", "b"),
        (1, "aaaab", "b"),
        (1, "abab", "b"),
        (2, "abc", "bc"),
        (2, "aaabc", "ac"),
        (2, "abcd", "cd"),
        (3, "abcd", "bcd"),
        (3, "aaabcd", "acd"),
        (3, "abbbcd", "bcd"),
        (10, "abcdefghij", "abcdefghij"),
        (10, "abcdefghijk", "bcdefghijk"),
        (10, "aaabcdefghijk", "acdefghijk"),
        (None, "abcdefghijk", "abcdefghijk"),
    ],
)
def test_who_is_left(capacity: int | None, requests: str, left: str) -> None:
    """Until the first eviction the small queue holds a tenth (one at least), the main queue the rest."""
    table = Table(capacity)
    table.request_all(requests)

    assert left == "".join(sorted(table.residents))


def test_a_key_that_returns_soon_is_not_evicted_with_the_newcomers() -> None:
    """A key that meets its ghost goes to the main queue, and a scan does not reach it there."""
    table = Table(10)
    table.request_all("abcdefghij")
    table.request("k")
    assert table.evicted == ["a"]
    table.request("a")
    table.request_all(f"scan {number}" for number in range(1_000))

    assert "a" in table.residents


def test_an_old_ghost_is_no_ghost() -> None:
    """After more evictions than there are ghosts, a key that returns is a newcomer."""
    table = Table(10)
    table.request_all("abcdefghijk")
    table.request_all(f"scan {number}" for number in range(1_000))
    table.request("a")
    table.request_all(f"another scan {number}" for number in range(100))

    assert "a" not in table.residents


def test_hot_entries_survive_a_scan() -> None:
    """What was visited stays, however many keys pass by that nobody asks for twice."""
    hot = [f"hot {number}" for number in range(50)]
    table = Table(100)
    for _ in range(3):
        table.request_all(hot)
    table.request_all(f"scan {number}" for number in range(10_000))

    assert set(hot) <= set(table.residents)


def test_a_dead_resident_costs_no_eviction() -> None:
    """The place of an invalidated entry is free: the next one evicts nobody."""
    table = Table(10)
    table.request_all("abcdefghij")
    del table.residents["a"]
    table.request("k")

    assert table.evicted == []


def test_a_key_that_comes_back_from_the_dead_is_another_resident() -> None:
    """The dead resident of a key does not drag the live one out when its turn comes."""
    table = Table(3)
    table.request_all("abc")
    del table.residents["a"]
    table.request_all("ad")

    assert table.evicted == ["b"]


def test_unbounded_keeps_nothing() -> None:
    """Without a capacity there is nothing to order."""
    table = Table(None)
    table.request_all(map(str, range(1_000)))

    assert table.queued() == 0


def test_forget_all_forgets_the_ghosts_too() -> None:
    """After `forget_all` the order behaves like a new one."""
    forgetful, fresh = Table(10), Table(10)
    forgetful.request_all(map(str, range(100)))
    forgetful.order.forget_all()
    forgetful.residents.clear()
    forgetful.evicted.clear()
    assert forgetful.queued() == 0
    for table in (forgetful, fresh):
        table.request_all(map(str, range(80, 120)))

    assert fresh.evicted == forgetful.evicted


def test_one_order_may_rule_several_tables() -> None:
    """A resident lives where its own home says, even if another home has the same key."""
    order = S3Fifo(2)
    homes: list[dict[str, Resident]] = [{}, {}, {}]
    for home in homes:
        home["a"] = Resident("A", 0.0, 60.0, 60.0, "a", home)
        for victim in order.admit(home["a"], sum(map(len, homes))):
            del homes[homes.index(victim.home)][victim.key]  # type: ignore[arg-type]

    assert [len(home) for home in homes] == [0, 1, 1]


REQUESTS = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.integers(0, 40)),
        st.tuples(st.just("invalidate"), st.integers(0, 40)),
        st.tuples(st.just("drop the first"), st.integers(0, 40)),
    ),
    max_size=400,
)


@given(capacity=st.sampled_from([0, 1, 2, 3, 10, 20]), steps=REQUESTS)
def test_always_within_capacity_with_live_victims_named_once(capacity: int, steps: list[tuple[str, int]]) -> None:
    """`Table` checks every victim; and whoever is alive is still queued, exactly once."""
    table = Table(capacity)
    for what, number in steps:
        if what == "request":
            table.request(str(number))
        elif what == "invalidate":
            table.residents.pop(str(number), None)
        else:
            for key in list(table.residents)[:number]:
                del table.residents[key]

    queued = [
        resident
        for queue in (table.order._small, table.order._main)
        for resident in (*queue.swept, *queue.unswept)
        if table.residents.get(resident.key) is resident
    ]
    assert len(queued) == len(table.residents)
    assert {id(resident) for resident in queued} == {id(resident) for resident in table.residents.values()}
    assert table.queued() == sum(len(q.swept) + len(q.unswept) for q in (table.order._small, table.order._main))


@given(alive=st.lists(st.booleans(), max_size=60), strides=st.lists(st.integers(0, 9), max_size=30))
def test_sweeping_never_changes_the_order_of_the_living(alive: list[bool], strides: list[int]) -> None:
    """However far the sweeps get, each living one leaves in the order in which it came."""
    home: dict[str, Resident] = {}
    queue = _Queue()
    for number, lives in enumerate(alive):
        resident = Resident("", 0.0, 60.0, 60.0, str(number), home)
        queue.unswept.append(resident)
        queue.length += 1
        if lives:
            home[resident.key] = resident
    for stride in strides:
        queue.sweep(stride)

    left = [resident.key for resident in (*queue.swept, *queue.unswept)]
    assert queue.length == len(left)
    assert list(home) == [key for key in left if key in home]


@pytest.mark.parametrize("live", [1, 10, 1_000])
def test_the_dead_never_pile_up(live: int) -> None:
    """Under endless inserting and invalidating the queues stay in proportion to the living."""
    table = Table(100_000)
    longest = 0
    for number in range(20_000 + 10 * live):
        table.request(str(number))
        table.residents.pop(str(number - live), None)
        longest = max(longest, table.queued())

    assert longest <= 2 * live + 200


def test_a_dropped_partition_is_let_go() -> None:
    """After a mass death a few hundred admissions are enough to free the dead."""
    table = Table(100_000)
    table.request_all(f"old {number}" for number in range(20_000))
    table.residents.clear()
    table.request_all(f"new {number}" for number in range(500))

    assert table.queued() <= 1_000


def test_a_queue_full_of_visited_does_not_stall() -> None:
    """Mercy ends: one admission looks at a bounded number of residents."""
    table = Table(50_000)
    for _ in range(4):
        table.request_all(map(str, range(50_000)))
    before = table.order._main.length
    table.request("newcomer")

    assert len(table.evicted) == 1
    assert table.order._main.length >= before - 1
    assert sum(resident.visits == MAX_VISITS for resident in table.residents.values()) >= 50_000 - 3_000


def test_behind_a_long_run_of_dead_the_newcomer_gives_way() -> None:
    """More dead at the front than one admission may step over: no stall, and nobody else leaves."""
    home: dict[str, Resident] = {}
    order = S3Fifo(100_000)
    for number in range(100_000):
        home[str(number)] = Resident("", 0.0, 60.0, 60.0, str(number), home)
        order.admit(home[str(number)], len(home))
    for number in range(50_000):
        del home[str(number)]
    newcomer = home["newcomer"] = Resident("", 0.0, 60.0, 60.0, "newcomer", home)

    assert order.admit(newcomer, live=100_001) == [newcomer]


@pytest.mark.skipif(not TRACE.exists(), reason="the trace is not part of the package")
@pytest.mark.parametrize("share", [0.01, 0.1])
def test_hits_as_often_as_the_reference(share: float) -> None:
    """Within half a point of libCacheSim's S3-FIFO on a real trace."""
    libcachesim = pytest.importorskip("libcachesim")
    with gzip.open(TRACE, "rt") as lines:
        keys = [row["key"] for row in csv.DictReader(lines)]
    capacity = int(len(set(keys)) * share)
    reference = libcachesim.S3FIFO(capacity)
    expected = sum(reference.get(libcachesim.Request(obj_id=int(key), obj_size=1)) for key in keys)

    assert 100 * Table(capacity).request_all(keys) / len(keys) == pytest.approx(100 * expected / len(keys), abs=0.5)
