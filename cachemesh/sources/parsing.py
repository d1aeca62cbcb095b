"""What a body is read as: any type that pydantic takes, text, bytes or nothing."""

from __future__ import annotations

import codecs
from contextlib import suppress
from functools import lru_cache, partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter, ValidationError

from cachemesh.sources.failure import FailureKind, NetworkFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


NO_TYPES: Final = (str, FunctionType, MethodType, partial)
"""Pydantic would look up the name, and call the others with what an origin sends."""

NO_CHARSETS: Final = frozenset({"punycode", "unicode-escape", "raw-unicode-escape"})
"""Codecs of Python's that are no charsets. Punycode takes hours for a few MB."""


class UnfitError(Exception):
    """The body is none of what was asked for. The text says why, and quotes nothing of it."""

    @property
    def failure(self) -> NetworkFailure:
        return NetworkFailure(kind=FailureKind.PARSING, message=str(self))


def reader_of(parser: Any) -> Callable[[bytes, str | None], Any]:  # noqa: ANN401 (a type, a union, an Annotated)
    """What makes of a body, and the charset that it came with, what `parser` says. `UnfitError`: it is no type."""
    if parser is bytes:
        return _bytes
    if parser is str:
        return _text
    if parser is None:
        return _nothing
    try:
        # Unions are equal whatever their order, and pydantic prefers the left where both fit.
        return _known(parser, "" if isinstance(parser, type) else repr(parser))
    except TypeError:  # It is not hashable, as some metadata of an Annotated is not.
        return _reader(parser)


def _bytes(body: bytes, charset: str | None) -> bytes:
    del charset
    return body


def _nothing(body: bytes, charset: str | None) -> None:
    del body, charset


def _text(body: bytes, charset: str | None) -> str:
    """As UTF-8, where the origin says nothing or something odd."""
    name = _charset(charset or "utf-8")
    try:
        return body.decode(name)
    except Exception:  # noqa: BLE001 (a codec may raise anything; UnicodeError quotes the body)
        msg = f"the body is no {name} text"
        raise UnfitError(msg) from None


def _charset(name: str) -> str:
    try:
        known = codecs.lookup(name).name
        b"x".decode(name, "replace")  # A LookupError where it makes no text, but unpacks bz2.
    except (LookupError, ValueError):
        return "utf-8"
    return "utf-8" if known in NO_CHARSETS else known


def _reader(parser: Any, text: str = "") -> Callable[[bytes, str | None], Any]:  # noqa: ANN401 (as above)
    del text
    adapter = _adapter(parser)

    def read(body: bytes, charset: str | None) -> Any:  # noqa: ANN401 (of the type)
        del charset  # JSON between systems is UTF-8 (RFC 8259, section 8.1).
        try:
            return adapter.validate_json(body) if body else adapter.validate_python(None)
        except ValidationError as error:
            raise UnfitError(_reason(adapter, error) if body else "the body is empty") from None
        except Exception as error:  # noqa: BLE001 (a validator of the user's may raise anything)
            msg = f"the parser raised {type(error).__name__}"
            raise UnfitError(msg) from None

    return read


def _adapter(parser: Any) -> TypeAdapter[Any]:  # noqa: ANN401 (as above)
    if isinstance(parser, TypeAdapter):
        return parser
    with suppress(Exception):  # Hooks of a type may raise anything.
        if not isinstance(parser, NO_TYPES):
            return TypeAdapter(parser)
    msg = "the parser is no type that pydantic knows"
    raise UnfitError(msg)


_known: Final = lru_cache(maxsize=512)(_reader)


def _reason(adapter: TypeAdapter[Any], error: ValidationError) -> str:
    """The first field that does not fit, and how. Keys of a mapping are part of the input, and so a `*`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    known = _names(adapter)
    parts = (str(part) if isinstance(part, int) or part in known else "*" for part in first["loc"])
    place = ".".join(parts)
    return f"{first['type']} at {place}" if place else str(first["type"])


def _names(adapter: TypeAdapter[Any]) -> frozenset[str]:
    """The names of fields that a schema knows."""
    try:
        schema = adapter.json_schema()
    except Exception:  # noqa: BLE001 (not every type has one, and hooks of the user's may raise anything)
        return frozenset()
    return frozenset(_properties(schema))


def _properties(schema: Any) -> Iterator[str]:  # noqa: ANN401 (JSON)
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict):
            yield from properties
    if isinstance(schema, dict | list):
        for inner in schema.values() if isinstance(schema, dict) else schema:
            yield from _properties(inner)
