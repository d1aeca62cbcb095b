"""`Fresh`, `DoNotCache`, `NotModified` and `Previous`: what a fetcher says of its answer's caching."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from returns.io import IOSuccess
from returns.result import Failure, Result, Success

from cachemesh import (
    Cache,
    CacheExpired,
    CacheMiss,
    CachePolicy,
    CacheScope,
    Directed,
    DoNotCache,
    Fresh,
    InvalidFetchResult,
    InvalidOption,
    Lifetime,
    NotModified,
    Previous,
    RetryOptions,
    ValueNotCopied,
    cached,
)
from tests.scenarios.helpers import ScriptedStore, under_way

if TYPE_CHECKING:
    from tests.shell.faces import Face, Fetch

OLD, NEW = Success("old"), Success("new")
DOWN = Failure("down")
MISS = Failure(CacheMiss("k"))
NOT_MODIFIED = Success(NotModified())


def remember(face: Face, value: str = "old", **said: Any) -> None:
    """Put `value` under `k` as a fetcher would that says so much of it."""
    assert face.get("k", face.fetcher(Success(Fresh(value, **said)))) == Success(value)
    face.log.take()


def seen(fetch: Fetch) -> list[Any]:
    """What the fetcher was handed, call by call."""
    return [arguments[0] for arguments in fetch.arguments]


# Fresh


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (Fresh("old", ttl=5), 5),
        (Fresh("old", ttl=0.5), 0.5),
        (Fresh("old", ttl=timedelta(minutes=2)), 120),
        (Fresh("old", ttl=Lifetime(ttl="5m")), 300),
        (Fresh("old"), 60),
        (Fresh("old", ttl=None), None),
        (Fresh("old", ttl=Lifetime()), None),
    ],
)
@pytest.mark.parametrize("method", ["get", "refresh", "prefetch"])
def test_an_answer_has_the_ttl_that_it_says(face: Face, method: str, said: Any, seconds: float | None) -> None:
    assert face.call(method, "k", face.fetcher(Success(said)), ttl=60) == OLD
    ttl = face.inspect("k").ttl
    assert ttl == (None if seconds is None else timedelta(seconds=seconds))
    assert face.log.named("write") == [("write", "k", seconds)]


def test_an_answer_without_a_ttl_of_its_own_has_the_callers_windows(face: Face) -> None:
    life = Lifetime(ttl=60, stale_if_error_for=60)
    face.get("k", face.fetcher(Success(Fresh("old", ttl=5))), ttl=life)
    face.clock.advance(64.9)
    assert face.get("k", face.fetcher(DOWN), ttl=life) == OLD
    face.clock.advance(0.1)
    assert face.get("k", face.fetcher(DOWN), ttl=life) == DOWN


def test_an_answer_with_a_lifetime_of_its_own_has_its_windows(face: Face) -> None:
    said = Fresh("old", ttl=Lifetime(ttl=5, stale_if_error_for=10))
    face.get("k", face.fetcher(Success(said)), ttl=Lifetime(ttl=60, stale_if_error_for=60))
    face.clock.advance(14.9)
    assert face.get("k", face.fetcher(DOWN)) == OLD
    face.clock.advance(0.1)
    assert face.get("k", face.fetcher(DOWN), cache_failures=False) == DOWN


# Private answers


@pytest.mark.parametrize("directive", [Fresh, DoNotCache])
def test_a_private_answer_is_neither_kept_nor_shared_in_the_global_scope(face: Face, directive: Any) -> None:
    """Each of those who wait at once gets what his own fetcher answers."""
    fetches = [face.fetcher(Success(directive(name, private=True)), held=True) for name in ("Ada", "Bob", "Cy")]
    waiting = [face.begin.get("me", fetch) for fetch in fetches]
    for fetch in fetches:
        fetch.release()
    assert [each.result() for each in waiting] == [Success("Ada"), Success("Bob"), Success("Cy")]
    assert face.peek("me") == Failure(CacheMiss("me"))


def test_joiners_of_a_private_answer_whose_leader_left_fetch_for_themselves() -> None:
    async def scenario() -> tuple[bool, Any]:
        may_answer = asyncio.Event()

        def fetcher(name: str) -> Any:
            async def fetch() -> Result[Directed[str], str]:
                await may_answer.wait()
                return Success(Fresh(name, private=True))

            return fetch

        async with Cache() as cache:
            leader, joiner = (asyncio.create_task(cache.get("me", fetcher(name))) for name in ("Ada", "Bob"))
            await asyncio.sleep(0)
            leader.cancel()
            await asyncio.wait([leader])
            may_answer.set()
            return leader.cancelled(), await joiner

    assert asyncio.run(scenario()) == (True, Success("Bob"))


@pytest.mark.parametrize("scope", [CacheScope.SESSION, CacheScope.USER])
def test_a_private_answer_is_kept_and_shared_in_its_users_scopes(face: Face, scope: CacheScope) -> None:
    face.set_active_user("ada")
    fetch = face.fetcher(Success(Fresh("Ada", private=True)), held=True)
    waiting = [face.begin.get("me", fetch, scope=scope) for _ in range(3)]
    fetch.release()
    assert [each.result() for each in waiting] == [Success("Ada")] * 3
    assert face.peek("me", scope=scope) == Success("Ada")
    assert fetch.calls == 1


def test_a_refresh_behind_that_became_private_leaves_what_is_cached(face: Face) -> None:
    """What is there was for everybody; what comes is not."""
    remember(face, ttl=5)
    behind = face.fetcher(Success(Fresh("Ada", private=True)))
    face.clock.advance(5)
    assert face.get("k", behind, policy=CachePolicy.STALE_WHILE_REVALIDATE) == OLD
    face.settle()
    assert behind.calls == 1
    assert face.peek("k", allow_expired=True) == OLD


def test_what_is_not_said_to_be_public_is_private(face: Face) -> None:
    """A flag that is neither True nor False costs sharing, not secrecy."""
    said: Any = Fresh("Ada", private=None)  # type: ignore[arg-type]
    assert face.get("k", face.fetcher(Success(said))) == Success("Ada")
    assert face.peek("k") == MISS


def test_joiners_get_the_value_and_not_the_directive(face: Face) -> None:
    fetch = face.fetcher(Success(Fresh("old", ttl=5)), held=True)
    waiting = [face.begin.get("k", fetch) for _ in range(3)]
    fetch.release()
    assert [each.result() for each in waiting] == [OLD] * 3
    assert face.get("k", fetch) == OLD
    assert fetch.calls == 1


def test_watchers_and_stores_get_the_value_and_not_the_directive(face: Face) -> None:
    store = ScriptedStore()
    other = face.new(store=store)
    heard = other.listen("k")
    said = Fresh("old", ttl=5, tags=("t",), validator="v1")
    assert other.get("k", other.fetcher(Success(said))) == OLD
    other.settle()
    assert heard.results == [OLD]
    other.close()
    (stored,) = store.kept.values()
    assert (stored.value, stored.ttl_s, stored.tags, stored.validator) == ("old", 5.0, ("t",), "v1")


def test_network_only_gets_the_value_and_stores_nothing(face: Face) -> None:
    for said in (Fresh("old", ttl=5), DoNotCache("old")):
        fetch = face.fetcher(Success(said))
        assert face.get("k", fetch, policy=CachePolicy.NETWORK_ONLY) == OLD
    assert face.peek("k") == MISS


def test_a_directive_may_come_in_io(face: Face) -> None:
    fetch = face.fetcher(lambda: IOSuccess(Fresh("old", ttl=5)))
    assert face.get("k", fetch) == OLD
    assert face.inspect("k").ttl == timedelta(seconds=5)


def test_a_failure_may_carry_a_directive_and_it_means_nothing(face: Face) -> None:
    said = Failure(Fresh("old", ttl=5))
    assert face.get("k", face.fetcher(said)) == said
    assert face.peek("k") == MISS


def test_tags_of_the_answer_are_beside_those_of_the_caller(face: Face) -> None:
    for tag in ("mine", "its", "both"):
        fetch = face.fetcher(Success(Fresh("old", tags=["its", "both"])))
        assert face.get("k", fetch, tags=("mine", "both")) == OLD
        face.at_once("invalidate_tag", "other")
        assert face.peek("k") == OLD
        face.at_once("invalidate_tag", tag)
        assert face.peek("k") == MISS


@pytest.mark.parametrize(
    "tags", ["one", b"one", 5, None, (5,), ("a", None), {"a": 1}, object(), iter(("a",))], ids=repr
)
def test_tags_that_are_none_are_a_failure_and_nothing_is_stored(face: Face, tags: Any) -> None:
    answer = face.get("k", face.fetcher(Success(Fresh("old", tags=tags))))
    assert answer == Failure(InvalidOption("tags", type(tags).__name__))
    assert face.peek("k") == MISS
    assert under_way(face.cache) == 0


class Evil:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError

    def __repr__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    "validator", [[], {}, set(), bytearray(b"v1"), Evil(), ([],)], ids=lambda each: type(each).__name__
)
def test_a_validator_of_the_wrong_type_is_a_failure_and_nothing_is_lost(face: Face, validator: Any) -> None:
    face.fill("k", "old", ttl=5)
    face.clock.advance(10)
    for number in range(2):
        answer = face.get("k", face.fetcher(Success(Fresh(number, validator=validator))))
        assert answer == Failure(InvalidOption("validator", type(validator).__name__))
    assert face.peek("k", allow_expired=True) == OLD
    assert under_way(face.cache) == 0


def test_a_bad_directive_is_a_failure_like_any_other(face: Face) -> None:
    """An old value may stand in for it; it is tried again; it tells of the code, so it is not remembered."""
    face.fill("k", "old", ttl=Lifetime(ttl=5, stale_if_error_for=60))
    face.clock.advance(10)
    fetch = face.fetcher(Success(Fresh("new", ttl=-1)), Success(Fresh("new", tags=5)), Success(Fresh("new", ttl=9)))
    assert face.get("k", fetch, cache_failures=True) == OLD
    assert not face.has_cached_failure("k")
    face.invalidate("k")
    assert face.get("k", fetch, retry=RetryOptions(max_attempts=2)) == NEW
    assert fetch.calls == 3


class Odd(type):
    """The type of a value may be unhashable, and may claim to equal anything."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other: object) -> bool:
        return True


class OddValue(metaclass=Odd):
    pass


def test_a_value_of_an_odd_type_is_a_value(face: Face) -> None:
    value = OddValue()
    assert face.get("k", face.fetcher(Success(value))).unwrap() is value
    assert face.peek("k").unwrap() is value


def test_a_directive_within_a_directive_is_a_value(face: Face) -> None:
    inner = Fresh("old", ttl=5)
    assert face.get("k", face.fetcher(Success(Fresh(inner, ttl=9)))) == Success(inner)
    assert face.peek("k") == Success(inner)


def test_reprs_name_no_values() -> None:
    for said in (Fresh("secret"), DoNotCache("secret"), Previous("secret", "v1", 1.0)):
        assert "secret" not in repr(said)


# DoNotCache


def test_what_is_not_to_be_cached_is_answered_and_stored_nowhere(face: Face) -> None:
    store = ScriptedStore()
    other = face.new(store=store)
    heard = other.listen("k")
    fetch = other.fetcher(Success(DoNotCache("new")), held=True)
    waiting = [other.begin.get("k", fetch, ttl=60) for _ in range(3)]
    fetch.release()
    assert [each.result() for each in waiting] == [NEW] * 3
    other.settle()
    assert other.peek("k") == MISS
    assert heard.results == []
    assert other.log.named("write") == []
    assert other.get("k", fetch) == NEW
    assert fetch.calls == 2
    other.close()
    assert store.kept == {}


def test_what_is_not_to_be_cached_leaves_what_is(face: Face) -> None:
    remember(face, ttl=5, validator="v1")
    face.clock.advance(10)
    assert face.get("k", face.fetcher(Success(DoNotCache("new")))) == NEW
    assert face.peek("k", allow_expired=True) == OLD
    assert face.peek("k") == Failure(CacheExpired("k"))


# NotModified and Previous


def test_a_conditional_fetch_is_handed_what_is_cached(face: Face) -> None:
    fetch = face.fetcher(
        Success(Fresh("old", ttl=10, validator='"v1"')), NOT_MODIFIED, Success(Fresh("new", ttl=10)), NEW
    )
    for _ in range(4):
        face.get("k", fetch, conditional=True, ttl=30)
        face.clock.advance(31)
    assert seen(fetch) == [
        None,
        Previous("old", '"v1"', 31.0),
        Previous("old", '"v1"', 31.0),  # Renewed, it was young again.
        Previous("new", None, 31.0),
    ]


def test_what_is_not_modified_lives_anew_for_the_callers_ttl(face: Face) -> None:
    remember(face, ttl=10, tags=("t",), validator="v1")
    face.clock.advance(20)
    assert face.get("k", face.fetcher(NOT_MODIFIED), conditional=True, ttl=30) == OLD
    fetch = face.fetcher(NOT_MODIFIED)
    face.clock.advance(29.9)
    assert face.get("k", fetch, conditional=True, ttl=30) == OLD
    assert fetch.calls == 0
    face.clock.advance(0.1)
    assert face.get("k", fetch, conditional=True, ttl=30) == OLD
    assert seen(fetch) == [Previous("old", "v1", 30.0)]
    face.at_once("invalidate_tag", "t")
    assert face.peek("k") == MISS


@pytest.mark.parametrize(("ttl", "seconds"), [(5, 5), (timedelta(seconds=7), 7), (Lifetime(ttl="9s"), 9), (None, None)])
def test_what_is_not_modified_may_have_a_lifetime_of_its_own(face: Face, ttl: Any, seconds: float | None) -> None:
    remember(face, ttl=10)
    face.clock.advance(20)
    assert face.get("k", face.fetcher(Success(NotModified(ttl=ttl))), conditional=True, ttl=30) == OLD
    assert face.inspect("k").ttl == (None if seconds is None else timedelta(seconds=seconds))


def test_what_is_not_modified_may_be_known_by_another_validator_from_now_on(face: Face) -> None:
    remember(face, ttl=10, tags=("t",), validator="v1")
    fetch = face.fetcher(Success(NotModified(ttl=10, validator="v2")), NOT_MODIFIED, NEW)
    for _ in range(3):
        face.clock.advance(31)
        face.get("k", fetch, conditional=True, ttl=30)
    assert [previous.validator for previous in seen(fetch)] == ["v1", "v2", "v2"]


def test_a_renewals_validator_is_checked_as_that_of_an_answer_is(face: Face) -> None:
    remember(face, ttl=10, validator="v1")
    face.clock.advance(20)
    answer = face.get("k", face.fetcher(Success(NotModified(validator=[]))), conditional=True, ttl=30)
    assert answer == Failure(InvalidOption("validator", "list"))
    assert "hunter2" not in repr(NotModified(validator="hunter2"))


def test_a_renewal_is_no_news_to_watchers_but_a_write_to_the_logger(face: Face) -> None:
    remember(face, ttl=10)
    heard = face.listen("k")
    face.clock.advance(20)
    assert face.get("k", face.fetcher(NOT_MODIFIED), conditional=True, ttl=30) == OLD
    face.settle()
    assert heard.results == []
    assert face.log.named("write") == [("write", "k", 30.0)]
    assert face.refresh("k", face.fetcher(NEW), conditional=True) == NEW
    face.settle()
    assert heard.results == [NEW]


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("method", ["get", "refresh", "prefetch"])
def test_not_modified_with_nothing_stored_is_a_failure(face: Face, method: str, conditional: bool) -> None:
    answer = face.call(method, "k", face.fetcher(NOT_MODIFIED), conditional=conditional)
    assert answer == Failure(InvalidFetchResult("k", "NotModified"))
    assert face.peek("k") == MISS
    assert face.log.named("error") == [("error", "k", InvalidFetchResult("k", "NotModified"))]
    assert under_way(face.cache) == 0


def test_not_modified_from_a_fetcher_that_was_not_asked_is_a_failure(face: Face) -> None:
    """It cannot have compared anything: it was handed nothing."""
    remember(face, ttl=10, validator="v1")
    face.clock.advance(20)
    assert face.get("k", face.fetcher(NOT_MODIFIED)) == Failure(InvalidFetchResult("k", "NotModified"))
    assert face.peek("k", allow_expired=True) == OLD


def test_not_modified_is_the_answer_of_everybody_who_joined(face: Face) -> None:
    remember(face, ttl=10)
    face.clock.advance(20)
    fetch = face.fetcher(NOT_MODIFIED, held=True)
    waiting = [
        face.begin.get("k", fetch, conditional=True),
        face.begin.get("k", face.fetcher(DOWN)),
        face.begin.refresh("k", face.fetcher(DOWN)),
        face.begin.get("k", fetch, conditional=True, policy=CachePolicy.NETWORK_FIRST),
    ]
    fetch.release()
    assert [each.result() for each in waiting] == [OLD] * 4
    assert fetch.calls == 1


def test_a_conditional_caller_may_join_a_plain_fetch(face: Face) -> None:
    remember(face, ttl=10, validator="v1")
    face.clock.advance(20)
    plain, conditional = face.fetcher(NEW, held=True), face.fetcher(NOT_MODIFIED)
    leader = face.begin.get("k", plain, ttl=10)
    joiner = face.begin.get("k", conditional, conditional=True, ttl=10)
    plain.release()
    assert (leader.result(), joiner.result()) == (NEW, NEW)
    assert conditional.calls == 0


def test_each_attempt_is_handed_what_is_cached_then(face: Face) -> None:
    remember(face, ttl=10, validator="v1")
    face.clock.advance(20)
    fetch = face.fetcher(DOWN, NOT_MODIFIED)
    retry = RetryOptions(max_attempts=2, delay=5)
    assert face.get("k", fetch, conditional=True, retry=retry, ttl=30) == OLD
    assert seen(fetch) == [Previous("old", "v1", 20.0), Previous("old", "v1", 25.0)]


REMOVALS = {
    "invalidate": lambda face: face.invalidate("k"),
    "clear": lambda face: face.clear(),
    "clear_scope": lambda face: face.clear_scope(CacheScope.GLOBAL),
    "invalidate_prefix": lambda face: face.at_once("invalidate_prefix", "k"),
    "invalidate_tag": lambda face: face.at_once("invalidate_tag", "t"),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_after_a_removal_there_is_no_previous(face: Face, removal: str) -> None:
    """Also where the removal is a mark on a tag, and the entry is still there behind it."""
    remember(face, tags=("t",), validator="v1")
    REMOVALS[removal](face)
    fetch = face.fetcher(NOT_MODIFIED)
    assert face.get("k", fetch, conditional=True) == Failure(InvalidFetchResult("k", "NotModified"))
    assert seen(fetch) == [None]


def test_what_was_made_stale_by_its_tag_is_still_a_previous(face: Face) -> None:
    remember(face, ttl=60, tags=("t",), validator="v1")
    face.clock.advance(5)
    face.at_once("expire_tag", "t")
    fetch = face.fetcher(NOT_MODIFIED)
    assert face.get("k", fetch, conditional=True, ttl=60) == OLD
    assert seen(fetch) == [Previous("old", "v1", 5.0)]
    assert face.peek("k") == OLD


@pytest.mark.parametrize("removal", REMOVALS)
def test_not_modified_brings_nothing_back_that_was_removed_meanwhile(face: Face, removal: str) -> None:
    remember(face, ttl=10, tags=("t",), validator="v1")
    face.clock.advance(20)
    fetch = face.fetcher(NOT_MODIFIED, held=True)
    before = face.begin.get("k", fetch, conditional=True)
    REMOVALS[removal](face)
    after = face.begin.get("k", face.fetcher(NEW), conditional=True, policy=CachePolicy.NETWORK_ONLY)
    fetch.release()
    assert (before.result(), after.result()) == (OLD, NEW)
    face.settle()
    assert face.peek("k", allow_expired=True) == MISS
    assert under_way(face.cache) == 0


def test_not_modified_does_not_overwrite_what_was_put_meanwhile(face: Face) -> None:
    remember(face, ttl=10, validator="v1")
    face.clock.advance(20)
    fetch = face.fetcher(NOT_MODIFIED, held=True)
    waiting = face.begin.get("k", fetch, conditional=True)
    face.at_once("put", "k", "new")
    fetch.release()
    assert waiting.result() == OLD
    face.settle()
    assert face.peek("k") == NEW


def test_not_modified_may_come_from_behind(face: Face) -> None:
    life = Lifetime(ttl=10, serve_stale_for=60)
    face.get("k", face.fetcher(Success(Fresh("old", validator="v1"))), ttl=life)
    face.clock.advance(20)
    fetch = face.fetcher(NOT_MODIFIED)
    assert face.get("k", fetch, conditional=True, ttl=life) == OLD
    face.settle()
    assert seen(fetch) == [Previous("old", "v1", 20.0)]
    assert face.inspect("k").is_fresh
    assert face.inspect("k").age == timedelta(0)


def test_a_validator_that_was_changed_by_hand_is_forgotten(face: Face) -> None:
    """The origin knows the value that was put, or worked out, by no validator."""
    for write in ("put", "update"):
        remember(face, validator="v1")
        change: Any = (lambda _: "mine") if write == "update" else "mine"
        assert face.at_once(write, "k", change) == Success("mine")
        fetch = face.fetcher(NEW)
        face.refresh("k", fetch, conditional=True)
        assert seen(fetch) == [Previous("mine", None, 0.0)]
        face.invalidate("k")


def test_touching_keeps_the_validator(face: Face) -> None:
    remember(face, ttl=10, validator="v1")
    face.clock.advance(20)
    face.at_once("touch", "k", ttl=60)
    fetch = face.fetcher(NOT_MODIFIED)
    assert face.refresh("k", fetch, conditional=True) == OLD
    assert seen(fetch) == [Previous("old", "v1", 20.0)]


def test_a_validator_comes_back_from_the_store(face: Face) -> None:
    store = ScriptedStore()
    first = face.new(store=store)
    first.get("k", first.fetcher(Success(Fresh("old", ttl=10, validator="v1", tags=("t",)))))
    first.close()
    face.clock.advance(20)

    second = face.new(store=store)
    fetch = second.fetcher(NOT_MODIFIED)
    assert second.get("k", fetch, conditional=True, ttl=30) == OLD
    assert seen(fetch) == [Previous("old", "v1", 20.0)]
    second.close()
    (stored,) = store.kept.values()
    assert (stored.value, stored.ttl_s, stored.tags, stored.validator) == ("old", 30.0, ("t",), "v1")


def test_each_user_has_a_previous_of_its_own(face: Face) -> None:
    alice, bob = face.for_user("alice"), face.for_user("bob")
    for view, value in ((alice, "a"), (bob, "b")):
        view.get("k", view.fetcher(Success(Fresh(value, ttl=10, validator=value))), scope=CacheScope.USER)
    face.clock.advance(20)
    for view, value in ((alice, "a"), (bob, "b")):
        fetch = view.fetcher(NOT_MODIFIED)
        assert view.get("k", fetch, scope=CacheScope.USER, conditional=True) == Success(value)
        assert seen(fetch) == [Previous(value, value, 20.0)]
    fetch = face.fetcher(NEW)
    face.get("k", fetch, conditional=True)
    assert seen(fetch) == [None]


def test_a_fetcher_cannot_change_the_cached_value_through_its_previous(face: Face) -> None:
    other = face.new(copy_on_read=True)
    other.refresh("k", other.fetcher(lambda: Success(["old"])))

    def spoil(previous: Any) -> Result[Any, Any]:
        previous.value.append("spoilt")
        return NOT_MODIFIED

    assert other.refresh("k", other.fetcher(spoil), conditional=True) == Success(["old"])
    assert other.peek("k") == Success(["old"])
    other.close()


def test_a_previous_that_cannot_be_copied_is_a_failure(face: Face) -> None:
    def copy(value: Any) -> Any:
        if value == "old":
            raise ValueError
        return value

    other = face.new(copy_on_read=copy)
    other.refresh("k", other.fetcher(OLD))
    fetch = other.fetcher(NOT_MODIFIED)
    answer = other.refresh("k", fetch, conditional=True)
    assert isinstance(answer.failure(), ValueNotCopied)
    assert fetch.calls == 0
    assert under_way(other.cache) == 0
    other.close()


def test_with_a_token_the_previous_comes_after_it(face: Face) -> None:
    other = face.new(token_keeper=face.keeper("token"))
    options = {"scope": CacheScope.GLOBAL, "conditional": True, "ttl": 10}
    fetch = other.fetcher(Success(Fresh("old", validator="v1")), NOT_MODIFIED)
    for _ in range(2):
        assert other.get_authenticated("k", fetch, **options) == OLD
        face.clock.advance(20)
    assert fetch.arguments == [("token", None), ("token", Previous("old", "v1", 20.0))]
    other.close()


def test_retries_of_a_conditional_call_do_not_multiply_with_the_keepers(face: Face) -> None:
    keeper = face.keeper("stale", "rejected too")
    other = face.new(token_keeper=keeper)
    fetch = other.fetcher(keeper.REJECTED)
    retry = RetryOptions(max_attempts=5)
    answer = other.get_authenticated("k", fetch, conditional=True, retry=retry, scope=CacheScope.GLOBAL)
    assert answer == keeper.REJECTED
    assert fetch.calls == 2
    other.close()


@pytest.mark.parametrize("value", [1, 0, None, "yes", object()], ids=repr)
def test_conditional_is_a_bool(face: Face, value: Any) -> None:
    fetch = face.fetcher(NEW)
    for method in ("get", "refresh", "prefetch"):
        answer = face.call(method, "k", fetch, conditional=value)
        assert answer == Failure(InvalidOption("conditional", type(value).__name__))
    assert fetch.calls == 0


def test_a_cached_function_may_be_conditional(face: Face) -> None:
    handed: list[Any] = []
    function: Any
    if isinstance(face.cache, Cache):

        async def fetched(name: str, *, previous: Previous[str] | None = None) -> Result[Any, str]:
            handed.append(previous)
            return Success(Fresh(name, ttl=10, validator="v1")) if previous is None else NOT_MODIFIED

        function = cached(face.cache, key="{name}", conditional=True)(fetched)
    else:

        def got(name: str, *, previous: Previous[str] | None = None) -> Result[Any, str]:
            handed.append(previous)
            return Success(Fresh(name, ttl=10, validator="v1")) if previous is None else NOT_MODIFIED

        function = cached(face.cache, key="{name}", conditional=True)(got)

    def run(call: Any) -> Any:
        return face.runner.run(call) if isinstance(face.cache, Cache) else call  # type: ignore[attr-defined]  # an AsyncFace

    assert run(function("old")) == OLD
    face.clock.advance(20)
    assert run(function("old")) == OLD
    face.clock.advance(1)
    assert run(function.refresh("old")) == OLD
    assert handed == [None, Previous("old", "v1", 20.0), Previous("old", "v1", 1.0)]
