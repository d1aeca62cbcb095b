"""Schemas: what the values under a key are, how they are written as JSON, and what may be read back as one.

A value without a schema is written if it is plain JSON: None, bool, int,
float, str, and lists and dicts (with str keys) of these, none of a subclass.
With one it is written by pydantic, or by msgspec where pydantic does not know
the type, and read back at once: what does not come back equal is not stored.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from itertools import chain
from types import FunctionType
from typing import Any, Final, Protocol

import msgspec
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from cachemesh.errors import FetchTimeout
from cachemesh.shell.ports import Encoded

Migration = Callable[[Any, int], Any]
"""Makes of plain JSON, written with an older version, what this version would have written."""


ANYTHING: Final[TypeAdapter[Any]] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))
"""Writes and reads plain JSON."""

read_plainly: Final[Callable[[bytes], Any]] = ANYTHING.validator.validate_json
write_plainly: Final[Callable[[Any], bytes]] = ANYTHING.serializer.to_json
"""What `validate_json` and `dump_json` of it come to, without a microsecond of frames and defaults each."""


class EncodingError(ValueError):
    """The value cannot be stored. The text says why, and quotes nothing of it."""


class DecodingError(ValueError):
    """What was stored is no value of the schema. The text says why, and quotes nothing of it."""


class Schema:
    """What the values under a key are: `of` is any type that pydantic takes, or a msgspec Struct.

    For `get(..., schema=...)` and its kin, where a type alone does not do.
    What was stored with another schema (they are told apart by `name`: the
    type's own, with its module, unless you say otherwise) is not read. What was
    stored with another `version` is not read either, unless `migrate` makes it
    fit: a function of the stored JSON and the version that it has. Raises
    `TypeError` where `of` is no type that can be written.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class User:
    ...     full_name: str
    >>> def migrate(data, version):
    ...     return {"full_name": data["name"]}
    >>> schema = Schema(User, version=2, migrate=migrate, name="user")
    >>> schema.decode(Encoded(b'{"name": "Ada"}', "user", 1))
    User(full_name='Ada')
    """

    __slots__ = ("_codec", "_exact", "_migrate", "name", "of", "version")

    def __init__(
        self,
        of: Any,  # noqa: ANN401 (a type, a union, an Annotated: there is no type for types)
        *,
        version: int = 0,
        migrate: Migration | None = None,
        name: str | None = None,
    ) -> None:
        if type(version) is not int or not 0 <= version < 2**31:
            msg = "a schema's version is an int from 0 on"
            raise TypeError(msg)
        if migrate is not None and not callable(migrate):
            msg = "`migrate` is a function"
            raise TypeError(msg)
        if name is not None and not isinstance(name, str):
            msg = "a schema's name is a str"
            raise TypeError(msg)
        self.of = of
        self.version = version
        self.name = name_of(of) if name is None else name
        self._migrate = migrate
        self._codec = codec_of(of)
        self._exact: type | None = of if isinstance(of, type) and issubclass(of, BaseModel | msgspec.Struct) else None

    def __repr__(self) -> str:
        return f"Schema({self.name}, version={self.version})"

    def encode(self, value: Any) -> Encoded:  # noqa: ANN401 (checked here)
        """`value` as JSON. `EncodingError` where it would not come back as it is."""
        if self._exact is not None and type(value) is not self._exact:
            msg = f"a {type(value).__name__} is no {self.name}"
            raise EncodingError(msg)
        try:
            payload = self._codec.dump(value)
            comes_back = self._codec.are_equal(self._codec.load(payload), value)
        except Exception as error:  # noqa: BLE001 (a serializer or validator of the user's may raise anything)
            raise EncodingError(reason_of(error)) from None
        if not comes_back:
            msg = "it does not come back as it was"
            raise EncodingError(msg)
        return Encoded(payload, self.name, self.version)

    def decode(self, encoded: Encoded) -> Any:  # noqa: ANN401 (a value of the schema)
        """The value. `DecodingError` where it is none of this schema."""
        if encoded.schema != self.name:
            msg = "of another schema"
            raise DecodingError(msg)
        migrate = self._migrate
        if encoded.version != self.version and migrate is None:
            msg = "of another version of the schema"
            raise DecodingError(msg)
        payload = encoded.payload
        try:
            if encoded.version != self.version and migrate is not None:
                payload = ANYTHING.dump_json(migrate(ANYTHING.validate_json(payload), encoded.version))
            return self._codec.load(payload)
        except Exception as error:  # noqa: BLE001 (as above)
            raise DecodingError(reason_of(error)) from None


class Schemas:
    """The schemas that one cache has met. Making one takes a while, so each is made once."""

    def __init__(self, expected: Iterable[Any] = ()) -> None:
        self._by_type: dict[Any, Schema] = {}
        self._by_name: dict[str, Schema] = {}
        for each in expected:
            self.of(each)

    def of(self, given: Any) -> Schema | None:  # noqa: ANN401 (whatever a caller names)
        """The schema that a caller means. `TypeError` where it is none."""
        if given is None:
            return None
        try:
            found = self._by_type.get(given)
        except TypeError:  # It is not hashable, as some metadata of an Annotated is not.
            return self._met(given)
        return self._met(given) if found is None else found

    def _met(self, given: Any) -> Schema:  # noqa: ANN401
        schema = given if isinstance(given, Schema) else Schema(given)
        self._by_name[schema.name] = schema
        with suppress(TypeError):
            self._by_type[given] = schema
        return schema

    @property
    def known(self) -> Mapping[str, Schema]:
        """The schemas by name."""
        return self._by_name


class Codec(Protocol):
    """Writes and reads the values of one type."""

    def dump(self, value: Any, /) -> bytes: ...  # noqa: ANN401
    def load(self, payload: bytes, /) -> Any: ...  # noqa: ANN401
    def are_equal(self, one: Any, other: Any, /) -> bool: ...  # noqa: ANN401


class PydanticCodec:
    """By field names and not by aliases: one name for both directions. Strict: a "1" is no int."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter

    def dump(self, value: Any) -> bytes:  # noqa: ANN401
        return self._adapter.dump_json(value, by_alias=False, round_trip=True, warnings="error")

    def load(self, payload: bytes) -> Any:  # noqa: ANN401
        return self._adapter.validate_json(payload, strict=True, by_alias=False, by_name=True)

    def are_equal(self, one: Any, other: Any) -> bool:  # noqa: ANN401
        """Whether two values are; those of a type without an equality of its own, by their fields."""
        if type(one) is not type(other):
            return False
        if one == other:
            return True
        own_equality: Any = type(one).__eq__
        if own_equality is not object.__eq__:
            return False
        dump = self._adapter.dump_python
        return bool(dump(one, round_trip=True) == dump(other, round_trip=True))


class MsgspecCodec:
    """For structs, and for what holds them."""

    def __init__(self, of: Any) -> None:  # noqa: ANN401
        self.dump: Callable[[Any], bytes] = msgspec.json.Encoder().encode
        self.load: Callable[[bytes], Any] = msgspec.json.Decoder(of, strict=True).decode

    def are_equal(self, one: Any, other: Any) -> bool:  # noqa: ANN401
        return type(one) is type(other) and bool(one == other)


def codec_of(of: Any) -> Codec:  # noqa: ANN401
    """What writes values of this type. TypeError where nothing does."""
    if isinstance(of, TypeAdapter):
        return PydanticCodec(of)
    if isinstance(of, str | FunctionType):
        msg = "a schema is a type, not the name of one, and no function"
        raise TypeError(msg)
    if holds_struct(of):
        try:
            return MsgspecCodec(of)
        except Exception as error:  # Whatever msgspec says of a type that it does not know.
            msg = f"msgspec knows no {name_of(of)}"
            raise TypeError(msg) from error
    try:
        return PydanticCodec(TypeAdapter(of))
    except (PydanticUserError, TypeError, NameError, AttributeError, ValueError, RecursionError) as error:
        msg = f"pydantic knows no {name_of(of)}"
        raise TypeError(msg) from error


def holds_struct(of: Any) -> bool:  # noqa: ANN401
    """Whether `of` is a msgspec Struct, or a container of one."""
    if isinstance(of, type) and not typing.get_args(of):
        return issubclass(of, msgspec.Struct)
    return any(holds_struct(each) for each in (typing.get_origin(of), *typing.get_args(of)) if each is not None)


def name_of(of: Any) -> str:  # noqa: ANN401
    """The name of a type, the same in each process."""
    if isinstance(of, TypeAdapter):
        return name_of(of._type)  # noqa: SLF001 (it tells its type nowhere else)
    if isinstance(of, type) and not typing.get_args(of):
        return f"{of.__module__}.{of.__qualname__}"
    return ADDRESS.sub("", repr(of))


ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


def reason_of(error: Exception) -> str:
    """What went wrong, without the value it went wrong over: the first field, and the kind of error."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{first['type']} at {place}" if place else str(first["type"])
    return type(error).__name__


# Without a schema


def encoded_plainly(value: Any) -> Encoded:  # noqa: ANN401
    """Plain JSON as bytes. `EncodingError` where it is none."""
    if not is_plain(value):
        msg = "it is no plain JSON, and has no schema"
        raise EncodingError(msg)
    try:
        return Encoded(write_plainly(value))
    except Exception as error:  # noqa: BLE001 (half a surrogate pair, too deep)
        raise EncodingError(reason_of(error)) from None


def decoded_plainly(encoded: Encoded) -> Any:  # noqa: ANN401
    """What `encoded_plainly` was given. `DecodingError` where it was written with a schema, or is no JSON."""
    if encoded.schema or encoded.version:
        msg = "of another schema"
        raise DecodingError(msg)
    try:
        return read_plainly(encoded.payload)
    except Exception as error:  # noqa: BLE001 (as above)
        raise DecodingError(reason_of(error)) from None


LEAVES: Final[frozenset[type[Any]]] = frozenset({type(None), bool, int, float, str})
CONTAINERS: Final[frozenset[type[Any]]] = frozenset({list, dict})
PLAIN: Final = LEAVES | CONTAINERS
TEXT: Final[frozenset[type[Any]]] = frozenset({str})
DEEPEST: Final = 200
"""What is nested deeper is no JSON that could be read again; what holds itself has no end."""
MANY: Final = 10_000


def is_plain(value: Any) -> bool:  # noqa: ANN401
    """Whether a value is plain JSON, exactly: it comes back of the same types. Level by level, in C where it counts."""
    if type(value) in LEAVES:
        return True
    level = [value] if type(value) in CONTAINERS else []
    for _ in range(DEEPEST):
        if not level:
            break
        names: Iterable[object] = ()
        inner: Collection[Any]
        if len(level) == 1:  # At the top, and mostly below it.
            [inner] = level
            if type(inner) is dict:
                names, inner = inner, inner.values()
        else:
            names = chain.from_iterable(each for each in level if type(each) is dict)
            inner = list(chain.from_iterable(each.values() if type(each) is dict else each for each in level))
        if not TEXT.issuperset(map(type, names)):
            return False
        if LEAVES.issuperset(map(type, inner)):
            return True
        if not PLAIN.issuperset(map(type, inner)):
            return False
        level = [each for each in inner if type(each) in CONTAINERS]
        if len(level) > MANY:  # What is held many times is looked at once.
            level = list({id(each): each for each in level}.values())
    return False


# Failures

TIMEOUT: Final = "cachemesh.FetchTimeout"


def encoded_failure(error: Any, schema: Schema | None) -> Encoded:  # noqa: ANN401
    """An error as JSON: plain, of `schema`, or a `FetchTimeout`. `EncodingError` for any other."""
    if type(error) is FetchTimeout:
        try:
            return Encoded(ANYTHING.dump_json([error.key, error.after]), TIMEOUT)
        except Exception as raised:  # noqa: BLE001 (a fetcher may put anything into one of its own)
            raise EncodingError(reason_of(raised)) from None
    return encoded_plainly(error) if schema is None else schema.encode(error)


def decoded_failure(encoded: Encoded, schema: Schema | None) -> Any:  # noqa: ANN401
    """What `encoded_failure` was given. `DecodingError` where it is no such error."""
    if encoded.schema == TIMEOUT:
        try:
            key, after = TIMEOUT_FIELDS.validate_json(encoded.payload, strict=True)
        except ValidationError as error:
            raise DecodingError(reason_of(error)) from None
        return FetchTimeout(key, after)
    return decoded_plainly(encoded) if schema is None else schema.decode(encoded)


TIMEOUT_FIELDS: Final = TypeAdapter(tuple[str, float])
