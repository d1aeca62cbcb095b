"""Schemas: what comes back from bytes is what went in, of the same types, or it is refused."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import math
import uuid
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field, SecretStr, TypeAdapter, ValidationError, computed_field
from returns.future import FutureResult  # noqa: TC002 (an annotation that is read when it runs)
from returns.io import IOResult  # noqa: TC002 (as above)
from returns.result import Failure, Result, Success

from cachemesh import Cache, Directed, FetchTimeout, SyncCache, cached
from cachemesh.shell.annotations import types_of_answers
from cachemesh.shell.ports import Encoded
from cachemesh.shell.schema import (
    DecodingError,
    EncodingError,
    Schema,
    Schemas,
    decoded_failure,
    decoded_plainly,
    encoded_failure,
    encoded_plainly,
    is_plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "what the user said"  # noqa: S105 (to be looked for in texts)


class Colour(enum.StrEnum):
    RED = "red"


class User(BaseModel):
    id: int
    name: str = Field(alias="userName")
    tags: frozenset[str] = frozenset()
    joined: dt.datetime | None = None
    key: uuid.UUID | None = None
    owes: decimal.Decimal | None = None
    score: float | None = None
    colour: Colour = Colour.RED

    @computed_field  # type: ignore[prop-decorator]  # pydantic's own way
    @property
    def shout(self) -> str:
        return self.name.upper()


class Admin(User):
    rights: tuple[str, ...] = ()


@dataclasses.dataclass
class Point:
    x: int
    y: tuple[int, ...] = ()


class Item(msgspec.Struct):
    name: str
    price: float


class Account(BaseModel):
    password: SecretStr


ADA = User(
    id=1,
    userName="Ada",
    tags=frozenset({"a"}),
    joined=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    key=uuid.UUID(int=7),
    owes=decimal.Decimal("1.50"),
    score=1.5,
)

ROUND_TRIPS: list[tuple[Any, Any]] = [
    (User, ADA),
    (list[User], [ADA]),
    (User | None, None),
    (dict[str, User], {"a": ADA}),
    (Point, Point(1, (2, 3))),
    (Item, Item("tea", 1.5)),
    (list[Item], [Item("tea", 1.5)]),
    (dict[str, Item | None], {"a": None}),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (bytes, b"text"),
    (dt.timedelta, dt.timedelta(seconds=1.5)),
    (Colour, Colour.RED),
    (int, 2**70),
    (TypeAdapter(list[Point]), [Point(1)]),
    (Annotated[int, Field(gt=0)], 3),
    (Any, {"a": [1, None]}),
]


@pytest.mark.parametrize(("of", "value"), ROUND_TRIPS, ids=lambda each: str(each)[:30])
def test_what_is_written_comes_back_as_it_was(of: Any, value: object) -> None:
    schema = Schema(of)
    found = schema.decode(schema.encode(value))
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (User, {"id": 1}),
        (User, Admin(id=1, userName="Ada", rights=("all",))),
        (User, ADA.model_copy(update={"score": math.nan})),
        (User, ADA.model_copy(update={"id": "not a number"})),
        (Account, Account(password=SecretStr(SECRET))),
        (int, True),
        (int, "1"),
        (Any, (1, 2)),
        (Any, object()),
        (str, "\ud800"),
        (Item, Point(1)),
        (Item, {"name": "tea"}),
        (Point, Point("one")),  # type: ignore[arg-type]  # that is the point
    ],
    ids=lambda each: str(each)[:30],
)
def test_what_would_come_back_as_something_else_is_not_written(of: Any, value: object) -> None:
    with pytest.raises(EncodingError) as caught:
        Schema(of).encode(value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "encoded",
    [
        Encoded(b'{"id": 1}', f"{__name__}.User"),
        Encoded(b'{"id": "1", "name": "Ada"}', f"{__name__}.User"),
        Encoded(b'{"id": 1, "name": "Ada"}', f"{__name__}.Admin"),
        Encoded(b'{"id": 1, "name": "Ada"}', ""),
        Encoded(b'{"id": 1, "name": "Ada"}', f"{__name__}.User", 1),
        Encoded(b'{"id": 1, "userName": "Ada"}', f"{__name__}.User"),
        Encoded(b"{", f"{__name__}.User"),
        Encoded(b"\xff", f"{__name__}.User"),
        Encoded(b"[" * 100_000, f"{__name__}.User"),
        Encoded(b"", f"{__name__}.User"),
    ],
    ids=repr,
)
def test_what_is_no_value_of_the_schema_is_not_read(encoded: Encoded) -> None:
    with pytest.raises(DecodingError):
        Schema(User).decode(encoded)


def test_the_reason_names_the_field_and_quotes_nothing() -> None:
    with pytest.raises(DecodingError, match="int_type at id") as caught:
        Schema(User).decode(Encoded(b'{"id": "what the user said", "name": "Ada"}', Schema(User).name))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_release_that_added_a_field_with_a_default_reads_what_the_one_before_wrote() -> None:
    found = Schema(Point).decode(Encoded(b'{"x": 1}', Schema(Point).name))
    assert found == Point(1)


def test_an_older_version_is_read_through_its_migration() -> None:
    def migrate(data: Any, version: int) -> Any:
        assert version == 1
        return {"x": data["left"]}

    schema = Schema(Point, version=2, migrate=migrate)
    assert schema.decode(Encoded(b'{"left": 1}', schema.name, 1)) == Point(1)
    assert schema.decode(schema.encode(Point(4))) == Point(4)
    with pytest.raises(DecodingError):
        Schema(Point, version=2).decode(Encoded(b'{"x": 1}', schema.name, 1))
    with pytest.raises(DecodingError, match="KeyError"):
        schema.decode(Encoded(b'{"right": 1}', schema.name, 1))


def test_a_schema_may_have_a_name_of_its_own() -> None:
    assert Schema(Point, name="point").decode(Encoded(b'{"x": 1}', "point")) == Point(1)


def test_names_are_the_same_in_each_process() -> None:
    names = [Schema(of).name for of in (User, list[User], User | None, dict[str, Item])]
    here = __name__
    assert names == [f"{here}.User", f"list[{here}.User]", f"{here}.User | None", f"dict[str, {here}.Item]"]
    assert "0x" not in Schema(Annotated[int, AfterValidator(abs)]).name


@pytest.mark.parametrize("of", [5, "User", object(), type("Opaque", (), {}), lambda: None, ...], ids=repr)
def test_what_is_no_type_that_can_be_written_is_a_type_error(of: object) -> None:
    with pytest.raises(TypeError):
        Schema(of)


@pytest.mark.parametrize(
    "options", [{"version": "1"}, {"version": True}, {"version": -1}, {"migrate": 3}, {"name": 3}], ids=repr
)
def test_settings_of_a_schema_that_make_no_sense_are_a_type_error(options: Any) -> None:
    with pytest.raises(TypeError):
        Schema(int, **options)


# Plain JSON

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_json_comes_back_of_the_same_types(value: object) -> None:
    assert repr(decoded_plainly(encoded_plainly(value))) == repr(value)


class Text(str):
    __slots__ = ()


LOOP: list[Any] = []
LOOP += [LOOP, LOOP]


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1: 2},
        {Text("a"): 1},
        [Text("a")],
        {"a": [{"b": (1,)}]},
        {"a": {1}},
        b"bytes",
        Colour.RED,
        [True, [Colour.RED]],
        ADA,
        Point(1),
        MappingProxyType({"a": 1}),
        "\ud800",
        {"\ud800": 1},
        LOOP,
        object(),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_would_not_come_back_without_a_schema_is_not_written(value: object) -> None:
    with pytest.raises(EncodingError):
        encoded_plainly(value)


def test_plain_json_may_be_deep_and_wide_but_not_without_end() -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    assert is_plain(deep)
    assert decoded_plainly(encoded_plainly(deep)) == deep
    for _ in range(1_000):
        deep = [deep]
    assert not is_plain(deep)
    assert is_plain([[number] for number in range(30_000)])


def test_infinity_and_nan_come_back() -> None:
    found = decoded_plainly(encoded_plainly([math.inf, -math.inf, math.nan]))
    assert found[:2] == [math.inf, -math.inf]
    assert math.isnan(found[2])


@pytest.mark.parametrize("encoded", [Encoded(b"1", "int"), Encoded(b"1", "", 1), Encoded(b"{"), Encoded(b"[" * 10_000)])
def test_what_is_no_plain_json_is_not_read(encoded: Encoded) -> None:
    with pytest.raises(DecodingError):
        decoded_plainly(encoded)


# Failures


@pytest.mark.parametrize(
    ("error", "schema"),
    [("down", None), ({"status": 429}, None), (FetchTimeout("k", 1.5), None), (Point(1), Schema(Point))],
    ids=repr,
)
def test_a_failure_comes_back(error: object, schema: Schema | None) -> None:
    assert decoded_failure(encoded_failure(error, schema), schema) == error


def test_an_exception_is_not_written() -> None:
    with pytest.raises(EncodingError):
        encoded_failure(ValueError(SECRET), None)


@pytest.mark.parametrize("payload", [b"[1, 2]", b'["k"]', b"{", b'["k", "1.5"]'])
def test_a_timeout_that_is_none_is_not_read(payload: bytes) -> None:
    with pytest.raises(DecodingError):
        decoded_failure(Encoded(payload, "cachemesh.FetchTimeout"), None)


# The schemas of a cache


def test_a_schema_is_made_once() -> None:
    schemas = Schemas()
    assert schemas.of(list[User]) is schemas.of(list[User])
    assert schemas.of(None) is None
    own = Schema(User, version=3)
    assert schemas.of(own) is own
    assert schemas.known[own.name] is own


def test_a_type_without_a_hash_is_a_schema_as_well() -> None:
    of = Annotated[int, Field(json_schema_extra={"a": []}), {"no": "hash"}]
    schema = Schemas().of(of)
    assert schema is not None
    assert schema.decode(schema.encode(3)) == 3


def test_a_cache_refuses_a_schema_that_is_none() -> None:
    with pytest.raises(ValidationError, match="a schema is a type"):
        SyncCache(schemas=("User",))
    assert SyncCache(schemas=(User, Schema(Point, version=2))).put("k", 1).unwrap() == 1


@pytest.mark.parametrize("option", ["schema", "error_schema"])
def test_a_bad_schema_of_a_call_is_an_invalid_option(option: str) -> None:
    cache = SyncCache()
    options: Any = {option: "User"}
    answer = cache.get("k", lambda: Success(1), **options)
    assert repr(answer) == f"<Failure: InvalidOption({option!r}, 'str')>"
    assert cache.peek("k") != Success(1)


def test_put_refuses_a_bad_schema() -> None:
    assert repr(SyncCache().put("k", 1, schema=3)) == "<Failure: InvalidOption('schema', 'int')>"


# What an annotation says


class Later(BaseModel):
    x: int


async def a_coroutine() -> Result[User, str]: ...  # type: ignore[empty-body]  # only its annotation is looked at
def a_future() -> FutureResult[list[User], Point]: ...  # type: ignore[empty-body]  # as above
def an_io() -> IOResult[Item, Exception]: ...  # type: ignore[empty-body]  # as above
def directed_() -> Result[Directed[User], str]: ...  # type: ignore[empty-body]  # as above
def plain() -> Result[dict[str, list[int | None]], str]: ...  # type: ignore[empty-body]  # as above
def anything() -> Result[Any, object]: ...  # type: ignore[empty-body]  # as above
def no_rail() -> int: ...  # type: ignore[empty-body]  # as above
def nothing(): ...  # type: ignore[no-untyped-def]  # noqa: ANN201 (as above)


@pytest.mark.parametrize(
    ("function", "types"),
    [
        (a_coroutine, (User, None)),
        (a_future, (list[User], Point)),
        (an_io, (Item, Exception)),
        (directed_, (User, None)),
        (plain, (None, None)),
        (anything, (None, None)),
        (no_rail, (None, None)),
        (nothing, (None, None)),
        (len, (None, None)),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_the_annotation_says_what_answers_are(function: Callable[..., Any], types: tuple[Any, Any]) -> None:
    assert types_of_answers(function) == types


def test_cached_learns_the_schema_of_its_function() -> None:
    cache = SyncCache()

    @cached(cache, key="user:{name}")
    def user(name: str) -> Result[User, Point]:
        return Success(User(id=1, userName=name)) if name else Failure(Point(1))

    assert set(cache._runtime.schemas.known) == {Schema(User).name, Schema(Point).name}
    assert user("Ada").unwrap().name == "Ada"
    terms = cache._runtime.state.plain.hits["user:Ada"].as_entry().terms
    assert terms is not None
    assert terms.schema is cache._runtime.schemas.of(User)


def test_cached_keeps_the_schema_that_is_given() -> None:
    cache = Cache()
    own = Schema(User, version=7)

    @cached(cache, key="user", schema=own)
    async def user() -> Result[User, str]:
        return Success(ADA)

    assert user.key() == "user"
    assert cache._runtime.schemas.known == {}


def test_cached_with_an_annotation_that_only_type_checkers_know_takes_plain_json() -> None:
    cache = SyncCache()

    @cached(cache, key="k")
    def answer() -> Result[Nowhere, str]:  # type: ignore[name-defined]  # noqa: F821 (that is the point)
        return Success(1)

    assert answer() == Success(1)


def test_cached_with_an_annotation_that_is_defined_later_learns_it_at_the_first_call() -> None:
    cache = SyncCache()
    namespace: dict[str, Any] = {"Result": Result, "cached": cached, "cache": cache, "Success": Success}

    def answer() -> Result[LateOne, str]:  # type: ignore[name-defined]  # noqa: F821 (that is the point)
        return Success(Later(x=1))

    answer.__globals__.pop("LateOne", None)
    function = cached(cache, key="k")(answer)
    assert cache._runtime.schemas.known == {}
    namespace["LateOne"] = Later
    answer.__globals__["LateOne"] = Later
    try:
        assert function() == Success(Later(x=1))
    finally:
        del answer.__globals__["LateOne"]
    assert set(cache._runtime.schemas.known) == {Schema(Later).name}
