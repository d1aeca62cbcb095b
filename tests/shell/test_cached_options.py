"""`@cached` with every option that `get` has, on both faces, on functions and on methods."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from returns.result import Failure, Result, Success

from cachemesh import (
    Cache,
    CacheExpired,
    CacheMiss,
    CacheScope,
    CircuitOpen,
    FetchTimeout,
    Fresh,
    InvalidKey,
    InvalidOption,
    Lifetime,
    NotModified,
    Previous,
    SyncCache,
    cached,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.faces import Answer, Face


def decorated(face: Face, function: Callable[..., Any], **options: Any) -> Any:
    """`function`, cached on this face's cache; for `Cache` as the coroutine function that it wants."""
    return cached(face.cache, **options)(of_its_kind(face, function))


def of_its_kind(face: Face, function: Callable[..., Any]) -> Any:
    if face.name == "sync":
        return function

    @functools.wraps(function)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return awaited


def call(face: Face, function: Any, *args: Any, **kwargs: Any) -> Answer:
    """What a cached function of either kind answers."""
    got = face.inside(lambda: function(*args, **kwargs))
    runner: Any = getattr(face, "runner", None)

    async def awaited() -> Answer:
        answer: Answer = await got
        return answer

    answer: Answer = runner.run(awaited()) if inspect.isawaitable(got) else got
    return answer


def numbered() -> Callable[[], Success[int]]:
    """An origin that counts."""
    calls = iter(range(1, 1000))
    return lambda: Success(next(calls))


# Tags


def test_tags_are_templates_over_the_parameters(face: Face) -> None:
    origin = numbered()
    user = decorated(face, lambda user_id: origin(), key="user:{user_id}", tags=("user:{user_id}", "users"))  # noqa: ARG005 (named by the templates)

    assert [call(face, user, each) for each in ("ada", "bob", "ada")] == [Success(1), Success(2), Success(1)]
    face.at_once("invalidate_tag", "user:ada")
    assert [call(face, user, each) for each in ("ada", "bob")] == [Success(3), Success(2)]
    face.at_once("invalidate_tag", "users")
    assert [call(face, user, each) for each in ("ada", "bob")] == [Success(4), Success(5)]


def test_a_tag_may_be_about_what_the_key_is_not(face: Face) -> None:
    origin = numbered()

    def order(order_id: int, *, customer: str = "nobody") -> Any:
        del order_id, customer
        return origin()

    orders = decorated(face, order, key="order:{order_id}", tags=["customer:{customer}"])
    call(face, orders, 1, customer="ada")
    call(face, orders, 2)

    face.at_once("invalidate_tag", "customer:nobody")
    assert face.peek("order:1").unwrap() == 1
    assert face.peek("order:2") == Failure(CacheMiss("order:2"))


def test_two_fields_of_a_tag_are_kept_apart(face: Face) -> None:
    user = decorated(
        face, lambda tenant, user: Success(tenant + user), key="{tenant}/{user}", tags=("{tenant}:{user}",)
    )
    call(face, user, "a:b", "c")
    call(face, user, "a", "b:c")

    face.at_once("invalidate_tag", "a:b:c")
    assert (face.peek("a:b/c").unwrap(), face.peek("a/b:c").unwrap()) == ("a:bc", "ab:c")


def test_a_refresh_bears_the_tags_too(face: Face) -> None:
    user = decorated(face, lambda user_id: Success(user_id), key="user:{user_id}", tags=("user:{user_id}",))  # noqa: PLW0108 (its parameter has a name)
    call(face, user.refresh, "ada")
    face.at_once("invalidate_tag", "user:ada")

    assert face.peek("user:ada") == Failure(CacheMiss("user:ada"))


def test_a_tag_that_cannot_be_written_is_a_typed_failure(face: Face) -> None:
    class Nameless:
        def __str__(self) -> str:
            raise OSError

        def __format__(self, spec: str) -> str:
            raise OSError

    user = decorated(face, lambda key, user: Success((key, user)), key="k:{key}", tags=("user:{user}",))

    assert call(face, user, 1, Nameless()) == Failure(InvalidOption("tags", "OSError"))
    assert isinstance(call(face, user.refresh, 1, Nameless()).failure(), InvalidOption)
    assert call(face, user, 1, "ada") == Success((1, "ada"))


@pytest.mark.parametrize("tags", ["feed", "user:{user_id}", 42, None, ("a", 1), [b"a"]], ids=repr)
def test_tags_that_are_none_are_told_by_each_call(face: Face, tags: Any) -> None:
    user = decorated(face, lambda user_id: Success(user_id), key="user:{user_id}", tags=tags)  # noqa: PLW0108 (as above)

    assert call(face, user, "ada") == Failure(InvalidOption("tags", type(tags).__name__))
    assert call(face, user.refresh, "ada") == Failure(InvalidOption("tags", type(tags).__name__))


@pytest.mark.parametrize("tag", ["user:{nobody}", "{user_id}{user_id}"])
def test_a_tag_that_names_no_parameter_is_refused_at_once(tag: str) -> None:
    with pytest.raises(ValueError, match=r"nobody|between"):
        cached(SyncCache(), key="user:{user_id}", tags=(tag,))(lambda user_id: Success(user_id))  # noqa: PLW0108 (as above)


def test_what_is_tagged_is_looked_at_on_a_hit_too() -> None:
    """A function of one argument has a shortcut to its hits; what is tagged may not take it."""
    cache = SyncCache()
    origin = numbered()

    @cached(cache, key="user:{user_id}", tags=("t",))
    def user(user_id: str) -> Result[int, str]:
        del user_id
        return origin()

    assert (user("ada"), user("ada")) == (Success(1), Success(1))
    cache.invalidate_tag("t")
    assert user("ada") == Success(2)
    cache.close()


# Lifetimes, timeouts, origins


def test_a_lifetime_is_kept(face: Face) -> None:
    origin = numbered()
    user = decorated(face, lambda key: (key, origin())[1], key="k:{key}", ttl=Lifetime(ttl=10, serve_stale_for="1m"))
    call(face, user, "k")
    face.clock.advance(30)

    assert call(face, user, "k") == Success(1)
    face.settle()
    assert call(face, user, "k") == Success(2)
    call(face, user.refresh, "k")
    face.clock.advance(10)
    assert face.peek("k:k") == Failure(CacheExpired("k:k"))
    assert face.at_once("explain", "k:k").unwrap().freshness == "grace"


def test_an_origin_that_fails_is_left_alone(face: Face) -> None:
    calls: list[int] = []

    def failing(number: int) -> Any:
        calls.append(number)
        return Failure("down")

    user = decorated(face, failing, key="k:{number}", origin="api")
    answers = [call(face, user, number) for number in range(8)]

    assert answers[:5] == [Failure("down")] * 5
    assert {type(answer.failure()) for answer in answers[5:]} == {CircuitOpen}
    assert len(calls) == 5


def test_a_hard_timeout_is_kept(face: Face) -> None:
    fetch = face.fetcher(Success(1), held=True)

    async def awaits(key: str) -> Any:
        return await fetch(key)

    def calls(key: str) -> Any:
        return fetch(key)

    of_either_kind: Any = awaits if face.name == "async" else calls
    function = cached(face.cache, key="k:{key}", hard_timeout=5)(of_either_kind)
    real, face.cache = face.cache, type("Of", (), {"call": staticmethod(function)})
    pending = face.begin.call("call", "a")
    face.cache = real
    face.clock.advance(5)

    assert pending.result() == Failure(FetchTimeout("k:a", 5.0))
    fetch.release()
    face.settle()


def test_a_scope_is_kept(face: Face) -> None:
    user = decorated(face, lambda key: Success(key), key="k:{key}", scope=CacheScope.USER, tags=("t:{key}",))  # noqa: PLW0108 (as above)
    face.set_active_user("ada")
    call(face, user, "a")
    assert face.peek("k:a", scope=CacheScope.USER) == Success("a")
    face.at_once("invalidate_tag", "t:a")

    assert face.peek("k:a", scope=CacheScope.USER) == Failure(CacheMiss("k:a"))


# Conditional


def conditional(seen: list[Any]) -> Callable[..., Any]:
    """A function whose origin says "not modified" to whoever has its version 1."""

    def page(number: int, previous: Previous[str] | None) -> Any:
        seen.append(previous)
        if previous is not None and previous.validator == "v1":
            return Success(NotModified())
        return Success(Fresh(f"page {number}", validator="v1", tags=("pages",)))

    return page


def test_the_cache_fills_in_what_it_has(face: Face) -> None:
    seen: list[Any] = []
    page = decorated(face, conditional(seen), key="page:{number}", ttl=5, conditional=True)

    assert call(face, page, 1) == Success("page 1")
    assert page.key(1) == "page:1"
    assert page.key(number=1) == "page:1"
    face.clock.advance(6)
    assert call(face, page, number=1) == Success("page 1")
    assert seen == [None, Previous("page 1", "v1", 6.0)]
    assert face.peek("page:1") == Success("page 1")
    assert call(face, page.refresh, 1) == Success("page 1")
    assert seen[2] == Previous("page 1", "v1", 0.0)
    face.invalidate("page:1")
    assert call(face, page, 1) == Success("page 1")
    assert seen[3] is None


def test_what_was_invalidated_is_nothing_that_it_has(face: Face) -> None:
    seen: list[Any] = []
    page = decorated(face, conditional(seen), key="page:{number}", conditional=True)
    call(face, page, 1)
    face.at_once("invalidate_tag", "pages")

    assert call(face, page, 1) == Success("page 1")
    assert seen == [None, None]


def test_what_was_made_stale_is_still_what_it_has(face: Face) -> None:
    seen: list[Any] = []
    page = decorated(face, conditional(seen), key="page:{number}", conditional=True)
    call(face, page, 1)
    face.clock.advance(1)
    face.at_once("expire_tag", "pages")

    assert call(face, page, 1) == Success("page 1")
    assert seen == [None, Previous("page 1", "v1", 1.0)]
    assert face.peek("page:1") == Success("page 1"), "it lives anew"


def test_callers_do_not_say_what_was_before(face: Face) -> None:
    page = decorated(face, conditional([]), key="page:{number}", conditional=True)

    for args, kwargs in (((1, None), {}), ((1,), {"previous": None})):
        with pytest.raises(TypeError):
            call(face, page, *args, **kwargs)
    for of_key in (page.key, page.invalidate):
        with pytest.raises(TypeError):
            of_key(1, None)


@pytest.mark.parametrize("key", [lambda number: f"page:{number}", "page:{number}"], ids=["function", "template"])
def test_the_key_is_made_of_what_callers_give(face: Face, key: Any) -> None:
    def page(number: int, *, previous: Previous[str] | None = None) -> Any:
        return Success((number, previous))

    function = decorated(face, page, key=key, conditional=True)

    assert call(face, function, 1) == Success((1, None))
    assert function.key(1) == "page:1"
    assert isinstance(
        call(face, decorated(face, page, key=lambda: 1, conditional=True), 1).failure(), InvalidKey | TypeError
    )


def test_no_template_is_about_what_was_before() -> None:
    def page(number: int, previous: Any = None) -> Any:
        return Success((number, previous))

    for options in ({"key": "{previous}"}, {"key": "{number}", "tags": ("{previous}",)}):
        with pytest.raises(ValueError, match="previous"):
            cached(SyncCache(), conditional=True, **options)(page)


def test_a_function_that_has_no_place_for_it_is_refused() -> None:
    async def page(number: int) -> Result[int, str]:
        return Success(number)

    with pytest.raises(ValueError, match="previous"):
        cached(Cache(), key="{number}", conditional=True)(page)


# Methods


def test_methods_have_them_all(face: Face) -> None:
    seen: list[Any] = []

    class Pages:
        tenant = "acme"

        def page(self, number: int, previous: Previous[str] | None = None) -> Any:
            seen.append(previous)
            return Success(Fresh(f"{self.tenant} {number}", validator=number))

        page = decorated(
            face,
            page,
            key="{self.tenant}:{number}",
            tags=("tenant:{self.tenant}", "page:{number}"),
            ttl=Lifetime(ttl=5, serve_stale_for=5),
            conditional=True,
        )

    pages = Pages()
    # A function that is made within a function is no method to `@cached`, unless it says so itself.
    assert call(face, Pages.page, pages, 1) == Success("acme 1")
    face.clock.advance(11)
    assert call(face, Pages.page, pages, 1) == Success("acme 1")
    assert seen == [None, Previous("acme 1", 1, 11.0)]
    face.at_once("invalidate_tag", "tenant:acme")
    assert face.peek("acme:1") == Failure(CacheMiss("acme:1"))


CACHE = SyncCache()


class Repository:
    """In the body of a module, where `@cached` sees that it is a method's."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.seen: list[Any] = []

    @cached(
        CACHE,
        key="{self.tenant}:{number}",
        tags=("tenant:{self.tenant}",),
        ttl=Lifetime(ttl="1h"),
        conditional=True,
        origin="pages",
    )
    def page(self, number: int, *, previous: Previous[str] | None = None) -> Result[str, str]:
        self.seen.append(previous)
        return Success(f"{self.tenant} {number}")


def test_an_instance_gives_its_self(face: Face) -> None:
    del face
    acme, other = Repository("acme"), Repository("other")

    assert (acme.page(1), other.page(1), acme.page(1)) == (Success("acme 1"), Success("other 1"), Success("acme 1"))
    assert acme.page.key(1) == "acme:1"
    CACHE.invalidate_tag("tenant:acme")
    assert (CACHE.peek("acme:1"), CACHE.peek("other:1")) == (Failure(CacheMiss("acme:1")), Success("other 1"))
    assert acme.page.refresh(1) == Success("acme 1")
    other.page.refresh(1)
    assert acme.seen == [None, None]
    assert [each and each.value for each in other.seen] == [None, "other 1"]
    acme.page.invalidate(1)
    assert CACHE.peek("acme:1") == Failure(CacheMiss("acme:1"))
    CACHE.clear()
