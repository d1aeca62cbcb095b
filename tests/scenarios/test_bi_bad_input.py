# mypy: no-warn-unused-ignores, disable-error-code="arg-type,assignment,redundant-expr,return-value,truthy-function,var-annotated,no-any-return,comparison-overlap,union-attr"
"""Bad input: a typed Failure, and nothing changes."""

from __future__ import annotations

import asyncio
import enum
import gc
import random
import time
import warnings
from collections.abc import Callable  # noqa: TC003 (a module's variable is annotated with it)
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from returns.future import FutureResult
from returns.io import IO, IOFailure, IOResult, IOSuccess
from returns.maybe import Some
from returns.result import Failure, Result, Success

from cachemesh import (
    Cache,
    CacheError,
    CacheLogger,
    CacheMiss,
    CachePolicy,
    CacheScope,
    InvalidFetchResult,
    InvalidKey,
    InvalidOption,
    InvalidTtl,
    RetryOptions,
    StoredEntry,
    SyncCache,
)
from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.loop import run
from tests.scenarios.helpers import GLOBAL_OWNER, ScriptedStore, async_value, listen, under_way

if TYPE_CHECKING:
    from tests.scenarios.helpers import Answer
    from tests.shell.faces import Face


class Unbound:
    """What a web framework's proxy is outside of a request."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError

    def __bool__(self) -> bool:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


class MySuccess(Success[Any]):  # type: ignore[misc]  # it is final
    pass


class Text(str):
    """A str that is odd in every way."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError

    def __repr__(self) -> str:
        raise RuntimeError


class Colour(str, enum.Enum):  # noqa: UP042 (the old way is the case)
    RED = "red"


# BI-1: keys

NO_KEYS: list[Any] = [
    None,
    1,
    True,
    1.5,
    b"k",
    ("k",),
    ["k"],
    {"k": 1},
    {"k"},
    object(),
    str,
    float("nan"),
    bytearray(b"k"),
    Some("k"),
    Success("k"),
]


@pytest.mark.parametrize("key", NO_KEYS, ids=lambda key: type(key).__name__)
def test_bi1_key_that_is_no_str(face: Face, key: Any) -> None:
    face.fill("k", "v")
    for method in ("get", "refresh", "prefetch"):
        fetch = face.fetcher(Success(1))
        failure = face.call(method, key, fetch).failure()
        assert type(failure) is InvalidKey
        assert failure.key is key
        assert fetch.calls == 0
    assert isinstance(face.peek(key).failure(), InvalidKey)
    assert face.inspect(key).is_missing
    assert face.has_cached_failure(key) is False
    assert face.scope_of(key) is CacheScope.GLOBAL
    face.invalidate(key)
    heard = listen(face, key)
    face.settle()
    assert [type(news.failure()) for news in heard.take()] == [InvalidKey]
    assert face.peek("k") == Success("v")
    assert under_way(face.cache) == 0
    heard.cancel()


ODD_KEYS = [
    "",
    "\x00",
    "\n",
    "a\nb",
    "\ud800",
    "\udfff\ud800",
    "\u00e9",
    "e\u0301",
    "\ufeff",
    "k" * 1_000_000,
    "a:b",
    "a:",
    ":b",
    "{}",
    "%s",
    "\\",
]


def test_bi1_odd_keys_are_keys(face: Face) -> None:
    for number, key in enumerate(ODD_KEYS):
        assert face.get(key, face.fetcher(Success(number))) == Success(number)
    for number, key in enumerate(ODD_KEYS):
        assert face.peek(key) == Success(number)
        assert face.inspect(key).value == number
        assert face.get(key, face.fetcher(Failure("?")), scope=CacheScope.SESSION) == Failure("?")
        face.invalidate(key)
        assert face.peek(key) == Failure(CacheMiss(key))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.characters(codec=None), max_size=4), unique=True, max_size=20))
@example(["\u00e9", "e\u0301"])
def test_bi1_distinct_keys_are_distinct_entries(keys: list[str]) -> None:
    cache = SyncCache()
    for number, key in enumerate(keys):
        cache.get(key, lambda number=number: Success(number))  # type: ignore[misc]
    assert [cache.peek(key).unwrap() for key in keys] == list(range(len(keys)))


def test_bi1_subclass_of_str_is_the_str_that_it_is(face: Face) -> None:
    assert face.get(Text("k"), face.fetcher(Success(1))) == Success(1)
    assert face.get("k", face.fetcher(Success(2))) == Success(1)
    assert face.get(Colour.RED, face.fetcher(Success(3))) == Success(3)
    assert face.peek("red") == Success(3)


@pytest.mark.parametrize("method", ["peek", "inspect", "has_cached_failure", "scope_of", "invalidate", "watch"])
def test_bi1_subclass_of_str_is_read_and_removed_as_the_str_that_it_is(face: Face, method: str) -> None:
    """What `get` stores under an odd str, the other methods find under it."""
    face.fill("k", "v")
    found = face.at_once(method, Text("k"))
    if method == "peek":
        assert found == Success("v")
    elif method == "inspect":
        assert found.value == "v"
    elif method == "invalidate":
        assert face.peek("k") == Failure(CacheMiss("k"))


# BI-2: what fetches return

NO_RESULTS: list[Any] = [
    None, 0, 5, "v", [], {}, object(), Exception("not raised"), Success, Some(1), IO(1), {"ok": True}, NotImplemented, ...,
]  # fmt: skip


@pytest.mark.parametrize("got", NO_RESULTS, ids=repr)
@pytest.mark.parametrize("method", ["get", "refresh", "prefetch"])
def test_bi2_what_is_no_result_is_a_failure(face: Face, got: Any, method: str) -> None:
    fetch = face.fetcher(lambda *_: got)
    assert face.call(method, "k", fetch, cache_failures=True) == Failure(InvalidFetchResult("k", type(got).__name__))
    assert face.inspect("k").is_missing
    assert not face.has_cached_failure("k")


def test_bi2_subclass_of_a_result_is_no_result(face: Face) -> None:
    assert face.get("k", face.fetcher(lambda *_: MySuccess(1))) == Failure(InvalidFetchResult("k", "MySuccess"))
    assert face.inspect("k").is_missing


ODD_OBJECTS: dict[str, Callable[[], Any]] = {
    "proxy": Unbound,
    "odd IOResult": lambda: IOResult("no result"),  # type: ignore[arg-type]  # that is the case
    "empty IOResult": lambda: IOResult(None),  # type: ignore[arg-type]  # that is the case
    "Failure of a proxy": lambda: Failure(Unbound()),
    "Success of a proxy": lambda: Success(Unbound()),
}


@pytest.mark.parametrize("odd", ODD_OBJECTS)
def test_bi2_odd_objects_never_become_an_exception(face: Face, odd: str) -> None:
    got = ODD_OBJECTS[odd]()
    answer = face.get("k", face.fetcher(lambda *_: got), cache_failures=True, retry=RetryOptions(max_attempts=2))
    assert type(answer) in (Success, Failure)
    assert under_way(face.cache) == 0


def test_bi2_containers_of_a_result_are_taken(face: Face) -> None:
    assert face.get("a", face.fetcher(lambda *_: IOSuccess(1))) == Success(1)
    assert face.get("b", face.fetcher(lambda *_: IOFailure("no"))) == Failure("no")


def test_bi2_future_result_is_taken() -> None:
    async def main() -> list[Answer]:
        cache = Cache()
        return [
            await cache.get("a", lambda: FutureResult.from_value(1)),
            await cache.get("b", lambda: FutureResult.from_failure("no")),
        ]

    assert run(main()) == [Success(1), Failure("no")]


def test_bi2_coroutines_and_generators_that_nobody_awaits() -> None:
    async def coroutine() -> Answer:
        return Success(1)

    async def generator() -> Any:
        yield Success(1)

    async def of_coroutine() -> Any:
        return coroutine()

    async def of_generator() -> Any:
        return generator()

    async def main() -> list[str]:
        cache = Cache()
        fetches: list[Any] = [of_coroutine, of_generator, generator, lambda: None, None, 5, lambda: 5]
        return [type((await cache.get("k", fetch)).failure()).__name__ for fetch in fetches]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = run(main())
        sync = SyncCache()
        answers += [type(sync.get("k", fetch).failure()).__name__ for fetch in (coroutine, generator, None, 5)]  # type: ignore[arg-type]
        gc.collect()
    invalid, raised = "InvalidFetchResult", "FetchRaised"
    assert answers == [invalid] * 4 + [raised] * 2 + [invalid] + [invalid] * 2 + [raised] * 2


def test_bi2_coroutine_that_resists_being_closed() -> None:
    """It has been begun by hand, and raises as it is closed."""

    async def stubborn() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            raise ZeroDivisionError

    def begun() -> Any:
        coroutine = stubborn()
        coroutine.send(None)
        return coroutine

    cache = SyncCache()
    assert isinstance(cache.get("k", begun), Failure)
    assert under_way(cache) == 0


# BI-4: values


def test_bi4_value_is_handed_out_as_it_was_stored(face: Face) -> None:
    """Memory keeps the very object, and copies nothing: a frozen value is the user's part."""
    value = ("immutable",)
    face.fill("k", value)
    assert face.peek("k").unwrap() is value
    assert face.get("k", face.fetcher(Failure("?"))).unwrap() is value
    assert face.inspect("k").value is value


def test_bi4_value_that_a_store_cannot_take_is_still_the_answer(face: Face) -> None:
    def refuse(operation: str, *_: object) -> None:
        if operation == "write":
            raise TypeError

    other = face.new(store=ScriptedStore(refuse))
    assert other.get("k", other.fetcher(Success(lambda: None))).unwrap() is not None
    assert isinstance(other.peek("k"), Success)
    other.close()


ODD_ENTRIES: dict[str, dict[str, Any]] = {
    "created text": {"created_at": "then"},
    "created never": {"created_at": None},
    "created nan": {"created_at": float("nan")},
    "created inf": {"created_at": float("inf")},
    "expires text": {"expires_at": "then"},
    "expires nan": {"expires_at": float("nan")},
    "ttl text": {"ttl_s": "long"},
    "ttl nan": {"ttl_s": float("nan")},
    "ttl negative": {"ttl_s": -1.0},
    "ttl inf": {"ttl_s": float("inf")},
    "failure odd": {"is_failure": "yes"},
}


@pytest.mark.parametrize("odd", ODD_ENTRIES)
def test_bi4_what_a_store_hands_out_may_be_anything(face: Face, odd: str) -> None:
    """A store of somebody's own that was filled by an older version, say: at worst it is no help."""
    now = face.clock()
    fields: dict[str, Any] = {
        "owner": GLOBAL_OWNER, "key": "k", "value": "stored", "is_failure": False, "created_at": now, "ttl_s": 60.0, "expires_at": now + 60,
    }  # fmt: skip
    store = ScriptedStore()
    store.kept[GLOBAL_OWNER, "k"] = StoredEntry(**{**fields, **ODD_ENTRIES[odd]})
    other = face.new(store=store)
    answer = other.get("k", other.fetcher(Success("fetched")))
    assert answer in (Success("fetched"), Success("stored"), Failure("stored"))
    state = other.inspect("k")
    assert repr(state)
    assert state.is_fresh in (True, False)
    other.peek("k")
    assert under_way(other.cache) == 0
    other.close()


@pytest.mark.parametrize("junk", [5, "junk", b"", {}, Success(1), Unbound], ids=repr)
def test_bi4_junk_from_a_store_is_a_miss(face: Face, junk: Any) -> None:
    store = ScriptedStore()
    store.kept[GLOBAL_OWNER, "k"] = Unbound() if junk is Unbound else junk
    other = face.new(store=store)
    assert other.get("k", other.fetcher(Success("fetched"))) == Success("fetched")
    assert under_way(other.cache) == 0
    other.close()


# BI-5: everything at once

ODD_OPTIONS: dict[str, list[Any]] = {
    "policy": [
        *[
            getattr(CachePolicy, name)
            for name in ("CACHE_FIRST", "NETWORK_FIRST", "NETWORK_ONLY", "CACHE_ONLY", "STALE_WHILE_REVALIDATE")
        ],
        None,
        "cache_first",
        5,
        Unbound(),
    ],
    "ttl": [None, 0, 1, 60.5, -1, float("nan"), "60", True, 10**400, Unbound()],
    "retry": [
        RetryOptions(max_attempts=2),
        RetryOptions(max_attempts=2, retry_when=lambda _: 1 / 0),
        None,
        3,
        Unbound(),
    ],  # type: ignore[arg-type, return-value]
    "cache_failures": [True, False, None, 1, "yes", Unbound()],
    "always_revalidate": [True, False, None, 1, "yes", Unbound()],
    "scope": [*CacheScope, None, "user", "nonsense", 5, Unbound()],
}
WRONG: dict[str, Any] = {
    "policy": InvalidOption,
    "ttl": InvalidTtl,
    "retry": InvalidOption,
    "cache_failures": InvalidOption,
    "scope": InvalidOption,
}


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option in ODD_OPTIONS for value in ("nonsense", 5.5, [], Unbound)],
    ids=repr,
)
@pytest.mark.parametrize("method", ["get", "refresh", "prefetch"])
def test_bi5_option_of_the_wrong_type_is_a_failure(face: Face, method: str, option: str, value: Any) -> None:
    if method != "get" and option in ("policy", "always_revalidate"):
        return
    if option == "ttl" and type(value) is float:
        return
    fetch = face.fetcher(Success(1))
    answer = face.call(method, "k", fetch, **{option: Unbound() if value is Unbound else value})
    if option == "always_revalidate" and value is not Unbound:
        assert answer == Success(1)
    elif option in WRONG:
        assert type(answer.failure()) is WRONG[option]
        assert fetch.calls == 0
    assert isinstance(answer, Success | Failure)


class Moody(CacheLogger):
    """Raises now and then."""

    def __init__(self, chance: random.Random) -> None:
        def act(*_: object) -> None:
            if chance.random() < 0.3:
                raise ValueError

        for name in vars(CacheLogger):
            if name.startswith("on_"):
                setattr(self, name, act)


def odd_outcomes(chance: random.Random) -> Callable[[], Any]:
    def act() -> Any:
        kind = chance.randrange(10)
        if kind == 0:
            raise chance.choice(
                [ValueError, TypeError, OSError, RecursionError, StopIteration, StopAsyncIteration, TimeoutError]
            )
        if kind == 1:
            return chance.choice([None, 5, Unbound(), IOResult("?"), Some(1)])  # type: ignore[arg-type]
        if kind == 2:
            return Failure(chance.choice(["down", ValueError(), Unbound(), None, CacheMiss("k")]))
        return Success(chance.choice([1, None, Unbound(), [], "v"]))

    return act


def odd_call(chance: random.Random) -> tuple[str, list[Any], dict[str, Any]]:
    key = chance.choice(["a", "b", "", "\ud800", Text("a"), Colour.RED, None, 1, []])
    method = chance.choice(
        [
            "get",
            "get",
            "get",
            "refresh",
            "prefetch",
            "peek",
            "inspect",
            "has_cached_failure",
            "invalidate",
            "scope_of",
            "watch",
            "clear",
            "clear_scope",
            "end_session",
            "set_active_user",
            "get_authenticated",
        ]
    )
    given = {name: [value for value in values if type(value) is not Unbound] for name, values in ODD_OPTIONS.items()}
    scope = chance.choice(given["scope"])
    if method in ("clear", "end_session"):
        return method, [], {}
    if method == "clear_scope":
        return method, [scope], {}
    if method == "set_active_user":
        return method, [chance.choice([None, "alice", "bob", ""])], {}
    if method in ("get", "get_authenticated", "refresh", "prefetch"):
        names = [*ODD_OPTIONS] if method.startswith("get") else ["ttl", "retry", "cache_failures", "scope"]
        options = {name: chance.choice(given[name]) for name in names if chance.random() < 0.25}
        return method, [key, odd_outcomes(chance)], options
    if method == "scope_of":
        return method, [key], {}
    return method, [key], {"scope": scope} if chance.random() < 0.5 else {}


def fuzz(cache: Any, calls: int, seed: int) -> dict[str, int]:
    """The exceptions that came out of `calls` calls, by method and type."""
    chance = random.Random(seed)
    escaped: dict[str, int] = {}
    for _ in range(calls):
        method, arguments, options = odd_call(chance)
        try:
            answer = getattr(cache, method)(*arguments, **options)
            if method in ("get", "refresh", "prefetch", "peek", "get_authenticated"):
                assert isinstance(answer, Result)
        except Exception as error:  # noqa: BLE001 (it is counted)
            key = f"{method} {[type(each).__name__ for each in arguments[:1]]} {sorted((name, type(value).__name__) for name, value in options.items())}: {type(error).__name__}"
            escaped[key] = escaped.get(key, 0) + 1
    return escaped


class Clockwork:
    def __init__(self, chance: random.Random) -> None:
        self._chance, self._now = chance, 1e6

    def __call__(self) -> float:
        self._now += self._chance.random() * 10
        if self._chance.random() < 0.1:
            raise OSError
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds


@pytest.mark.parametrize("seed", [1, 2])
def test_bi5_threads_public_api_lets_no_exception_out(seed: int) -> None:
    chance = random.Random(seed)
    cache = SyncCache(clock=Clockwork(chance), logger=Moody(chance), max_entries=2)
    escaped = fuzz(cache, 5_000, seed)
    assert escaped == {}, f"{sum(escaped.values())} in {len(escaped)} ways: {list(escaped)[:12]}"
    deadline = time.monotonic() + 5
    while under_way(cache) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert under_way(cache) == 0
    cache.close()


def test_bi5_asyncs_public_api_lets_no_exception_out() -> None:
    async def main() -> dict[str, int]:
        chance = random.Random(3)
        cache = Cache(clock=Clockwork(chance), logger=Moody(chance), max_entries=2)
        escaped: dict[str, int] = {}
        for _ in range(5_000):
            method, arguments, options = odd_call(chance)
            if len(arguments) == 2:
                act = arguments[1]

                async def fetch(*_: object, act: Any = act) -> Any:
                    return act()

                arguments[1] = fetch
            try:
                answer = getattr(cache, method)(*arguments, **options)
                if asyncio.iscoroutine(answer):
                    assert isinstance(await answer, Result)
            except Exception as error:  # noqa: BLE001 (it is counted)
                key = f"{method} {[type(each).__name__ for each in arguments[:1]]} {sorted((name, type(value).__name__) for name, value in options.items())}: {type(error).__name__}"
                escaped[key] = escaped.get(key, 0) + 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert under_way(cache) == 0
        await cache.aclose()
        return escaped

    escaped = run(main())
    assert escaped == {}, f"{sum(escaped.values())} in {len(escaped)} ways: {list(escaped)[:12]}"


def test_bi5_bad_settings_raise_at_construction() -> None:
    bad: list[dict[str, Any]] = [
        {"max_entries": 0}, {"max_entries": -1}, {"max_entries": True}, {"max_entries": "5"}, {"max_entries": 1.5},
        {"default_ttl": -1}, {"default_ttl": "1"}, {"cache_failures": "yes"}, {"cache_failures": None}, {"retry": 3}, {"retry": None},
    ]  # fmt: skip
    for options in bad:
        for face in (Cache, SyncCache):
            with pytest.raises(ValueError):
                face(**options)
    for options in [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"max_attempts": 1.0},
        {"delay": -1},
        {"backoff_factor": 0.5},
        {"backoff_factor": float("nan")},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"jitter": float("nan")},
        {"attempt_timeout": -1},
        {"unknown": 1},
        {"retry_when": 5},
    ]:
        with pytest.raises(ValueError):
            RetryOptions(**options)


def test_bi6_errors_of_the_cache_are_values() -> None:
    """More on the core's totality and purity is in tests/core."""
    import copy  # noqa: PLC0415 (here alone)
    import pickle  # noqa: PLC0415 (that they can be pickled is promised)

    import cachemesh  # noqa: PLC0415 (here alone)

    arguments: dict[str, tuple[Any, ...]] = {
        "CacheClosed": (), "FetchRaised": ("k", ValueError("x")), "InvalidFetchResult": ("k", "int"), "InvalidOption": ("policy", "int"),
        "CircuitOpen": ("github", 60.0), "ValueNotCopied": ("k", TypeError("x")), "UpdateRaised": ("k", ValueError("x")),
        "FetchTimeout": ("k", 1.0), "StoreFailed": ("read", OSError(5)), "UndecodableEntry": ("k", "why"),
    }  # fmt: skip
    kinds = [
        each
        for each in (getattr(cachemesh, name) for name in cachemesh.__all__)
        if isinstance(each, type) and issubclass(each, CacheError) and each is not CacheError
    ]
    assert len(kinds) >= 18
    for kind in kinds:
        one, other = (kind(*arguments.get(kind.__name__, ("k",))) for _ in range(2))
        assert one == other
        assert hash(one) == hash(other)
        assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 (our own)
        assert copy.copy(one) == one
        assert repr(one) == str(one)
        assert one != CacheError()
    unhashable = InvalidKey([])
    assert hash(unhashable) == hash(InvalidKey([]))
    assert async_value and VirtualClock
