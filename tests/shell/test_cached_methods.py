"""`@cached` in a class: what is asked of `instance.method` is asked with its `self`. And functions stay functions."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from types import FunctionType
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel
from returns.future import FutureResult
from returns.io import IOResult
from returns.result import Failure, Result, Success
from returns.unsafe import unsafe_perform_io

from cachemesh import Cache, CacheError, InvalidKey, SyncCache, cached

cache = Cache()
sync_cache = SyncCache()


@dataclass
class Repository:
    """The users of a tenant, each read by a method of every kind; the answers are numbered."""

    tenant: str
    calls: int = 0

    def answer(self, user_id: str, *, deep: bool) -> Result[str, str]:
        self.calls += 1
        return Success(f"{self.tenant}'s {user_id}{' deep' if deep else ''}, read {self.calls}")

    @cached(cache, key="async:{self.tenant}:{user_id}:{deep}")
    async def of_async(self, user_id: str, *, deep: bool = False) -> Result[str, str]:
        """A user."""
        return self.answer(user_id, deep=deep)

    @cached(cache, key="future:{self.tenant}:{user_id}:{deep}")
    def of_future(self, user_id: str, *, deep: bool = False) -> FutureResult[str, str]:
        """A user."""
        return FutureResult.from_result(self.answer(user_id, deep=deep))

    @cached(sync_cache, key="sync:{self.tenant}:{user_id}:{deep}")
    def of_sync(self, user_id: str, *, deep: bool = False) -> Result[str, str]:
        """A user."""
        return self.answer(user_id, deep=deep)

    @cached(sync_cache, key=lambda self, user_id: f"io:{self.tenant}:{user_id}")
    def of_io(self, user_id: str) -> IOResult[str, str]:
        """A user."""
        return IOResult.from_result(self.answer(user_id, deep=False))


METHODS = ["of_async", "of_future", "of_sync", "of_io"]


@pytest.fixture(autouse=True)
def _emptied() -> None:
    cache.clear()
    sync_cache.clear()


def awaited(answer: Any) -> Result[Any, Any]:
    """The answer of either kind, as a `Result`."""
    if not inspect.isawaitable(answer):
        return answer  # type: ignore[no-any-return]

    async def wait() -> Any:
        return await answer

    got = asyncio.run(wait())
    return unsafe_perform_io(got) if isinstance(got, IOResult) else got  # type: ignore[arg-type]  # returns 0.30 types it for IO alone


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_cached_for_its_self(name: str) -> None:
    acme, zeta = Repository("acme"), Repository("zeta")

    for _ in range(2):
        assert awaited(getattr(acme, name)("42")) == Success("acme's 42, read 1")
        assert awaited(getattr(zeta, name)(user_id="42")) == Success("zeta's 42, read 1")
    assert acme.calls == zeta.calls == 1


@pytest.mark.parametrize("name", METHODS)
def test_a_key_is_that_of_the_instance(name: str) -> None:
    acme = Repository("acme")
    bound, unbound = getattr(acme, name), getattr(Repository, name)
    awaited(bound("42"))

    assert bound.key("42") == bound.key(user_id="42") == unbound.key(acme, "42") == unbound.key(self=acme, user_id="42")
    assert bound.key("42").startswith(f"{name.removeprefix('of_')}:acme:42")
    assert bound.key("42") != getattr(Repository("zeta"), name).key("42")
    home = cache if name in {"of_async", "of_future"} else sync_cache
    assert home.peek(bound.key("42")) == Success("acme's 42, read 1")


@pytest.mark.parametrize("name", METHODS)
def test_invalidate_and_refresh_reach_the_instance_alone(name: str) -> None:
    acme, zeta = Repository("acme"), Repository("zeta")
    for each in (acme, zeta):
        awaited(getattr(each, name)("42"))

    getattr(acme, name).invalidate("42")
    assert awaited(getattr(acme, name)("42")) == Success("acme's 42, read 2")
    assert awaited(getattr(acme, name).refresh("42")) == Success("acme's 42, read 3")
    assert awaited(getattr(acme, name)("42")) == Success("acme's 42, read 3")
    assert awaited(getattr(zeta, name)("42")) == Success("zeta's 42, read 1")


@pytest.mark.parametrize("name", METHODS)
def test_a_class_has_the_function_itself(name: str) -> None:
    acme = Repository("acme")
    unbound: Any = getattr(Repository, name)

    assert inspect.signature(unbound).parameters.keys() == {"self", *inspect.signature(getattr(acme, name)).parameters}
    assert awaited(unbound(acme, "42")) == awaited(getattr(acme, name)("42")) == Success("acme's 42, read 1")
    assert awaited(unbound.refresh(acme, "42")) == Success("acme's 42, read 2")
    unbound.invalidate(acme, "42")
    assert awaited(unbound(self=acme, user_id="42")) == Success("acme's 42, read 3")
    assert isinstance(unbound, FunctionType)


@pytest.mark.parametrize("name", METHODS)
def test_a_bound_method_looks_like_one(name: str) -> None:
    acme = Repository("acme")
    bound = getattr(acme, name)

    assert (bound.__name__, bound.__qualname__, bound.__doc__) == (name, f"Repository.{name}", "A user.")
    assert list(inspect.signature(bound).parameters)[:1] == ["user_id"]
    assert bound.__self__ is acme
    assert bound.__func__ is getattr(Repository, name)
    assert inspect.iscoroutinefunction(bound) is (name == "of_async")
    assert bound == getattr(acme, name) != getattr(Repository("acme"), name)
    assert not hasattr(bound, "nothing")


def test_a_bound_method_is_copied_and_pickled_like_one() -> None:
    acme = Repository("acme")

    assert copy.copy(acme.of_sync).key("42") == acme.of_sync.key("42")
    assert pickle.loads(pickle.dumps(Portable("acme").user)).key("42") == "portable:acme:42"  # noqa: S301 (our own)


@dataclass(frozen=True)
class Portable:
    tenant: str

    @cached(sync_cache, key="portable:{self.tenant}:{user_id}")
    def user(self, user_id: str) -> Result[str, str]:
        return Success(user_id)


def test_equal_methods_of_a_hashable_instance_hash_alike() -> None:
    acme = Portable("acme")

    assert len({acme.user, acme.user}) == 1


def test_a_template_that_leaves_self_out_is_shared_by_all_instances() -> None:
    class Countries:
        def __init__(self, name: str) -> None:
            self.name = name

        @cached(sync_cache, key="countries:{code}")
        def country(self, code: str) -> Result[str, str]:
            return Success(f"{code} as {self.name} knows it")

    first, second = Countries("the first"), Countries("the second")

    assert first.country("nl") == second.country("nl") == Success("nl as the first knows it")
    assert first.country.key("nl") == second.country.key("nl") == "countries:nl"


def test_self_as_a_whole_is_no_key() -> None:
    """It would print as an address, which another instance may have tomorrow."""
    for key in ("{self}:{user_id}", "user:{self}"):

        def user(self: object, user_id: str) -> Result[str, str]:
            raise NotImplementedError

        with pytest.raises(ValueError, match="prints self, which may be no more than an address"):
            cached(sync_cache, key=key)(user)


def test_self_as_a_whole_may_be_asked_to_print_itself() -> None:
    class Tenant:
        def __str__(self) -> str:
            return "acme"

        @cached(sync_cache, key="{self!s}:{user_id}")
        def user(self, user_id: str) -> Result[str, str]:
            raise NotImplementedError

    assert Tenant().user.key("42") == "acme:42"


def test_a_field_that_an_instance_lacks_is_an_invalid_key() -> None:
    class Nameless:
        @cached(sync_cache, key="{self.tenant}:{user_id}")
        def user(self, user_id: str) -> Result[str, str]:
            raise NotImplementedError

    assert isinstance(Nameless().user("42").failure(), InvalidKey)


def test_what_self_says_cannot_break_out_of_its_place() -> None:
    assert Repository("a:b").of_sync.key("c") != Repository("a").of_sync.key("b:c")


def test_a_method_is_inherited_overridden_and_reached_by_super() -> None:
    class Base(ABC):
        tenant: ClassVar[str] = "base"

        @cached(sync_cache, key="base:{self.tenant}:{user_id}")
        def user(self, user_id: str) -> Result[str, str | CacheError]:
            return Success(f"{self.tenant}'s {user_id}")

        @cached(sync_cache, key="{self.tenant}:promised")
        @abstractmethod
        def promised(self) -> Result[str, str]: ...

    class Derived(Base):
        tenant = "derived"

        @cached(sync_cache, key="derived:{self.tenant}:{user_id}")
        def user(self, user_id: str) -> Result[str, str | CacheError]:
            return super().user(user_id).map(str.upper)

        @cached(sync_cache, key="{self.tenant}:kept")
        def promised(self) -> Result[str, str]:
            return Success("kept")

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]
    assert Derived().user("x") == Success("DERIVED'S X")
    assert sync_cache.peek("base:derived:x") == Success("derived's x")
    assert Derived().promised() == Success("kept")


def test_a_static_method_is_cached_below_staticmethod() -> None:
    class Tools:
        @staticmethod
        @cached(sync_cache, key="square:{number}")
        def square(number: str) -> Result[str, str]:
            return Success(number * 2)

    through_an_instance: Any = Tools().square
    for square in (Tools.square, through_an_instance):
        assert square("3") == Success("33")
        assert square.key("3") == "square:3"
        square.invalidate("3")
        assert square.refresh("3") == Success("33")


def test_a_class_method_can_be_called() -> None:
    class Tools:
        base = "2"

        @classmethod
        @cached(sync_cache, key="power:{cls.base}:{number}")
        def power(cls, number: str) -> Result[str, str]:
            return Success(f"{cls.base}^{number}")

    tools: Any = Tools
    assert tools.power("3") == tools().power("3") == Success("2^3")
    assert sync_cache.peek("power:2:3") == Success("2^3")


def test_a_method_is_no_member_of_an_enum() -> None:
    class Tenant(Enum):
        ACME = "acme"

        @cached(sync_cache, key="enum:{self.value}:{user_id}")
        def user(self, user_id: str) -> Result[str, str]:
            return Success(f"{self.value}'s {user_id}")

    assert list(Tenant) == [Tenant.ACME]
    assert Tenant.ACME.user("42") == Success("acme's 42")


def test_a_model_of_pydantic_may_have_cached_methods() -> None:
    """It takes an object of a type that it does not know for a field."""

    class Tenant(BaseModel):
        name: str

        @cached(sync_cache, key="model:{self.name}:{user_id}")
        def user(self, user_id: str) -> Result[str, str]:
            return Success(f"{self.name}'s {user_id}")

    assert Tenant(name="acme").user("42") == Success("acme's 42")
    assert Tenant(name="acme").user.key("42") == "model:acme:42"


def test_a_method_can_be_replaced_on_an_instance() -> None:
    acme: Any = Repository("acme")
    acme.of_sync = lambda user_id: f"a fake {user_id}"

    assert acme.of_sync("42") == "a fake 42"


def test_a_bound_method_of_a_plain_class_gets_a_cache_for_each_instance() -> None:
    class Reader:
        def __init__(self, name: str) -> None:
            self.name = name
            self.cache = SyncCache()
            self.read = cached(self.cache, key="{page}")(self._read)

        def _read(self, page: str) -> Result[str, str]:
            return Success(f"{page} read by {self.name}")

    ada, bob = Reader("Ada"), Reader("Bob")

    assert (ada.read("1"), bob.read("1")) == (Success("1 read by Ada"), Success("1 read by Bob"))
    assert isinstance(ada.read, FunctionType)
    assert ada.read.key("1") == "1"


def test_a_function_stays_a_function() -> None:
    @cached(cache, key="user:{user_id}")
    async def user(user_id: str) -> Result[str, str]:
        return Success(user_id)

    @cached(sync_cache, key="user:{user_id}")
    def sync_user(user_id: str, *, deep: bool = False) -> Result[str, str]:
        return Failure(f"{user_id} {deep}")

    assert isinstance(user, FunctionType)
    assert isinstance(sync_user, FunctionType)
    assert inspect.iscoroutinefunction(user)
    assert not inspect.iscoroutinefunction(sync_user)
    assert list(inspect.signature(sync_user).parameters) == ["user_id", "deep"]
