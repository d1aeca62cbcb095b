"""What every store promises, as tests that a store of your own inherits.

    class TestMyStore(StoreContract):
        def make_store(self) -> Store:
            return MyStore()

A store that several processes share keeps bytes, and has more to promise:

    class TestMyStore(SharedStoreContract):
        def make_store(self) -> SharedStore:
            return MyStore(self.path)

        def make_peer(self, store: SharedStore) -> SharedStore:
            return MyStore(self.path)

Not here: bounds, eviction, durability, speed. Those are each store's own.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from cachemesh.core.scopes import GLOBAL_OWNER, SESSION_OWNER, CacheScope, Owner
from cachemesh.shell.ports import Change, DirectStore, Encoded, SharedStore, StoredEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from hypothesis.strategies import SearchStrategy

    from cachemesh.shell.ports import Store

USER: Final = CacheScope.USER
SESSION: Final = CacheScope.SESSION

HOSTILE_TEXTS: Final = (
    "",
    " ",
    "a",
    "A",
    "a ",
    " a",
    "a\n",
    "a:b",
    "a:b:c",
    "a/b",
    "a/../b",
    "../a",
    "a%2Fb",
    "a\\b",
    "*",
    "a*",
    "%",
    "a_",
    "None",
    "null",
    "True",
    "0",
    "global",
    "user",
    "user:a",
    "'; DROP TABLE entries; --",
    '{"a": 1}',
    "\0",
    "a\0",
    "a\0b",
    "\u00e9",  # e with an acute accent, as one character
    "e\u0301",  # and as two
    "\u0430",  # a Cyrillic letter that looks like an a
    "\uff41",  # a full-width a
    "a\u200b",  # with a space of no width
    "\u202ea",  # read from right to left
    "\u0131",  # what casing does to a Turkish i
    "\U0001f512",
    "\ud800",  # half a character: no UTF-8 for it
    "x" * 1_000_000,
    "x" * 1_000_001,
)
"""Keys and user ids that are all different, and that a careless store takes for each other."""

LONGEST_TAG: Final = 100
"""Of the texts above, those that are as long as tags may get in the tests."""

OWNERS: Final[tuple[Owner, ...]] = (
    GLOBAL_OWNER,
    SESSION_OWNER,
    (USER, "alice"),
    (USER, ""),
    (SESSION, "alice"),
    (SESSION, ""),
)

JSON_VALUES: Final[SearchStrategy[Any]] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
"""What every store keeps: what JSON can say."""

INSTANTS: Final[SearchStrategy[float]] = st.floats(0.0, 4e9)


class StoreContract:
    """Subclass it, say how a store is made, and pytest does the rest; no plugin is needed.

    `make_store` answers an empty store, anew for each test. Where there is
    something to close, override `close_store`. A store that keeps less than
    JSON's values, or more, says so in `values`. `examples` and `steps` are the
    size of the random test: 100 x 50 in a test run, more for a night.
    """

    examples: ClassVar[int] = 100
    steps: ClassVar[int] = 50
    values: ClassVar[SearchStrategy[Any]] = JSON_VALUES
    texts: ClassVar[tuple[str, ...]] = HOSTILE_TEXTS
    """Keys and user ids. A store that refuses some (with an exception) leaves them out."""
    keeps_bytes: ClassVar[bool] = False
    """Whether values come and go as `Encoded`; then the tests speak to the store through `EncodingStore`."""

    def make_store(self) -> Store:
        """An empty store."""
        raise NotImplementedError

    async def close_store(self, store: Store) -> None:
        """Let go of what `make_store` has opened."""

    def run(self, act: Callable[[Store], Awaitable[None]]) -> None:
        """Run `act` on an empty store, in an event loop of its own."""

        async def acting() -> None:
            store = self.make_store()
            try:
                await act(self.spoken_to(store))
            finally:
                await self.close_store(store)

        asyncio.run(acting())

    def spoken_to(self, store: Store) -> Store:
        """`store`, as the tests speak to it: with values."""
        return EncodingStore(store) if self.keeps_bytes else store

    # One entry

    def test_what_was_written_is_read(self) -> None:
        async def act(store: Store) -> None:
            entry = an_entry()
            await store.write(entry)
            assert await store.read(entry.owner, entry.key) == entry

        self.run(act)

    def test_nothing_is_read_where_nothing_was_written(self) -> None:
        async def act(store: Store) -> None:
            assert await store.read(GLOBAL_OWNER, "k") is None
            await store.write(an_entry(key="other"))
            assert await store.read(GLOBAL_OWNER, "k") is None

        self.run(act)

    def test_reading_takes_nothing_away(self) -> None:
        async def act(store: Store) -> None:
            await store.write(an_entry())
            assert [await store.read(GLOBAL_OWNER, "k") for _ in range(3)] == [an_entry()] * 3

        self.run(act)

    def test_the_last_writing_counts_in_every_field(self) -> None:
        async def act(store: Store) -> None:
            await store.write(an_entry(value={"a": 1}, ttl_s=10.0))
            last = an_entry(value=["late"], is_failure=True, created_at=7.5, ttl_s=None)
            await store.write(last)
            assert await store.read(GLOBAL_OWNER, "k") == last
            assert list(await store.keys(GLOBAL_OWNER)) == ["k"]

        self.run(act)

    def test_an_older_entry_may_take_the_place_of_a_younger_one(self) -> None:
        """The cache decides what is written; a clock may have been set back."""

        async def act(store: Store) -> None:
            await store.write(an_entry(value="younger", created_at=2_000.0))
            await store.write(an_entry(value="older", created_at=1_000.0))
            assert await store.read(GLOBAL_OWNER, "k") == an_entry(value="older", created_at=1_000.0)

        self.run(act)

    def test_an_expired_entry_is_still_read(self) -> None:
        """Whether it may be served is for the cache to judge: some policies serve what is stale."""

        async def act(store: Store) -> None:
            for key, ttl_s in (("long ago", 1.0), ("at once", 0.0)):
                entry = an_entry(key=key, created_at=1.0, ttl_s=ttl_s)
                await store.write(entry)
                assert await store.read(GLOBAL_OWNER, key) == entry

        self.run(act)

    @pytest.mark.parametrize(
        "value",
        [
            None,
            False,
            True,
            0,
            1,
            -1,
            2**53,
            0.1,
            1e-300,
            "",
            "null",
            "\0",
            "\u00e9",
            [],
            {},
            [None],
            {"": None},
            [[], {}],
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("is_failure", [False, True], ids=["success", "failure"])
    def test_a_value_is_kept_as_it_is(self, value: object, is_failure: bool) -> None:  # noqa: FBT001 (a parameter of pytest's)
        async def act(store: Store) -> None:
            await store.write(an_entry(value=value, is_failure=is_failure))
            found = await store.read(GLOBAL_OWNER, "k")
            assert found is not None
            assert (type(found.value), found.value) == (type(value), value)
            assert found.is_failure is is_failure

        self.run(act)

    @pytest.mark.parametrize("ttl_s", [None, 0.0, 0.1, 1e-9, 60.0, 300, 3_155_760_000.0])
    @pytest.mark.parametrize("created_at", [0.0, 0.1, 1_767_225_600.123456, 4_102_444_800.0, -1.5])
    def test_the_lifetime_travels_exactly(self, created_at: float, ttl_s: float | None) -> None:
        async def act(store: Store) -> None:
            entry = an_entry(created_at=created_at, ttl_s=ttl_s)
            await store.write(entry)
            found = await store.read(GLOBAL_OWNER, "k")
            assert found is not None
            assert (found.created_at, found.ttl_s, found.expires_at) == (created_at, ttl_s, entry.expires_at)

        self.run(act)

    def test_what_belongs_to_a_value_travels_with_it(self) -> None:
        """Without its tags no order reaches it any more, without its windows it is served for too long."""

        async def act(store: Store) -> None:
            tags = ("b", "a", *(text for text in self.texts if len(text) <= LONGEST_TAG and text not in {"a", "b"}))
            full = replace(
                an_entry(),
                serve_stale_s=0.1,
                stale_if_error_s=0.0,
                ageing_at=1_767_225_630.123456,
                tags=tags,
                validator='"etag"',
            )
            plain = an_entry(value="plain")
            others = (replace(plain, stale_if_error_s=1e9), replace(plain, serve_stale_s=0.0, tags=("a,b", "c")))
            for entry in (full, plain, *others, full):
                await store.write(entry)
                assert await store.read(GLOBAL_OWNER, "k") == entry

        self.run(act)

    def test_the_expiry_is_kept_and_not_reckoned_anew(self) -> None:
        async def act(store: Store) -> None:
            entry = StoredEntry(GLOBAL_OWNER, "k", 1, is_failure=False, created_at=0.1, ttl_s=0.2, expires_at=0.3)
            await store.write(entry)
            assert await store.read(GLOBAL_OWNER, "k") == entry

        self.run(act)

    # Removal

    def test_what_was_deleted_is_gone_and_the_rest_is_there(self) -> None:
        async def act(store: Store) -> None:
            for key in ("k", "kk"):
                await store.write(an_entry(key=key))
            await store.write(an_entry(owner=SESSION_OWNER))
            await store.delete(GLOBAL_OWNER, "k")
            assert await store.read(GLOBAL_OWNER, "k") is None
            assert await store.read(GLOBAL_OWNER, "kk") == an_entry(key="kk")
            assert await store.read(SESSION_OWNER, "k") == an_entry(owner=SESSION_OWNER)

        self.run(act)

    def test_removing_what_is_not_there_is_no_error(self) -> None:
        async def act(store: Store) -> None:
            for _ in range(2):
                await store.delete(GLOBAL_OWNER, "k")
                await store.clear_partition((USER, "nobody"))
                await store.clear()

        self.run(act)

    @pytest.mark.parametrize("owner", OWNERS, ids=repr)
    def test_a_cleared_partition_leaves_the_others(self, owner: Owner) -> None:
        async def act(store: Store) -> None:
            for each in OWNERS:
                for key in ("k", "l"):
                    await store.write(an_entry(owner=each, key=key))
            await store.clear_partition(owner)
            for each in OWNERS:
                expected = [] if each == owner else ["k", "l"]
                assert sorted(await store.keys(each)) == expected
                assert (await store.read(each, "k") is None) == (each == owner)

        self.run(act)

    def test_clear_leaves_nothing(self) -> None:
        async def act(store: Store) -> None:
            for owner in OWNERS:
                await store.write(an_entry(owner=owner))
            await store.clear()
            for owner in OWNERS:
                assert await store.read(owner, "k") is None
                assert list(await store.keys(owner)) == []

        self.run(act)

    def test_after_a_removal_it_can_be_written_again(self) -> None:
        async def act(store: Store) -> None:
            removals: tuple[Callable[[], Awaitable[None]], ...] = (
                lambda: store.delete(GLOBAL_OWNER, "k"),
                lambda: store.clear_partition(GLOBAL_OWNER),
                store.clear,
            )
            for number, remove in enumerate(removals):
                await store.write(an_entry(value="before"))
                await remove()
                await store.write(an_entry(value=number))
                assert await store.read(GLOBAL_OWNER, "k") == an_entry(value=number)

        self.run(act)

    # Who is who

    def test_no_two_owners_share_an_entry(self) -> None:
        async def act(store: Store) -> None:
            owners = [*((scope, text) for scope in (USER, SESSION) for text in self.texts), GLOBAL_OWNER, SESSION_OWNER]
            for number, owner in enumerate(owners):
                assert await store.read(owner, "k") is None, f"{shown(owner)} sees somebody else's"
                await store.write(an_entry(owner=owner, value=number))
            for number, owner in enumerate(owners):
                found = await store.read(owner, "k")
                assert found is not None, f"{shown(owner)} has lost its entry"
                assert (found.owner, found.value) == (owner, number), f"{shown(owner)} sees {shown(found.owner)}'s"
            for number, owner in enumerate(owners):
                await store.clear_partition(owner)
                assert await store.read(owner, "k") is None
                left = owners[number + 1 : number + 2]
                assert [await store.read(each, "k") is None for each in left] == [False] * len(left)

        self.run(act)

    def test_no_two_keys_share_an_entry(self) -> None:
        async def act(store: Store) -> None:
            for number, key in enumerate(self.texts):
                assert await store.read(GLOBAL_OWNER, key) is None, f"{shown(key)} shows another key's entry"
                await store.write(an_entry(key=key, value=number))
            for number, key in enumerate(self.texts):
                found = await store.read(GLOBAL_OWNER, key)
                assert found is not None, f"{shown(key)} is lost"
                assert (found.key, found.value) == (key, number), f"{shown(key)} shows {shown(found.key)}'s entry"
            assert sorted(await store.keys(GLOBAL_OWNER)) == sorted(self.texts)
            for number, key in enumerate(self.texts):
                await store.delete(GLOBAL_OWNER, key)
                assert sorted(await store.keys(GLOBAL_OWNER)) == sorted(self.texts[number + 1 :])

        self.run(act)

    def test_owner_and_key_do_not_flow_into_each_other(self) -> None:
        async def act(store: Store) -> None:
            parts = ["a", "b", "a:b", "b:c", ":", "a:", ":b", "", "a\0b", "\0", "a/b", "/", "user", "user:a"]
            places = [((USER, user), key) for user, key in itertools.product(parts, parts)]
            for number, (owner, key) in enumerate(places):
                await store.write(an_entry(owner=owner, key=key, value=number))
            for number, (owner, key) in enumerate(places):
                assert await store.read(owner, key) == an_entry(owner=owner, key=key, value=number)

        self.run(act)

    def test_an_entry_names_its_owner_and_key(self) -> None:
        """The cache checks them: a store that mixes up its answers is found out."""

        async def act(store: Store) -> None:
            for owner in OWNERS:
                await store.write(an_entry(owner=owner))
                found = await store.read(owner, "k")
                assert found is not None
                assert (found.owner, found.key) == (owner, "k")
                assert isinstance(found.owner[0], CacheScope)
                assert type(found.key) is str

        self.run(act)

    def test_keys_are_those_of_one_owner_without_repetition(self) -> None:
        async def act(store: Store) -> None:
            assert list(await store.keys(GLOBAL_OWNER)) == []
            for key in ("a", "b", "a"):
                await store.write(an_entry(key=key))
            await store.write(an_entry(owner=(USER, "alice"), key="c", ttl_s=0.0))
            assert sorted(await store.keys(GLOBAL_OWNER)) == ["a", "b"]
            assert list(await store.keys((USER, "alice"))) == ["c"]
            assert list(await store.keys((USER, "bob"))) == []

        self.run(act)

    def test_the_keys_that_were_answered_do_not_change(self) -> None:
        async def act(store: Store) -> None:
            await store.write(an_entry())
            keys = await store.keys(GLOBAL_OWNER)
            await store.write(an_entry(key="other"))
            await store.clear()
            assert list(keys) == ["k"]

        self.run(act)

    # At the same time

    def test_concurrent_writings_of_many_keys_are_all_kept(self) -> None:
        async def act(store: Store) -> None:
            entries = [
                an_entry(owner=owner, key=f"k{number}", value=number) for owner in OWNERS for number in range(50)
            ]
            entries += [an_entry(key=f"k{number}", value=number) for number in range(50, 150)]
            await asyncio.gather(*(store.write(entry) for entry in entries))
            found = await asyncio.gather(*(store.read(entry.owner, entry.key) for entry in entries))
            assert found == entries
            assert len(await store.keys(GLOBAL_OWNER)) == 150  # noqa: PLR2004 (as many as were written)

        self.run(act)

    def test_concurrent_writings_of_one_key_leave_one_of_them_whole(self) -> None:
        async def act(store: Store) -> None:
            entries = [
                an_entry(value=[number] * 100, created_at=float(number), ttl_s=float(number)) for number in range(50)
            ]
            reads = (store.read(GLOBAL_OWNER, "k") for _ in entries)
            pairs = zip(reads, (store.write(entry) for entry in entries), strict=True)
            seen = await asyncio.gather(*itertools.chain.from_iterable(pairs))
            last = await store.read(GLOBAL_OWNER, "k")
            assert last in entries
            assert all(each is None or each in entries for each in seen)
            assert list(await store.keys(GLOBAL_OWNER)) == ["k"]

        self.run(act)

    def test_a_cancelled_call_leaves_the_store_usable(self) -> None:
        """The next answer is that of the next question (redis-py 2665)."""

        async def act(store: Store) -> None:
            await store.write(an_entry(key="a"))
            await store.write(an_entry(key="b"))
            for ticks in range(4):
                task = asyncio.ensure_future(store.read(GLOBAL_OWNER, "a"))
                for _ in range(ticks):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait({task})
                assert await store.read(GLOBAL_OWNER, "b") == an_entry(key="b")

        self.run(act)

    # Everything together

    def test_it_behaves_as_a_dict(self) -> None:
        """Scenario ST-1: no divergence from a dict, whatever is done in whatever order."""
        with asyncio.Runner() as runner:
            run_state_machine_as_test(
                _machine(self, runner.get_loop()),
                settings=settings(
                    max_examples=self.examples,
                    stateful_step_count=self.steps,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )


class SharedStoreContract(StoreContract):
    """What a store promises beyond that if several processes share it: fences, marks, leases.

    `make_store` answers an empty `SharedStore` whose leases last for longer than
    a test; `make_peer` another one on the same data, as another process would
    open it. Both are closed with `close_store`. `settled` is for a store that
    writes behind: after it, peers see what was written before it.
    """

    keeps_bytes = True

    def make_peer(self, store: SharedStore) -> SharedStore:
        """Another store on the data of `store`."""
        raise NotImplementedError

    async def settled(self, store: SharedStore) -> None:
        """Wait until peers see what `store` was told."""
        await store.flush()

    def run_shared(self, act: Callable[[SharedStore, SharedStore], Awaitable[None]]) -> None:
        """Run `act` on an empty store and a peer of it, in an event loop of its own."""

        async def acting() -> None:
            store = self.make_store()
            assert isinstance(store, SharedStore)
            peer = self.make_peer(store)
            try:
                await act(store, peer)
            finally:
                await self.close_store(peer)
                await self.close_store(store)

        asyncio.run(acting())

    # What peers see

    def test_it_has_the_methods_of_a_shared_store(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            assert isinstance(store, SharedStore)
            assert isinstance(peer, SharedStore)

        self.run_shared(act)

    def test_a_peer_reads_what_was_written_and_not_what_was_removed(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            for number, owner in enumerate(OWNERS):
                await store.write(encoded_entry(owner=owner, value=number))
            await self.settled(store)
            for number, owner in enumerate(OWNERS):
                found = await peer.read(owner, "k")
                assert found is not None
                assert (found.owner, found.value) == (owner, a_value(number))
            await store.delete(OWNERS[0], "k")
            await store.clear_partition(OWNERS[1])
            await self.settled(store)
            there = [await peer.read(owner, "k") is not None for owner in OWNERS]
            assert there == [False, False, *[True] * (len(OWNERS) - 2)]
            await store.clear()
            await self.settled(store)
            assert [await peer.read(owner, "k") for owner in OWNERS] == [None] * len(OWNERS)

        self.run_shared(act)

    def test_everything_but_the_generation_comes_back_as_it_was(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            full = StoredEntry(
                (USER, "alice"),
                "k",
                Encoded(b'{"a": 1}', "tests:Schema", 7),
                is_failure=True,
                created_at=1_767_225_600.25,
                ttl_s=60.0,
                expires_at=1_767_225_660.25,
                serve_stale_s=5.5,
                stale_if_error_s=0.0,
                ageing_at=1_767_225_630.0,
                tags=("t", "\u00e9", "", "\ud800"),
                validator='"etag"',
            )
            await store.write(full)
            await self.settled(store)
            for each in (store, peer):
                found = await each.read(full.owner, full.key)
                assert found is not None
                assert replace(found, generation=0) == full

        self.run_shared(act)

    def test_many_are_read_in_one_go_in_the_order_of_the_question(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            places = [(owner, key) for owner in OWNERS for key in ("a", "b", "c")]
            for number, (owner, key) in enumerate(places):
                if number % 3:
                    await store.write(encoded_entry(owner=owner, key=key, value=number))
            await self.settled(store)
            for each in (store, peer):
                asked = [*reversed(places), places[1], (GLOBAL_OWNER, "nothing"), places[1]]
                found = await each.read_many(asked)
                assert len(found) == len(asked)
                for (owner, key), entry in zip(asked, found, strict=True):
                    number = places.index((owner, key)) if key != "nothing" else 0
                    if number % 3:
                        assert entry is not None
                        assert (entry.owner, entry.key, entry.value) == (owner, key, a_value(number))
                    else:
                        assert entry is None
                assert list(await each.read_many([])) == []

        self.run_shared(act)

    # Fences

    def test_what_was_claimed_is_committed_with_the_generation_of_the_claim(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
            assert (claim.owner, claim.key, claim.found) == (GLOBAL_OWNER, "k", None)
            assert await store.commit(encoded_entry(), claim)
            await self.settled(store)
            for each in (store, peer):
                found = await each.read(GLOBAL_OWNER, "k")
                assert found is not None
                assert found.value == a_value("value")
                assert found.generation == claim.generation

        self.run_shared(act)

    def test_each_removal_and_each_writing_makes_the_generation_grow(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            seen = [(await store.claim(GLOBAL_OWNER, "x", waits=False)).generation]
            changes: tuple[Callable[[SharedStore], Awaitable[None]], ...] = (
                lambda each: each.write(encoded_entry()),
                lambda each: each.delete(GLOBAL_OWNER, "k"),
                lambda each: each.clear_partition((USER, "alice")),
                lambda each: each.mark_tag(None, "t", None),
                lambda each: each.mark_tag((USER, "alice"), "t", 5.0),
                lambda each: each.clear(),
            )
            for number, change in enumerate(changes):
                one, other = (store, peer) if number % 2 else (peer, store)
                await change(one)
                await self.settled(one)
                seen.append((await other.claim(GLOBAL_OWNER, "x", waits=False)).generation)
            assert seen == sorted(set(seen))

        self.run_shared(act)

    @pytest.mark.parametrize("by_peer", [False, True], ids=["itself", "a peer"])
    @pytest.mark.parametrize("was_there", [False, True], ids=["nothing", "something"])
    @pytest.mark.parametrize(
        "change", ["delete", "write", "clear_partition", "clear", "mark_tag", "mark_tag of the owner"]
    )
    def test_what_was_removed_or_written_during_a_fetch_is_not_undone_by_it(
        self,
        change: str,
        was_there: bool,  # noqa: FBT001 (a parameter of pytest's)
        by_peer: bool,  # noqa: FBT001 (as above)
    ) -> None:
        """Scenario SF-10, across processes."""

        async def act(store: SharedStore, peer: SharedStore) -> None:
            if was_there:
                await store.write(encoded_entry(value="old", tags=("t",)))
            claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
            other = peer if by_peer else store
            if change == "delete":
                await other.delete(GLOBAL_OWNER, "k")
            elif change == "write":
                await other.write(encoded_entry(value="new", tags=("t",)))
            elif change == "clear_partition":
                await other.clear_partition(GLOBAL_OWNER)
            elif change == "clear":
                await other.clear()
            else:
                await other.mark_tag(None if change == "mark_tag" else GLOBAL_OWNER, "t", None)
            await self.settled(other)
            is_kept = await store.commit(encoded_entry(value="fetched", tags=("t",)), claim)
            await self.settled(store)
            if change in {"delete", "write"}:
                assert not is_kept
            for each in (store, peer):
                found = await each.read(GLOBAL_OWNER, "k")
                if change == "write":
                    assert found is not None
                    assert found.value == a_value("new")
                else:
                    assert found is None

        self.run_shared(act)

    def test_a_change_elsewhere_keeps_nothing_from_being_committed(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            claim = await store.claim((USER, "alice"), "k", waits=True)
            await peer.delete((USER, "alice"), "l")
            await peer.write(encoded_entry(owner=(USER, "bob")))
            await peer.clear_partition((USER, "bob"))
            await peer.mark_tag((USER, "bob"), "t", None)
            await peer.mark_tag(None, "u", None)
            await self.settled(peer)
            assert await store.commit(encoded_entry(owner=(USER, "alice"), tags=("t",)), claim)
            await self.settled(store)
            for each in (store, peer):
                found = await each.read((USER, "alice"), "k")
                assert found is not None
                assert found.value == a_value("value")

        self.run_shared(act)

    def test_rd7_who_was_away_for_too_long_does_not_write_over_a_successor(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            late = await store.claim(GLOBAL_OWNER, "k", waits=False)
            following = await peer.claim(GLOBAL_OWNER, "k", waits=False)
            assert await peer.commit(encoded_entry(value="younger"), following)
            await self.settled(peer)
            assert not await store.commit(encoded_entry(value="older"), late)
            await self.settled(store)
            for each in (store, peer):
                found = await each.read(GLOBAL_OWNER, "k")
                assert found is not None
                assert found.value == a_value("younger")

        self.run_shared(act)

    def test_whether_a_commit_that_nobody_waits_for_was_overtaken_is_heard(self) -> None:
        """Of a `DirectStore`: others have nothing that one could order without waiting."""

        async def act(store: SharedStore, peer: SharedStore) -> None:
            if not isinstance(store, DirectStore):
                return
            overtaken: list[str] = []
            claims = [await store.claim(GLOBAL_OWNER, key, waits=False) for key in ("kept", "removed", "deleted later")]
            await peer.delete(GLOBAL_OWNER, "removed")
            await self.settled(peer)
            for claim in claims:
                entry = encoded_entry(key=claim.key)
                commit = Change("commit", GLOBAL_OWNER, claim.key, entry, claim)
                while not store.enqueue(commit, partial(overtaken.append, claim.key)):
                    await store.flush()
            while not store.enqueue(Change("delete", GLOBAL_OWNER, "deleted later")):
                await store.flush()
            await store.flush()
            assert overtaken == ["removed"]
            for each in (store, peer):
                found = await each.read_many([(GLOBAL_OWNER, claim.key) for claim in claims])
                assert [entry is not None for entry in found] == [True, False, False]

        self.run_shared(act)

    # Marks

    def test_a_tag_takes_what_bears_it_and_nothing_else(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            owners = ((USER, "alice"), (USER, "bob"), GLOBAL_OWNER)
            for owner in owners:
                await store.write(encoded_entry(owner=owner, tags=("t", "u")))
                await store.write(encoded_entry(owner=owner, key="other", tags=("u",)))
            await self.settled(store)
            for place, gone in (((USER, "alice"), 1), (None, 3)):
                await peer.mark_tag(place, "t", None)
                await self.settled(peer)
                for each in (store, peer):
                    found = [await each.read(owner, "k") for owner in owners]
                    assert [entry is None for entry in found] == [True] * gone + [False] * (3 - gone)
                    others = await each.read_many([(owner, "other") for owner in owners])
                    assert None not in others
            await store.write(encoded_entry(owner=owners[0], tags=("t",)))
            await self.settled(store)
            assert await peer.read(owners[0], "k") is not None

        self.run_shared(act)

    def test_a_tag_may_leave_what_bears_it_stale(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            entry = encoded_entry(created_at=1_000.0, ttl_s=60.0, tags=("t",))
            await store.write(entry)
            await self.settled(store)
            await peer.mark_tag(None, "t", 1_010.0)
            await self.settled(peer)
            for each in (store, peer):
                found = await each.read(GLOBAL_OWNER, "k")
                assert found is not None
                assert (found.value, found.created_at) == (entry.value, 1_000.0)
                assert (found.expires_at, found.ttl_s) == (1_010.0, 10.0)

        self.run_shared(act)

    def test_cleared_keys_are_not_listed_and_what_came_since_is(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            for key in ("a", "b"):
                await store.write(encoded_entry(key=key))
            await store.clear_partition(GLOBAL_OWNER)
            await store.write(encoded_entry(key="c"))
            await self.settled(store)
            for each in (store, peer):
                assert list(await each.keys(GLOBAL_OWNER)) == ["c"]

        self.run_shared(act)

    # Leases

    def test_one_fetches_and_the_others_find_it(self) -> None:
        """Scenario SF-14."""

        async def act(store: SharedStore, peer: SharedStore) -> None:
            assert await store.read(GLOBAL_OWNER, "k") is None
            assert await peer.read(GLOBAL_OWNER, "k") is None
            claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
            assert claim.found is None
            assert claim.token
            waiting = asyncio.ensure_future(peer.claim(GLOBAL_OWNER, "k", waits=True))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            assert await store.commit(encoded_entry(value="theirs", created_at=2e9, ttl_s=None), claim)
            await self.settled(store)
            answer = await waiting
            assert answer.found is not None
            assert answer.found.value == a_value("theirs")

        self.run_shared(act)

    def test_what_came_between_a_read_and_a_claim_is_found(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            assert await peer.read(GLOBAL_OWNER, "k") is None
            first = await store.claim(GLOBAL_OWNER, "k", waits=True)
            assert await store.commit(encoded_entry(value="first", created_at=2e9, ttl_s=None), first)
            await self.settled(store)
            claim = await peer.claim(GLOBAL_OWNER, "k", waits=True)
            assert claim.found is not None
            assert claim.found.value == a_value("first")
            await peer.release(claim)
            # What it has read, it does not find: it wants another one.
            assert await peer.read(GLOBAL_OWNER, "k") is not None
            again = await peer.claim(GLOBAL_OWNER, "k", waits=True)
            assert again.found is None
            assert again.token

        self.run_shared(act)

    def test_who_gives_up_lets_the_next_one_fetch(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            claim = await store.claim(GLOBAL_OWNER, "k", waits=True)
            waiting = asyncio.ensure_future(peer.claim(GLOBAL_OWNER, "k", waits=True))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await store.release(claim)
            following = await waiting
            assert following.found is None
            assert following.token

        self.run_shared(act)

    def test_who_does_not_wait_is_not_kept_waiting(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            await store.claim(GLOBAL_OWNER, "k", waits=True)
            claim = await asyncio.wait_for(peer.claim(GLOBAL_OWNER, "k", waits=False), 1.0)
            assert claim.found is None
            assert await peer.commit(encoded_entry(), claim)

        self.run_shared(act)

    def test_a_lease_is_given_up_by_nobody_but_its_holder(self) -> None:
        """Scenario RD-8."""

        async def act(store: SharedStore, peer: SharedStore) -> None:
            held = await store.claim(GLOBAL_OWNER, "k", waits=True)
            stranger = await peer.claim(GLOBAL_OWNER, "k", waits=False)
            await peer.release(stranger)
            await peer.release(replace(held, token=b"somebody else's"))
            await self.settled(peer)
            waiting = asyncio.ensure_future(peer.claim(GLOBAL_OWNER, "k", waits=True))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await store.release(held)
            assert (await waiting).found is None

        self.run_shared(act)

    def test_a_cancelled_wait_for_a_claim_leaves_nothing_behind(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            held = await store.claim(GLOBAL_OWNER, "k", waits=True)
            waiting = asyncio.ensure_future(peer.claim(GLOBAL_OWNER, "k", waits=True))
            await asyncio.sleep(0.03)
            waiting.cancel()
            await asyncio.wait({waiting})
            assert waiting.cancelled()
            await store.release(held)
            claim = await asyncio.wait_for(store.claim(GLOBAL_OWNER, "k", waits=True), 2.0)
            assert claim.token

        self.run_shared(act)

    # Coming and going

    def test_used_again_after_closing_it_opens_anew(self) -> None:
        async def act(store: SharedStore, peer: SharedStore) -> None:
            for number in range(3):
                await store.write(encoded_entry(value=number))
                await store.aclose()
                found = await peer.read(GLOBAL_OWNER, "k")
                assert found is not None
                assert found.value == a_value(number)
                found = await store.read(GLOBAL_OWNER, "k")
                assert found is not None
                assert found.value == a_value(number)

        self.run_shared(act)


class EncodingStore:
    """A store of values over one of bytes: it encodes as a cache does, and answers entries without generation."""

    def __init__(self, store: Store) -> None:
        self.store = store

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        entry = await self.store.read(owner, key)
        return entry and replace(entry, value=json.loads(entry.value.payload), generation=0)

    async def write(self, entry: StoredEntry) -> None:
        await self.store.write(replace(entry, value=a_value(entry.value)))

    async def delete(self, owner: Owner, key: str) -> None:
        await self.store.delete(owner, key)

    async def clear_partition(self, owner: Owner) -> None:
        await self.store.clear_partition(owner)

    async def clear(self) -> None:
        await self.store.clear()

    async def keys(self, owner: Owner) -> Collection[str]:
        return await self.store.keys(owner)


def a_value(value: object) -> Encoded:
    """`value`, as a store that keeps bytes is handed it."""
    return Encoded(json.dumps(value).encode())


def encoded_entry(*, value: object = "value", tags: tuple[str, ...] = (), **fields: Any) -> StoredEntry:  # noqa: ANN401 (those of `an_entry`)
    """`an_entry` for a store that keeps bytes."""
    return replace(an_entry(value=a_value(value), **fields), tags=tags)


def an_entry(
    *,
    owner: Owner = GLOBAL_OWNER,
    key: str = "k",
    value: object = "value",
    is_failure: bool = False,
    created_at: float = 1_767_225_600.25,
    ttl_s: float | None = 60.0,
) -> StoredEntry:
    """An entry like any other, but for what is named."""
    expires_at = None if ttl_s is None else created_at + ttl_s
    return StoredEntry(owner, key, value, is_failure, created_at, ttl_s, expires_at)


def shown(place: object) -> str:
    """`place`, short enough for a message."""
    text = ascii(place)
    return text if len(text) < 60 else f"{text[:40]}... ({len(text)} characters)"  # noqa: PLR2004 (a line)


def _machine(  # noqa: C901 (a class with a rule for each method)
    contract: StoreContract, loop: asyncio.AbstractEventLoop
) -> type[RuleBasedStateMachine]:
    """A state machine on `contract`'s store, beside a dict that says what is right."""
    short = [text for text in contract.texts if len(text) < 100]  # noqa: PLR2004 (the long ones have a test of their own)
    names = st.sampled_from(short[:8]) | st.sampled_from(short)
    owners = st.sampled_from(OWNERS) | st.builds(
        lambda scope, name: (scope, name), st.sampled_from([USER, SESSION]), names
    )

    class StoreAgainstDict(RuleBasedStateMachine):
        used_owners = Bundle("used_owners")
        used_keys = Bundle("used_keys")

        def __init__(self) -> None:
            super().__init__()
            self.model: dict[tuple[Owner, str], StoredEntry] = {}
            self.made = loop.run_until_complete(_made(contract))
            self.store = contract.spoken_to(self.made)

        def do(self, call: Awaitable[Any]) -> Any:  # noqa: ANN401 (whatever the store answers)
            assert inspect.iscoroutine(call), "a store's methods are coroutine functions"
            return loop.run_until_complete(call)

        @rule(target=used_owners, owner=owners)
        def meet_owner(self, owner: Owner) -> Owner:
            return owner

        @rule(target=used_keys, key=names)
        def meet_key(self, key: str) -> str:
            return key

        @rule(
            owner=used_owners,
            key=used_keys,
            value=contract.values,
            is_failure=st.booleans(),
            created_at=INSTANTS,
            ttl_s=st.none() | st.floats(0.0, 1e9),
        )
        def write(
            self,
            owner: Owner,
            key: str,
            value: object,
            is_failure: bool,  # noqa: FBT001 (drawn by Hypothesis)
            created_at: float,
            ttl_s: float | None,
        ) -> None:
            entry = an_entry(
                owner=owner,
                key=key,
                value=value,
                is_failure=is_failure,
                created_at=created_at,
                ttl_s=ttl_s,
            )
            self.do(self.store.write(entry))
            self.model[owner, key] = entry

        @rule(owner=used_owners, key=used_keys)
        def read(self, owner: Owner, key: str) -> None:
            assert self.do(self.store.read(owner, key)) == self.model.get((owner, key))

        @rule(owner=used_owners, key=used_keys)
        def delete(self, owner: Owner, key: str) -> None:
            self.do(self.store.delete(owner, key))
            self.model.pop((owner, key), None)

        @rule(owner=used_owners)
        def clear_partition(self, owner: Owner) -> None:
            self.do(self.store.clear_partition(owner))
            self.model = {place: entry for place, entry in self.model.items() if place[0] != owner}

        @rule()
        def clear(self) -> None:
            self.do(self.store.clear())
            self.model.clear()

        @rule(owner=used_owners)
        def keys(self, owner: Owner) -> None:
            expected = sorted(key for each, key in self.model if each == owner)
            assert sorted(self.do(self.store.keys(owner))) == expected

        @invariant()
        def nothing_is_lost(self) -> None:
            if self.model:
                place, entry = next(reversed(self.model.items()))
                assert self.do(self.store.read(*place)) == entry

        def teardown(self) -> None:
            try:
                for place, entry in self.model.items():
                    assert self.do(self.store.read(*place)) == entry
            finally:
                loop.run_until_complete(contract.close_store(self.made))

    return StoreAgainstDict


async def _made(contract: StoreContract) -> Store:
    """A store that is made inside the event loop in which it is used."""
    return contract.make_store()
