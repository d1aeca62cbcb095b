"""`RedisStore` on a real server: fences, leases, marks, names, damage, time limits, what goes wrong."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import pickle
import random
import time
from typing import TYPE_CHECKING, Any, Final

import pytest
import redis
import redis.asyncio as aio
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from cachemesh.core.scopes import GLOBAL_OWNER, SESSION_OWNER, CacheScope, Owner
from cachemesh.shell.ports import Encoded, StoredEntry
from cachemesh.stores.redis import RedisStore, ServerRefusedError, ServerTooSlowError, ServerUnreachableError
from cachemesh.stores.redis.layout import HEADER_SIZE, Layout, escaped, header_of, part
from cachemesh.stores.redis.source import source_of
from cachemesh.stores.redis.sweep import Sweeper
from cachemesh.stores.report import Level
from tests.stores.servers import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.stores.proxy import Proxy

ALICE: Final[Owner] = (CacheScope.USER, "alice")
BOB: Final[Owner] = (CacheScope.USER, "bob")


def entry(key: str = "k", value: object = 1, *, owner: Owner = GLOBAL_OWNER, **fields: Any) -> StoredEntry:
    made = StoredEntry(owner, key, Encoded(repr(value).encode()), False, 1_000.0, 60.0, 1_060.0)  # noqa: FBT003 (a success)
    return structs.replace(made, **fields)


def run(url: str, act: Callable[[RedisStore], Awaitable[None]], **settings: Any) -> None:
    """Run `act` on a store at `url`, in an event loop of its own."""

    async def acting() -> None:
        store = RedisStore(url, **settings)
        try:
            await act(store)
        finally:
            await store.aclose()

    asyncio.run(acting())


async def value(store: RedisStore, key: str = "k", owner: Owner = GLOBAL_OWNER) -> bytes | None:
    found = await store.read(owner, key)
    return None if found is None else found.value.payload


# Fences


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("was_there", [True, False])
@pytest.mark.parametrize("change", ["delete", "write", "clear_partition", "clear", "tag", "flushall", "evicted"])
def test_what_was_removed_during_a_fetch_is_not_stored_after_it(
    server: Server, change: str, was_there: bool, waits: bool
) -> None:
    async def act(store: RedisStore) -> None:
        other = RedisStore(server.url)
        if was_there:
            await store.write(entry(value="old"))
        claim = await store.claim(GLOBAL_OWNER, "k", waits=waits)
        if change == "delete":
            await other.delete(GLOBAL_OWNER, "k")
        elif change == "write":
            await other.write(entry(value="new"))
        elif change == "clear_partition":
            await other.clear_partition(GLOBAL_OWNER)
        elif change == "clear":
            await other.clear()
        elif change == "tag":
            await other.mark_tag(None, "t", None)
        elif change == "flushall":
            server.empty()
        else:
            with server.client() as client:
                client.delete(Layout("cachemesh").entry(GLOBAL_OWNER, "k"))
        await store.commit(entry(value="fetched", tags=("t",)), claim)
        assert await value(other) == (b"'new'" if change == "write" else None)
        assert await value(store) == (b"'new'" if change == "write" else None)
        await other.aclose()

    run(server.url, act)


def test_a_commit_is_of_the_generation_of_its_claim_and_removals_make_it_grow(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        seen = [(await store.claim(GLOBAL_OWNER, "x", waits=False)).generation]
        for change in (
            store.write(entry()),
            store.delete(GLOBAL_OWNER, "k"),
            store.clear_partition(ALICE),
            store.mark_tag(None, "t", None),
            store.mark_tag(ALICE, "t", 5.0),
            store.clear(),
        ):
            await change
            seen.append((await store.claim(GLOBAL_OWNER, "x", waits=False)).generation)
        assert seen == sorted(set(seen))
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert await store.commit(entry(), claim)
        found = await store.read(GLOBAL_OWNER, "k")
        assert found is not None
        assert found.generation == claim.generation == seen[-1]

    run(server.url, act)


def test_marks_concern_what_they_name_and_nothing_else(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        for owner in (ALICE, BOB, GLOBAL_OWNER):
            await store.write(entry(owner=owner, tags=("t",)))
            await store.write(entry("other", owner=owner))
        await store.mark_tag(ALICE, "t", None)
        await store.mark_tag(BOB, "t", 1_010.0)
        assert await store.read(ALICE, "k") is None
        stale = await store.read(BOB, "k")
        assert stale is not None
        assert (stale.expires_at, stale.ttl_s) == (1_010.0, 10.0)
        assert await value(store) == b"1"
        await store.mark_tag(None, "t", None)
        assert [await store.read(owner, "k") for owner in (ALICE, BOB, GLOBAL_OWNER)] == [None] * 3
        others = await store.read_many([(owner, "other") for owner in (ALICE, BOB, GLOBAL_OWNER)])
        assert [found and found.owner for found in others] == [ALICE, BOB, GLOBAL_OWNER]
        await store.write(entry(owner=ALICE, tags=("t",)))
        assert await value(store, owner=ALICE) == b"1"

    run(server.url, act)


def test_a_store_that_begins_later_knows_the_marks(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry(tags=("t",)))
        await store.write(entry("soft", tags=("s",)))
        await store.mark_tag(None, "t", None)
        await store.mark_tag(None, "s", 1_001.0)
        later = RedisStore(server.url)
        assert await later.read(GLOBAL_OWNER, "k") is None
        soft = await later.read(GLOBAL_OWNER, "soft")
        assert soft is not None
        assert soft.expires_at == 1_001.0
        await later.aclose()

    run(server.url, act)


def test_more_marks_than_are_kept_count_for_everything_that_is_as_old(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cachemesh.stores.redis.store.MOST_MARKS", 10)

    async def act(store: RedisStore) -> None:
        await store.write(entry("old"))
        for number in range(11):
            await store.mark_tag(None, f"t{number}", None)
        await store.write(entry("new"))
        later = RedisStore(server.url)
        assert await later.read(GLOBAL_OWNER, "old") is None
        assert await value(later, "new") == b"1"
        assert await value(store, "new") == b"1"
        with server.client() as client:
            assert client.zcard(Layout("cachemesh").counter[2]) <= 10
        await later.aclose()

    run(server.url, act)


def test_marks_that_the_server_has_evicted_make_everything_doubtful(server: Server) -> None:
    """What they were about must not come back."""

    async def act(store: RedisStore) -> None:
        await store.write(entry(tags=("t",)))
        await store.mark_tag(None, "t", None)
        with server.client() as client:
            client.delete(Layout("cachemesh").counter[2])
        later = RedisStore(server.url)
        assert await later.read(GLOBAL_OWNER, "k") is None
        await later.write(entry())
        assert await value(later) == b"1"
        assert await value(store) == b"1"
        await later.aclose()

    run(server.url, act)


@pytest.mark.parametrize("lost", ["head", "meta"])
def test_a_counter_that_is_gone_takes_all_entries_with_it_and_the_next_ones_live(server: Server, lost: str) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry())
        claim = await store.claim(GLOBAL_OWNER, "other", waits=True)
        with server.client() as client:
            client.delete(getattr(Layout("cachemesh"), lost))
        await store.commit(entry("other"), claim)
        await store.claim(GLOBAL_OWNER, "third", waits=True)
        if lost == "meta":
            assert await store.read(GLOBAL_OWNER, "k") is None
            assert await store.read(GLOBAL_OWNER, "other") is None
        await store.write(entry(value=2))
        assert await value(store) == b"2"

    run(server.url, act)


# Leases


def test_b36_a_lease_has_an_end_from_the_beginning(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await store.claim(GLOBAL_OWNER, "k", waits=True)
        layout = Layout("cachemesh")
        with server.client() as client:
            assert 0 < client.pttl(layout.lease(layout.entry(GLOBAL_OWNER, "k"))) <= 3_000

    run(server.url, act, lease=3.0)


def test_one_claims_and_the_others_find_what_it_fetched(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        others = [RedisStore(server.url) for _ in range(5)]
        for other in others:
            assert await other.read(GLOBAL_OWNER, "k") is None
        assert await store.read(GLOBAL_OWNER, "k") is None
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert claim.token
        waiting = [asyncio.ensure_future(other.claim(GLOBAL_OWNER, "k", waits=True)) for other in others]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        await store.commit(entry(value="theirs"), claim)
        for answer in await asyncio.gather(*waiting):
            assert answer.found is not None
            assert answer.found.value.payload == b"'theirs'"
            assert not answer.token
        for other in others:
            await other.aclose()

    run(server.url, act)


def test_what_was_stored_between_the_read_and_the_claim_is_found(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        late = RedisStore(server.url)
        assert await late.read(GLOBAL_OWNER, "k") is None
        await store.commit(entry(value="first"), await store.claim(GLOBAL_OWNER, "k", waits=True))
        claim = await late.claim(GLOBAL_OWNER, "k", waits=True)
        assert claim.found is not None
        # It has read that one, and wants another: nobody else is fetching it.
        assert await value(late) == b"'first'"
        again = await late.claim(GLOBAL_OWNER, "k", waits=True)
        assert again.found is None
        assert again.token
        await late.aclose()

    run(server.url, act)


def test_who_has_read_nothing_is_given_what_a_neighbour_has_read_meanwhile(server: Server) -> None:
    """A store remembers what was read last, whoever has read it."""

    async def act(store: RedisStore) -> None:
        other = RedisStore(server.url)
        assert await value(store) is None
        await other.write(entry())
        assert await value(store) == b"1"
        assert (await store.claim(GLOBAL_OWNER, "k", waits=True, knows_none=True)).found is not None
        assert (await store.claim(GLOBAL_OWNER, "k", waits=True)).found is None
        await other.aclose()

    run(server.url, act)


def test_sweeping_what_was_cleared_refuses_nobody_who_fetches_it_anew(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(store: RedisStore) -> None:
        due: list[Any] = []
        monkeypatch.setattr(Sweeper, "sweep", lambda self, *what: due.append((self, *what)))
        await store.write(entry(owner=ALICE))
        await store.write(entry("other", owner=ALICE))
        await store.clear_partition(ALICE)
        claim = await store.claim(ALICE, "k", waits=True)
        ((sweeper, pattern, counter, generation),) = due
        await sweeper._sweep(pattern, counter, b"%016d" % generation)
        assert await store.keys(ALICE) == []
        with server.client() as client:
            names = [Layout("cachemesh").entry(ALICE, key) for key in ("k", "other")]
            assert [client.strlen(name) for name in names] == [HEADER_SIZE, 0]
        assert await store.commit(entry(value="new", owner=ALICE), claim)
        assert await value(store, owner=ALICE) == b"'new'"

    run(server.url, act)


def test_after_a_release_the_next_one_fetches(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        other = RedisStore(server.url)
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        waiting = asyncio.ensure_future(other.claim(GLOBAL_OWNER, "k", waits=True))
        await asyncio.sleep(0.05)
        await store.release(claim)
        following = await waiting
        assert following.token
        assert following.found is None
        await other.release(following)
        with server.client() as client:
            names = set(client.keys(b"*"))
        assert names == {Layout("cachemesh").head, Layout("cachemesh").meta}, "a release leaves nothing behind"
        await other.aclose()

    run(server.url, act)


def test_who_does_not_wait_is_not_kept_waiting(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await store.claim(GLOBAL_OWNER, "k", waits=True)
        started = time.monotonic()
        claim = await store.claim(GLOBAL_OWNER, "k", waits=False)
        assert time.monotonic() - started < 1.0
        assert not claim.token
        assert await store.commit(entry(), claim)

    run(server.url, act)


def test_without_leases_nobody_waits_and_writes_are_fenced_all_the_same(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        first = await store.claim(GLOBAL_OWNER, "k", waits=True)
        second = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert (first.token, second.token) == (b"", b"")
        await store.delete(GLOBAL_OWNER, "k")
        assert not await store.commit(entry(), first)
        assert not await store.commit(entry(), second)

    run(server.url, act, lease=None)


def test_rd7_a_holder_that_was_away_for_too_long_does_not_write_over_its_successor(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        other = RedisStore(server.url)
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        following = await other.claim(GLOBAL_OWNER, "k", waits=True)
        assert following.token
        assert await other.commit(entry(value="younger"), following)
        assert not await store.commit(entry(value="older"), claim)
        assert await value(store) == b"'younger'"
        await other.aclose()

    run(server.url, act, lease=0.1)


def test_b35_a_lease_that_ended_is_no_error_and_what_was_fetched_is_kept_where_nothing_happened(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        await asyncio.sleep(0.1)
        assert await store.commit(entry(), claim)
        assert await value(store) == b"1"
        await store.release(claim)

    run(server.url, act, lease=0.05)


def test_rd8_a_lease_is_given_up_by_nobody_but_its_owner(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        other = RedisStore(server.url)
        layout = Layout("cachemesh")
        lease = layout.lease(layout.entry(GLOBAL_OWNER, "k"))
        old = await store.claim(GLOBAL_OWNER, "k", waits=True)
        present = await other.claim(GLOBAL_OWNER, "k", waits=True)
        with server.client() as client:
            assert client.get(lease) == present.token != old.token
            for _ in range(200):
                await store.release(old)
            await store.commit(entry(), old)
            assert client.get(lease) == present.token
            await other.release(present)
            assert client.get(lease) is None
        await other.aclose()

    run(server.url, act, lease=0.2)


def test_a_lease_that_goes_from_one_to_the_next_keeps_nobody_waiting_for_ever(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        layout = Layout("cachemesh")
        lease = layout.lease(layout.entry(GLOBAL_OWNER, "k"))
        with server.client() as client:
            client.set(lease, b"somebody, again and again", px=60_000)
        started = time.monotonic()
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert 0.2 <= time.monotonic() - started < 2.0
        assert not claim.token
        assert await store.commit(entry(), claim)

    run(server.url, act, lease=0.3)


def claimed_and_asleep(url: str, claimed: Any) -> None:
    """In a process: claim, and then fetch for ever."""

    async def act(store: RedisStore) -> None:
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert claim.token
        claimed.set()
        await asyncio.sleep(60)

    run(url, act, lease=0.5)


def test_sf14_after_a_holder_was_killed_the_next_one_leads_within_a_lease_and_a_second(server: Server) -> None:
    context = multiprocessing.get_context("spawn")
    claimed = context.Event()
    process = context.Process(target=claimed_and_asleep, args=(server.url, claimed))
    process.start()
    try:
        assert claimed.wait(30)
    finally:
        process.kill()
        process.join()

    async def act(store: RedisStore) -> None:
        started = time.monotonic()
        claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
        assert claim.token
        assert time.monotonic() - started < 1.5

    run(server.url, act, lease=5.0)


# Names


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=2, max_size=2, unique=True))
def test_se5_different_places_have_different_keys(places: list[tuple[str, str]]) -> None:
    one, other = places
    layouts = [Layout(each[0]) for each in places]
    assert layouts[0].entry((CacheScope.USER, one[0]), one[1]) != layouts[0].entry(
        (CacheScope.USER, other[0]), other[1]
    )
    assert (layouts[0].head == layouts[1].head) == (one[0] == other[0])
    assert (layouts[0].channel == layouts[1].channel) == (one[0] == other[0])


def test_se5_a_million_pairs_do_not_collide() -> None:
    alphabet = ["", "a", "b", ":", "1", "1:", "{", "}", "#", "*", "\\", "\0", "é", "a" * 201, "a" * 202]
    layout = Layout("n")
    rng = random.Random(5)
    texts = ["".join(rng.choices(alphabet, k=4)) for _ in range(3_000)]
    scopes = rng.choices((CacheScope.USER, CacheScope.SESSION), k=1_500)
    places = set(zip(scopes, texts[::2], texts[1::2], strict=True))
    names = {layout.entry((scope, user), key) for scope, user, key in places}
    assert len(names) == len(places)
    assert len(places) * (len(places) - 1) / 2 > 1_000_000


@given(st.binary(max_size=20))
def test_se4_a_name_has_no_braces_and_a_pattern_matches_one_name(name: bytes) -> None:
    assert b"{" not in part(name)
    assert b"}" not in part(name)
    pattern = escaped(name)
    plain = bytearray()
    at = 0
    while at < len(pattern):
        at += pattern[at] == ord("\\")
        plain.append(pattern[at])
        at += 1
    assert bytes(plain) == name


def test_se4_hostile_owners_see_and_clear_their_own_keys_only(server: Server) -> None:
    users = [
        "*",
        "a*",
        "a?",
        "a[b]",
        "[^a]",
        "a-b",
        "\\",
        "\\*",
        "a}{b",
        "{}",
        "a\r\nFLUSHALL\r\n",
        "a\0b",
        "a b",
        "'",
        '"',
        "a",
    ]

    async def act(store: RedisStore) -> None:
        owners: list[Owner] = [(CacheScope.USER, user) for user in users]
        for owner in owners:
            for key in ("*", "k", "}:x"):
                await store.write(entry(key, owner=owner, value=owner[1]))
        for number, owner in enumerate(owners):
            assert sorted(await store.keys(owner)) == ["*", "k", "}:x"]
            await store.clear_partition(owner)
            assert await store.keys(owner) == []
            for other in owners[number + 1 :]:
                assert await value(store, "k", other) == repr(other[1]).encode()
        assert [found async for found in store.scan()] == []

    run(server.url, act)


def test_se4_a_hundred_thousand_fuzzed_places_touch_nothing_that_is_not_theirs(server: Server) -> None:
    rng = random.Random(4)
    pieces = [
        "*",
        "?",
        "[",
        "]",
        "\\",
        "{",
        "}",
        ":",
        "\r\n",
        "\0",
        " ",
        "'",
        '"',
        "cm1",
        "victim",
        "e:",
        "\ud800",
        "é",
        "1",
        "$0",
    ]
    texts = ["".join(rng.choices(pieces, k=rng.randrange(6))) for _ in range(100_000)]

    async def act(store: RedisStore) -> None:
        with server.client() as client:
            foreign = {f"victim{number}".encode(): b"%d" % number for number in range(100)}
            client.mset(foreign)
            other = RedisStore(server.url, namespace="victim")
            await other.write(entry("victim", owner=(CacheScope.USER, "victim")))
            before = {name: client.dump(name) for name in client.keys(b"*")}
            places: list[tuple[Owner, str]] = [((CacheScope.USER, rng.choice(texts)), text) for text in texts]
            for at in range(0, len(places), 5_000):
                assert await store.read_many(places[at : at + 5_000]) == [None] * 5_000
            some = places[:3_000]
            await asyncio.gather(*(store.write(entry(key, owner=owner)) for owner, key in some))
            await asyncio.gather(*(store.delete(owner, key) for owner, key in places[2_000:5_000]))
            for owner, _ in places[:50]:
                await store.keys(owner)
            ours = {name for name in client.keys(b"*") if name not in before}
            assert all(name.startswith((b"cm1:9:cachemesh:", b"cm1:{9:cachemesh}:")) for name in ours)
            assert {name: client.dump(name) for name in before} == before
            await other.aclose()

    run(server.url, act, timeout=10.0)


def test_namespaces_do_not_touch(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        others = [RedisStore(server.url, namespace=name) for name in ("*", "a", "cachemesh:e", "{cachemesh}")]
        await store.write(entry(value="ours"))
        for number, other in enumerate(others):
            assert await other.read(GLOBAL_OWNER, "k") is None
            await other.write(entry(value=number))
            assert await other.keys(GLOBAL_OWNER) == ["k"]
            await other.clear()
            assert await value(store) == b"'ours'"
            await other.aclose()

    run(server.url, act)


# Damage


class Exploit:
    """What a pickle can do when it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return execute, ("anything",)


EXECUTED: Final[list[str]] = []


def execute(what: str) -> None:
    EXECUTED.append(what)


def test_se2_nothing_that_lies_in_the_store_is_executed(server: Server) -> None:
    pickled = pickle.dumps(Exploit())
    pickle.loads(pickled)  # noqa: S301 (it works)
    assert EXECUTED.pop() == "anything"

    async def act(store: RedisStore) -> None:
        await store.write(entry())
        await store.write(entry("tail"))
        layout = Layout("cachemesh")
        with server.client() as client:
            real = client.get(layout.entry(GLOBAL_OWNER, "tail"))
            assert isinstance(real, bytes)
            client.set(layout.entry(GLOBAL_OWNER, "k"), pickled)
            client.set(layout.entry(GLOBAL_OWNER, "tail"), real[:HEADER_SIZE] + pickled)
        assert await store.read_many([(GLOBAL_OWNER, "k"), (GLOBAL_OWNER, "tail")]) == [None, None]
        assert await store.keys(GLOBAL_OWNER) == []
        with server.client() as client:
            client.set(layout.head, pickled)
        assert await store.read(GLOBAL_OWNER, "k") is None

    run(server.url, act)
    assert EXECUTED == []


def test_sc10_two_users_records_swapped_by_hand_are_misses(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def act(store: RedisStore) -> None:
        owners = [*((CacheScope.USER, f"user{number}") for number in range(20)), GLOBAL_OWNER, SESSION_OWNER]
        for owner in owners:
            await store.write(entry(owner=owner, value=owner[1]))
        layout = Layout("cachemesh")
        with server.client() as client:
            names = [layout.entry(owner, "k") for owner in owners]
            records = client.mget(names)
            client.mset(dict(zip(names, [*records[1:], records[0]], strict=True)))
        assert await store.read_many([(owner, "k") for owner in owners]) == [None] * len(owners)
        assert [await store.keys(owner) for owner in owners] == [[]] * len(owners)

    with caplog.at_level(logging.WARNING):
        run(server.url, act)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["an entry of the store is not to be believed: of another key or owner"]


def test_sc10_no_damaged_record_is_read_and_none_raises(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry(value="x" * 50, tags=("t",), validator="etag"))
        name = Layout("cachemesh").entry(GLOBAL_OWNER, "k")
        whole = await store.read(GLOBAL_OWNER, "k")
        with server.client() as client:
            record = client.get(name)
            assert isinstance(record, bytes)
            rng = random.Random(10)
            damaged = [record[:length] for length in range(0, len(record), 7)]
            damaged += [record + b"x", b"", b"E", b"\xff" * 200]
            for _ in range(300):
                at = rng.randrange(len(record))
                damaged.append(record[:at] + bytes([record[at] ^ (1 << rng.randrange(8))]) + record[at + 1 :])
            stamp = range(HEADER_SIZE - 12, HEADER_SIZE)
            for each in damaged:
                client.set(name, each)
                found = await store.read(GLOBAL_OWNER, "k")
                flipped = [at for at, (one, other) in enumerate(zip(each, record, strict=False)) if one != other]
                is_stamp = len(each) == len(record) and flipped[0] in stamp
                assert found == (whole if is_stamp else None)
            client.delete(name)
            client.lpush(name, "a list")
        assert await store.read(GLOBAL_OWNER, "k") is None

    run(server.url, act)


def test_sc10_b30_replies_that_are_off_by_one_are_never_taken_for_the_right_ones(proxy: Proxy) -> None:
    async def act(store: RedisStore) -> None:
        keys = [f"k{number}" for number in range(50)]
        for key in keys:
            await store.write(entry(key, key))
        for kind in (b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*1\r\n$1\r\nx\r\n", b"-ERR of another\r\n"):
            extra = [kind]
            proxy.replied = lambda data, extra=extra: (extra.pop() if extra else b"") + data
            wrong = 0
            for key in keys:
                try:
                    found = await value(store, key)
                except (OSError, RuntimeError):
                    continue
                wrong += found not in {None, repr(key).encode()}
            assert wrong == 0
            assert not extra
            proxy.replied = None
            assert await value(store, keys[0]) == repr(keys[0]).encode()

    run(proxy.url, act)


def test_an_unasked_reply_ends_the_connection(proxy: Proxy) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry())
        before = proxy.connections
        proxy.replied = lambda data: data + b"+OK\r\n"
        assert await value(store) == b"1"
        proxy.replied = None
        assert await value(store) == b"1"
        assert proxy.connections > before

    run(proxy.url, act)


# Cancellation


def test_rd11_cancelled_calls_swap_no_replies_and_leak_no_connections(proxy: Proxy) -> None:
    """Pool of 10, 1,000 operations at once, a tenth of them cancelled at some point, through a slow network."""

    async def act(store: RedisStore) -> None:
        keys = [f"k{number}" for number in range(1_000)]
        await asyncio.gather(*(store.write(entry(key, key)) for key in keys))
        proxy.delay_s, proxy.jitter_s = 0.002, 0.005
        rng = random.Random(11)
        wrong: list[object] = []
        answered = 0

        async def ask(key: str) -> None:
            nonlocal answered
            await asyncio.sleep(rng.uniform(0.0, 0.3))
            found = await value(store, key)
            answered += 1
            if found != repr(key).encode():
                wrong.append((key, found))

        for _ in range(3):
            tasks = [asyncio.create_task(ask(key)) for key in keys]
            doomed = rng.sample(tasks, 100)
            for task in doomed:
                asyncio.get_running_loop().call_later(rng.uniform(0.0, 0.35), task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(each) for each in results} <= {type(None), asyncio.CancelledError}
        assert wrong == []
        assert answered >= 2_700
        batcher = store._batcher()
        assert batcher.in_use == 0
        assert batcher.connections <= 10

    run(proxy.url, act, timeout=5.0)


def test_reads_of_one_turn_go_in_one_message(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry())
        with server.client() as client:
            client.config_resetstat()
            await asyncio.gather(*(store.read(GLOBAL_OWNER, f"k{number}") for number in range(100)))
            await store.read_many([(GLOBAL_OWNER, f"k{number}") for number in range(100)])
            after = client.info("commandstats")
        assert after["cmdstat_mget"]["calls"] == 2
        assert "cmdstat_get" not in after

    run(server.url, act)


# Servers that are not there, or slow, or full, or new


def test_rd13_a_server_that_is_not_there_fails_at_once_and_no_sooner_than_it_is_asked() -> None:
    with Server() as gone:
        url = gone.url

    async def act(store: RedisStore) -> None:
        started = time.monotonic()
        for call in (
            store.read(GLOBAL_OWNER, "k"),
            store.write(entry()),
            store.delete(GLOBAL_OWNER, "k"),
            store.clear(),
            store.claim(GLOBAL_OWNER, "k", waits=True),
            store.keys(GLOBAL_OWNER),
        ):
            with pytest.raises(ServerUnreachableError):
                await call
        assert time.monotonic() - started < 1.0
        assert (await store.doctor())[0].level is Level.ERROR

    run(url, act, timeout=5.0)


def test_no_call_outlives_its_time_limit(proxy: Proxy) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry())
        proxy.is_silent = True
        for _ in range(2):
            started = time.monotonic()
            results = await asyncio.gather(
                store.read(GLOBAL_OWNER, "k"),
                store.write(entry()),
                store.delete(GLOBAL_OWNER, "k"),
                return_exceptions=True,
            )
            assert [type(each) for each in results] == [ServerTooSlowError] * 3
            assert 0.1 < time.monotonic() - started < 0.6
        proxy.is_silent = False
        assert (await store.read(GLOBAL_OWNER, "other")) is None
        assert store._batcher().in_use == 0

    run(proxy.url, act, timeout=0.2)


def test_a_connection_that_was_closed_while_idle_is_made_anew(server: Server, proxy: Proxy) -> None:
    async def act(store: RedisStore) -> None:
        await asyncio.gather(*(store.write(entry(f"k{number}")) for number in range(30)))
        proxy.drop()
        assert await value(store, "k7") == b"1"
        with server.client() as client:
            client.client_kill_filter(_type="normal", skipme=True)
        await store.write(entry(value=2))
        assert await value(store) == b"2"

    run(proxy.url, act)


def test_rd5_after_a_restart_or_flushall_everything_goes_on(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry(value="before"))
        claim = await store.claim(GLOBAL_OWNER, "under way", waits=True)
        for lose in (server.restart, server.empty):
            lose()
            assert await store.read(GLOBAL_OWNER, "k") is None
            assert not await store.commit(entry("under way"), claim)
            fresh = await store.claim(GLOBAL_OWNER, "k", waits=True)
            assert await store.commit(entry(value="after"), fresh)
            assert await value(store) == b"'after'"
            claim = await store.claim(GLOBAL_OWNER, "under way", waits=True)

    run(server.url, act)


def test_rd5_a_read_that_a_breaking_connection_swallows_is_made_again(proxy: Proxy) -> None:
    broken = 0

    def breaks(data: bytes) -> bytes:
        nonlocal broken
        broken += 1
        if broken == 1:
            raise ConnectionResetError
        return data

    async def act(store: RedisStore) -> None:
        await store.write(entry(value="kept"))
        proxy.replied = breaks
        assert await value(store) == b"'kept'"
        assert broken > 1

    run(proxy.url, act)


def test_a_server_that_kept_its_data_over_a_restart_still_refuses_the_claims_from_before() -> None:
    """What it wrote last may be lost: a removal, for one."""
    with Server(appendonly="yes", appendfsync="always") as server:

        async def act(store: RedisStore) -> None:
            await store.write(entry(value="kept"))
            claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
            before = claim.generation
            server.restart()
            assert await value(store) == b"'kept'"
            assert not await store.commit(entry(value="old"), claim)
            assert await value(store) == b"'kept'"
            fresh = await store.claim(GLOBAL_OWNER, "k", waits=False)
            assert fresh.generation > before + 1_000, "none is drawn twice, should some be lost"
            assert await store.commit(entry(value="new"), fresh)

        run(server.url, act)


def test_rd5_a_full_server_refuses_and_says_why_and_still_answers(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry())
        with server.client() as client:
            client.config_set("maxmemory", 1)
            try:
                with pytest.raises(ServerRefusedError, match=r"^OOM$"):
                    await store.write(entry(value=2))
                with pytest.raises(ServerRefusedError, match=r"^OOM$"):
                    await store.claim(GLOBAL_OWNER, "k", waits=True)
                assert await value(store) == b"1"
                await store.delete(GLOBAL_OWNER, "k")
                assert await store.read(GLOBAL_OWNER, "k") is None
                assert any(f.level is Level.WARNING and "memory" in f.subject for f in await store.doctor())
            finally:
                client.config_set("maxmemory", 0)

    run(server.url, act)


def test_scripts_that_the_server_has_forgotten_are_sent_again(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry())
        with server.client() as client:
            client.script_flush()
        await asyncio.gather(*(store.write(entry(f"k{number}", number)) for number in range(20)))
        assert await value(store, "k19") == b"19"

    run(server.url, act)


# Time


def test_tt1_what_is_kept_is_kept_for_its_whole_life_by_the_server(server: Server) -> None:
    cases = [
        ({}, 30 * 86_400.0),
        ({"ttl_s": None, "expires_at": None}, 30 * 86_400.0),
        ({"serve_stale_s": 0.0}, 60.0),
        ({"ttl_s": 1.0, "serve_stale_s": 2.0}, 60.0),
        ({"serve_stale_s": 100.0, "stale_if_error_s": 500.0}, 560.0),
        ({"ttl_s": 1e12, "serve_stale_s": 1.0}, 30 * 86_400.0),
    ]

    async def act(store: RedisStore) -> None:
        name = Layout("cachemesh").entry(GLOBAL_OWNER, "k")
        for fields, seconds in cases:
            await store.write(entry(**fields))  # type: ignore[arg-type]
            claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
            with server.client() as client:
                assert seconds - 5 < client.pttl(name) / 1000 <= seconds
                await store.commit(entry(**fields), claim)  # type: ignore[arg-type]
                assert seconds - 5 < client.pttl(name) / 1000 <= seconds

    run(server.url, act)


def test_rd9_what_the_server_takes_away_too_early_makes_a_miss_and_never_a_stale_write(server: Server) -> None:
    """Its clock jumps ahead: all that has a time limit is gone. Absence proves nothing, so a commit finds no place."""

    async def act(store: RedisStore) -> None:
        layout = Layout("cachemesh")
        await store.write(entry(value="old"))
        for waits in (True, False):
            claim = await store.claim(GLOBAL_OWNER, "k", waits=waits)
            await store.delete(GLOBAL_OWNER, "k")
            with server.client() as client:
                for name in client.keys(b"*"):
                    if client.pttl(name) >= 0:
                        client.pexpire(name, 0)
                assert set(client.keys(b"*")) == {layout.head, layout.meta}, "the counter has no time limit"
            assert not await store.commit(entry(value="old"), claim)
            assert await store.read(GLOBAL_OWNER, "k") is None

    run(server.url, act)


# Settings


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://localhost",
        "redis://:hunter2@host:notaport",
        "redis://host:0",
        "redis://host:70000",
        "redis://a:1,b:2",
        "redis://host/notadb",
        "redis+sentinel://host:1",
        "unix://",
        "redis://u:hunter2@[::1",
        "redis://:hunter2@host?socket_timeout=hunter2",
    ],
)
def test_a_bad_url_raises_when_the_store_is_made_and_quotes_no_password(url: str) -> None:
    with pytest.raises(ValueError, match="no URL") as caught:
        RedisStore(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout": 0},
        {"timeout": float("nan")},
        {"lease": -1.0},
        {"max_age": 1e300},
        {"namespace": 5},
        {"ping_interval": None},
        {"memory_cap": "1"},
    ],
    ids=repr,
)
def test_bad_settings_raise_when_the_store_is_made(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        RedisStore("redis://localhost", **settings)


def test_what_is_neither_url_nor_client_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        RedisStore(object())  # type: ignore[arg-type]


def test_clients_of_both_kinds_are_taken_as_settings(server: Server) -> None:
    sync = redis.Redis(host=server.host, port=server.port, db=3, decode_responses=True, socket_timeout=0.001)

    async def act() -> None:
        client = aio.Redis(host=server.host, port=server.port, db=3)
        stores = [RedisStore(sync), RedisStore(client), RedisStore(f"valkey://{server.host}:{server.port}/3")]
        await stores[0].write(entry())
        assert [await value(store) for store in stores] == [b"1"] * 3
        assert sync.dbsize() == 3
        for store in stores:
            await store.aclose()
        await client.aclose()

    asyncio.run(act())
    sync.close()


def test_passwords_are_used_and_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    with Server(requirepass="hunter2") as server:
        url = f"redis://:hunter2@{server.host}:{server.port}"

        async def act(store: RedisStore) -> None:
            await store.write(entry())
            assert await value(store) == b"1"
            assert "hunter2" not in repr(store) + repr(store._source) + repr(vars(store))

        async def refused(store: RedisStore) -> None:
            with pytest.raises(ServerUnreachableError) as caught:
                await store.read(GLOBAL_OWNER, "k")
            assert "wrong" not in str(caught.value)
            assert "AuthenticationError" in str(caught.value)

        with caplog.at_level(logging.DEBUG):
            run(url, act)
            run(url.replace("hunter2", "wrong"), refused)
        assert "hunter2" not in caplog.text
    assert source_of("redis+sentinel://:hunter2@a:1,b/main/2").addresses == (("a", 1), ("b", 26_379))


def test_keys_and_values_are_in_no_exception(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        with server.client() as client:
            client.set(Layout("cachemesh").meta, "not a hash")
        with pytest.raises(ServerRefusedError) as caught:
            await store.write(entry("secret-key", "secret-value"))
        assert "secret" not in str(caught.value)

    run(server.url, act)


# Loops and processes


def test_each_event_loop_has_connections_of_its_own_and_takes_them_with_it(server: Server) -> None:
    store = RedisStore(server.url)

    async def act() -> None:
        await store.write(entry())
        assert await value(store) == b"1"
        await store.aclose()
        assert await value(store) == b"1"
        await store.aclose()

    for _ in range(3):
        asyncio.run(act())
    gc.collect()
    assert len(store._batchers) == 0


def test_a_child_process_takes_no_connection_of_its_parent(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await store.write(entry())
        await asyncio.gather(*(value(store) for _ in range(10)))
        parent, child = multiprocessing.Pipe()
        process = multiprocessing.get_context("fork").Process(target=read_in_child, args=(store, child))
        process.start()
        for _ in range(50):
            assert await value(store) == b"1"
            await asyncio.sleep(0.002)
        assert await asyncio.to_thread(parent.recv) == [b"1"] * 50
        process.join()

    run(server.url, act)


def read_in_child(store: RedisStore, pipe: Any) -> None:
    async def act() -> list[bytes | None]:
        found = [await value(store) for _ in range(50)]
        await store.aclose()
        return found

    asyncio.events._set_running_loop(None)
    pipe.send(asyncio.run(act()))


# Looking at it


def test_stats_and_scan_count_what_is_there(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        for owner in (GLOBAL_OWNER, ALICE, BOB):
            await store.write(entry(owner=owner))
        await store.write(entry("failed", is_failure=True))
        await store.claim(GLOBAL_OWNER, "being fetched", waits=True)
        stats = await store.stats()
        assert (stats.entries, stats.failures, stats.tombstones) == (4, 1, 1)
        assert stats.by_scope == {"global": 2, "user": 2}
        assert stats.size_bytes > 4 * HEADER_SIZE
        assert str(stats.details["server"]).startswith("Valkey 9")
        assert sorted((found.owner, found.key) for found in [each async for each in store.scan()]) == sorted(
            [(GLOBAL_OWNER, "k"), (ALICE, "k"), (BOB, "k"), (GLOBAL_OWNER, "failed")]
        )
        findings = await store.doctor()
        assert {finding.level for finding in findings} <= {Level.OK, Level.NOTE}

    run(server.url, act)


def test_what_was_cleared_is_swept_and_what_was_written_since_stays(server: Server) -> None:
    async def act(store: RedisStore) -> None:
        await asyncio.gather(*(store.write(entry(f"k{number}", owner=ALICE)) for number in range(300)))
        await store.write(entry(owner=BOB))
        await store.clear_partition(ALICE)
        await store.write(entry("new", owner=ALICE))
        layout = Layout("cachemesh")
        with server.client() as client:
            for _ in range(200):
                names = set(client.scan_iter(layout.pattern(), count=1_000))
                if len(names) == 2:
                    break
                await asyncio.sleep(0.02)
        assert names == {layout.entry(BOB, "k"), layout.entry(ALICE, "new")}

    run(server.url, act)


def test_a_header_is_read_back_as_it_was_written() -> None:
    packed = b"E" + b"a" * 12 + b"%016d" % 7 + b"b" * 12
    header = header_of(packed + b"envelope")
    assert header is not None
    assert header.packed() == packed
    assert header_of(packed[:-1]) is None
