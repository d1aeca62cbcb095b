"""Counterparts of `cache_test.dart`: failures by default, manual control, peek, and `dispose`.

What is `dispose` there is `aclose` and `close` here.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from returns.result import Failure, Success

from cachemesh import CacheClosed, CacheExpired, CacheMiss, CachePolicy, CacheScope, FetchRaised, SyncCache

if TYPE_CHECKING:
    from tests.shell.faces import AsyncFace, Face, SyncFace


# failures are not cached by default


def test_a_failed_fetch_leaves_the_cache_empty(face: Face) -> None:
    assert face.get("k", face.fetcher(Failure("boom"))) == Failure("boom")
    assert face.peek("k") == Failure(CacheMiss("k"))
    assert not face.has_cached_failure("k")


def test_raised_exceptions_are_converted_to_a_failure(face: Face) -> None:
    error = LookupError("nope")

    assert face.get("k", face.fetcher(error), policy=CachePolicy.NETWORK_ONLY) == Failure(FetchRaised("k", error))


# manual control


def test_refresh_forces_a_fetch_and_updates_the_cache(face: Face) -> None:
    fetch = face.fetcher(Success(1), Success(2))
    face.get("k", fetch)

    assert face.refresh("k", fetch) == Success(2)
    assert face.peek("k") == Success(2)
    assert fetch.calls == 2


def test_a_failed_refresh_answers_its_failure_and_keeps_the_entry(face: Face) -> None:
    face.fill("k", 1)

    assert face.refresh("k", face.fetcher(Failure("down"))) == Failure("down")
    assert face.peek("k") == Success(1)


def test_refresh_replaces_the_ttl(face: Face) -> None:
    face.fill("k", 1, ttl=10)
    face.refresh("k", face.fetcher(Success(2)), ttl=None)

    assert face.inspect("k").ttl is None


def test_invalidate_drops_the_entry(face: Face) -> None:
    face.get("k", face.fetcher(Success(1)))
    face.invalidate("k")

    assert face.peek("k") == Failure(CacheMiss("k"))


def test_invalidate_drops_the_key_from_all_that_the_caller_sees(face: Face) -> None:
    face.set_active_user("alice")
    for scope in CacheScope:
        face.fill("k", scope.value, scope=scope)
    face.invalidate("k")

    assert [face.peek("k", scope=scope) for scope in CacheScope] == [Failure(CacheMiss("k"))] * 3


def test_invalidate_in_one_scope_leaves_the_others(face: Face) -> None:
    face.fill("k", "everybody's")
    face.fill("k", "of the session", scope=CacheScope.SESSION)
    face.invalidate("k", scope=CacheScope.SESSION)

    assert face.peek("k") == Success("everybody's")


def test_invalidate_of_an_unknown_key_does_nothing(face: Face) -> None:
    face.fill("k", 1)
    face.invalidate("other")

    assert face.peek("k") == Success(1)


def test_clear_empties_the_entire_cache(face: Face) -> None:
    face.set_active_user("alice")
    face.fill("a", 1)
    face.fill("b", 2, scope=CacheScope.SESSION)
    face.fill("c", 3, scope=CacheScope.USER)
    face.clear()

    assert [face.peek(key) for key in "abc"] == [Failure(CacheMiss(key)) for key in "abc"]
    assert face.active_user_id == "alice"


def test_prefetch_warms_the_cache_so_the_next_get_is_a_hit(face: Face) -> None:
    fetch = face.fetcher(Success(7), Success(99))

    assert face.prefetch("k", fetch) == Success(7)
    assert face.get("k", fetch) == Success(7)
    assert fetch.calls == 1


def test_prefetch_fetches_whatever_is_cached(face: Face) -> None:
    face.fill("k", 1)

    assert face.prefetch("k", face.fetcher(Success(2))) == Success(2)
    assert face.peek("k") == Success(2)


# peek


def test_peek_respects_expiration_by_default(face: Face) -> None:
    face.get("k", face.fetcher(Success(1)), ttl=5)
    face.clock.advance(10)

    assert face.peek("k") == Failure(CacheExpired("k"))
    assert face.peek("k", allow_expired=True) == Success(1)


def test_peek_of_a_missing_key_is_a_miss(face: Face) -> None:
    assert face.peek("k") == Failure(CacheMiss("k"))
    assert face.peek("k", allow_expired=True) == Failure(CacheMiss("k"))


def test_peek_looks_at_the_narrowest_scope_first(face: Face) -> None:
    face.set_active_user("alice")
    seen = []
    for scope in CacheScope:  # from the widest to the narrowest
        face.fill("k", scope.value, scope=scope)
        seen.append(face.peek("k"))

    assert seen == [Success("global"), Success("session"), Success("user")]
    assert [face.peek("k", scope=scope) for scope in CacheScope] == seen


def test_peek_neither_fetches_nor_logs(face: Face) -> None:
    face.fill("k", 1)
    face.peek("k")
    face.peek("other")

    assert face.log.events == []


# dispose


def test_close_ends_watches(face: Face) -> None:
    heard = face.follow("k")
    face.close()
    face.settle()

    assert heard.has_ended


def test_close_is_idempotent(face: Face) -> None:
    face.close()
    face.close()


def test_a_closed_cache_answers_that_it_is_closed(face: Face) -> None:
    """The original's stays usable after `dispose`; ours has let go of its tasks and threads."""
    fetch = face.fetcher(Success(1))
    face.close()

    assert face.get("k", fetch) == Failure(CacheClosed())
    assert fetch.calls == 0


@pytest.mark.parametrize("policy", [CachePolicy.CACHE_FIRST, CachePolicy.NETWORK_ONLY], ids=lambda policy: policy.name)
def test_close_answers_those_who_wait(async_face: AsyncFace, policy: CachePolicy) -> None:
    pending = [async_face.begin.get("k", async_face.fetcher(Success(1), held=True), policy=policy) for _ in range(3)]
    async_face.close()
    async_face.settle()

    assert [each.is_done for each in pending] == [True] * 3
    assert [each.result() for each in pending] == [Failure(CacheClosed())] * 3


def test_close_waits_for_a_thread_that_is_about_to_begin() -> None:
    ended: list[str] = []

    class Late(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            try:
                super().join(timeout)
            except RuntimeError:
                self.start()
                raise

    cache = SyncCache()
    late = Late(target=ended.append, args=("late",))
    cache._domain._threads.add(late)
    cache.close()
    assert ended == ["late"]
    assert not late.is_alive()


def test_a_fetch_that_ends_after_close_is_answered_and_stored_nowhere(sync_face: SyncFace) -> None:
    """A thread cannot be stopped, so whoever fetches is answered when the fetch ends."""
    fetch = sync_face.fetcher(Success(1), held=True)
    pending = sync_face.begin.get("k", fetch)
    sync_face.close()
    assert not pending.is_done

    fetch.release()
    assert pending.result() in {Success(1), Failure(CacheClosed())}
    assert sync_face.log.named("write") == []
