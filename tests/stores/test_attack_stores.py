"""Stores that misbehave, and values that are not what they seem: no answer is lost to them, and none is wrong."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from returns.result import Failure, Success

from cachemesh import FetchTimeout, Lifetime, StoreFailed, SyncCache, UndecodableEntry, frozen
from cachemesh.core.scopes import GLOBAL_OWNER, SESSION_OWNER
from cachemesh.shell import health, store_line, thread_driver
from cachemesh.shell.ports import Claim, Encoded, StoredEntry
from cachemesh.stores import MemoryStore, SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from cachemesh.core.scopes import Owner
    from tests.shell.faces import Face

FOUND = StoredEntry(
    GLOBAL_OWNER, "k", Encoded(b'"found"'), is_failure=False, created_at=0.0, ttl_s=None, expires_at=None
)


class Odd(BaseException):
    """No Exception."""


class OddStore:
    """A `SharedStore` over a dict. `acts[name]`: what the method of that name does instead."""

    def __init__(self, **acts: Callable[[], Any]) -> None:
        self._inner = MemoryStore()
        self.acts = acts

    async def _act(self, name: str, otherwise: Any) -> Any:
        act = self.acts.get(name)
        answer = otherwise if act is None else act()
        return await answer if asyncio.iscoroutine(answer) else answer

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        found: StoredEntry | None = await self._inner.read(owner, key)
        return found

    async def read_many(self, places: Sequence[tuple[Owner, str]], /) -> Sequence[StoredEntry | None]:
        found = [await self._inner.read(*place) for place in places]
        return await self._act("read_many", found)  # type: ignore[no-any-return]  # whatever it is

    async def write(self, entry: StoredEntry) -> None:
        await self._inner.write(entry)

    async def delete(self, owner: Owner, key: str) -> None:
        await self._act("delete", None)
        await self._inner.delete(owner, key)

    async def clear_partition(self, owner: Owner) -> None:
        await self._inner.clear_partition(owner)

    async def clear(self) -> None:
        await self._inner.clear()

    async def keys(self, owner: Owner) -> Collection[str]:
        return await self._inner.keys(owner)

    async def claim(self, owner: Owner, key: str, *, waits: bool, knows_none: bool = False) -> Claim:
        del waits, knows_none
        return await self._act("claim", Claim(owner, key, 1))  # type: ignore[no-any-return]  # whatever it is

    async def commit(self, entry: StoredEntry, claim: Claim) -> bool:
        del claim
        await self._inner.write(entry)
        return True

    async def release(self, claim: Claim) -> None:
        """Nothing is leased."""

    async def mark_tag(self, owner: Owner | None, tag: str, stale_at: float | None) -> None:
        """Tags are not looked at."""

    async def flush(self) -> None:
        await self._act("flush", None)

    async def aclose(self) -> None:
        await self._act("aclose", None)


def raising(error: type[BaseException]) -> Callable[[], Any]:
    def act() -> None:
        raise error

    return act


def hang() -> Any:
    return asyncio.sleep(10_000)


async def stubborn() -> None:
    """It does not let itself be cancelled."""
    while True:
        try:
            await asyncio.sleep(10_000)
        except asyncio.CancelledError:
            continue


def claiming(found: object) -> Callable[[], Any]:
    return lambda: Claim(GLOBAL_OWNER, "k", 1, found=found)  # type: ignore[arg-type]  # whatever it is


BAD_CLAIMS = {
    "raises-odd": raising(Odd),
    "raises-cancelled": raising(asyncio.CancelledError),
    "raises-an-error": raising(ValueError),
    "is-a-str": lambda: "junk",
    "is-of-another-key": lambda: Claim(GLOBAL_OWNER, "other", 1),
    "is-of-another-owner": lambda: Claim(SESSION_OWNER, "k", 1),
    "found-a-str": claiming("junk"),
    "found-another-key": claiming(replace(FOUND, key="other")),
    "found-another-owner": claiming(replace(FOUND, owner=SESSION_OWNER)),
    "found-no-instant": claiming(replace(FOUND, created_at=math.nan)),
    "found-a-text-for-an-instant": claiming(replace(FOUND, expires_at="soon")),
    "found-no-tags": claiming(replace(FOUND, tags=5)),
    "found-no-bytes": claiming(replace(FOUND, value="found")),
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
def test_st6_a_claim_that_is_none_costs_no_answer(face: Face, name: str) -> None:
    """What `claim` raises or answers, a caller never sees, and nothing of it becomes a value."""
    cache = face.new(store=OddStore(claim=BAD_CLAIMS[name]))
    fetch = face.fetcher(Success("fetched"))

    assert cache.get("k", fetch, ttl=60) == Success("fetched")
    assert cache.get("k", fetch, ttl=60) == Success("fetched")
    assert fetch.calls == 1
    told = [error for _, _, error in cache.log.named("error")]
    assert [type(error) for error in told] in ([StoreFailed], [UndecodableEntry], [UndecodableEntry] * 2)
    cache.close()


def test_st6_what_was_found_is_not_believed_while_it_is_doubted(face: Face) -> None:
    """A removal that failed is made up for later; until then a claim may not bring back what was removed."""
    store = OddStore(delete=raising(OSError))
    cache = face.new(store=store)
    assert cache.get("k", face.fetcher(Success("found")), ttl=60) == Success("found")

    cache.invalidate("k")
    store.acts = {"claim": claiming(FOUND), "delete": raising(OSError)}
    assert cache.get("k", face.fetcher(Success("fetched")), ttl=60) == Success("fetched")
    cache.close()


def test_st6_a_claim_that_hangs_leaves_the_store_alone(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for as long as another process may be, once."""
    monkeypatch.setattr(store_line, "LONGEST_CLAIM_S", 0.05)
    monkeypatch.setattr(health, "COOL_DOWN_S", 60.0)
    cache = face.new(store=OddStore(claim=hang))

    assert cache.get("k", face.fetcher(Success(1))) == Success(1)
    before = time.monotonic()
    assert [cache.get(f"k{n}", face.fetcher(Success(n))) for n in range(20)] == [Success(n) for n in range(20)]
    assert time.monotonic() - before < 0.5
    cache.close()


@pytest.mark.parametrize("error", [Odd, asyncio.CancelledError, ValueError])
def test_st6_a_flush_that_fails_is_a_failure(face: Face, error: type[BaseException]) -> None:
    cache = face.new(store=OddStore(flush=raising(error)))
    cache.fill("k", 1)

    answer = cache.call("flush")
    assert isinstance(answer, Failure)
    assert type(answer.failure()) is StoreFailed
    cache.close()


@pytest.mark.parametrize("error", [Odd, asyncio.CancelledError, ValueError])
def test_st6_a_store_that_does_not_close_is_told_of(face: Face, error: type[BaseException]) -> None:
    cache = face.new(store=OddStore(aclose=raising(error)))
    cache.fill("k", 1)
    cache.close()
    assert [type(each) for _, _, each in cache.log.named("error")] == [StoreFailed]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("method", ["claim", "flush", "aclose"])
def test_st6_an_exit_of_the_stores_own_ends_no_thread(method: str, error: type[BaseException]) -> None:
    """Not the one in which the store is spoken to: everybody would wait for it for ever."""
    cache = SyncCache(store=OddStore(**{method: raising(error)}))
    assert cache.get("k", lambda: Success(1)) == Success(1)
    cache.flush()
    assert cache.get("k2", lambda: Success(2)) == Success(2)
    cache.close()


@pytest.mark.parametrize("act", [hang, stubborn])
@pytest.mark.parametrize("method", ["aclose", "delete"])
def test_st6_closing_ends_though_the_store_does_not(
    method: str, act: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_driver, "CLOSE_GRACE_S", 0.05)
    monkeypatch.setattr(thread_driver, "LONGEST_CLOSE_S", 0.05)
    monkeypatch.setattr(health, "TIMEOUT_S", 0.05)
    cache = SyncCache(store=OddStore(**{method: act}))
    cache.invalidate("k")
    before = time.monotonic()
    cache.close()
    assert time.monotonic() - before < 2


# Values


def restarted(path: Path, **settings: Any) -> SyncCache:
    return SyncCache(store=SqliteStore(path), **settings)


@pytest.mark.parametrize("value", [(1, 2), ([1],), (), {"a": (1,)}])
@pytest.mark.parametrize("schema", [None, Any])
def test_st1_a_tuple_does_not_come_back_as_a_list(tmp_path: Path, value: object, schema: object) -> None:
    """It is no JSON, so it is not stored, and in no snapshot."""
    path = tmp_path / "cache.db"
    before = restarted(path)
    assert before.get("k", lambda: Success(value), schema=schema, ttl=60) == Success(value)
    assert before.put("p", value, schema=schema, ttl=60) == Success(value)
    snapshot = before.dehydrate()
    assert (len(snapshot), snapshot.left_out) == (0, 2)
    before.close()

    after = restarted(path)
    assert after.get("k", lambda: Failure("miss"), schema=schema) == Failure("miss")
    assert after.get("p", lambda: Failure("miss"), schema=schema) == Failure("miss")
    after.close()


@pytest.mark.parametrize("schema", [None, list[Any]])
def test_st1_what_is_frozen_comes_back_frozen(tmp_path: Path, schema: object) -> None:
    """Also where it has been touched or updated since: then what is written is what memory holds."""
    path = tmp_path / "cache.db"
    before = restarted(path, freeze=frozen)
    for key in ("got", "touched", "updated"):
        before.get(key, lambda: Success([1, {"a": [2]}]), schema=schema, ttl=60)
    assert before.touch("touched", ttl=90) == Success(None)
    before.update("updated", lambda value: value)
    expected = before.peek("got")
    snapshot = before.dehydrate()
    assert (len(snapshot), snapshot.left_out) == (3, 0)
    before.close()

    after = restarted(path, freeze=frozen)
    for key in ("got", "touched", "updated"):
        assert after.get(key, lambda: Failure("miss"), schema=schema) == expected, key
    after.close()


class Anything:
    """No JSON."""


@pytest.mark.parametrize(("key", "after"), [("half \ud800", 1.0), (Anything(), 1.0), ("k", Anything())])
def test_st1_a_timeout_of_a_fetchers_own_costs_no_answer(face: Face, key: Any, after: Any) -> None:
    """Whatever stands in it: it is answered, remembered in memory, and not stored."""
    cache = face.new(store=OddStore(), cache_failures=True)
    failure = Failure(FetchTimeout(key, after))

    assert cache.get("k", face.fetcher(failure), ttl=Lifetime(ttl=60, failure_ttl=60)) == failure
    assert cache.has_cached_failure("k")
    assert cache.at_once("dehydrate").left_out == 1
    cache.close()
