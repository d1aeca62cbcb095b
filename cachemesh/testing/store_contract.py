"""What every store promises, as tests that a store of your own inherits.

    class TestMyStore(StoreContract):
        def make_store(self) -> Store:
            return MyStore()

Not here: bounds, eviction, durability, speed. Those are each store's own.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cachemesh.core.scopes import GLOBAL_OWNER, SESSION_OWNER, CacheScope, Owner
from cachemesh.shell.ports import StoredEntry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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
                await act(store)
            finally:
                await self.close_store(store)

        asyncio.run(acting())

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
            await store.clear()
            assert list(keys) == ["k"]

        self.run(act)

    # At the same time

    def test_concurrent_writings_of_many_keys_are_all_kept(self) -> None:
        async def act(store: Store) -> None:
            entries = [
                an_entry(owner=owner, key=f"k{number}", value=number) for owner in OWNERS for number in range(50)
            ]
            await asyncio.gather(*(store.write(entry) for entry in entries))
            found = await asyncio.gather(*(store.read(entry.owner, entry.key) for entry in entries))
            assert found == entries

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
            self.store = loop.run_until_complete(_made(contract))

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
                loop.run_until_complete(contract.close_store(self.store))

    return StoreAgainstDict


async def _made(contract: StoreContract) -> Store:
    """A store that is made inside the event loop in which it is used."""
    return contract.make_store()
