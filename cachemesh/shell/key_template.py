"""Keys for calls: a template over the parameters, or a function of the arguments."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

from msgspec import Struct

F = TypeVar("F", bound=Callable[..., Any])


class Shortcut(Struct, frozen=True):
    """For a function of one argument whose key is that argument between two pieces of text."""

    prefix: str
    suffix: str
    parameter: inspect.Parameter

    def named(self, function: F) -> F:
        """`function`, its only parameter named (and defaulted) like that of the function it stands for.

        A `*args, **kwargs` in its place would cost a tenth of a hit.
        """
        code = function.__code__
        names = (self.parameter.name, *code.co_varnames[1:])
        default = self.parameter.default
        return cast(
            "F",
            FunctionType(
                code.replace(co_varnames=names),
                function.__globals__,
                code.co_name,
                None if default is inspect.Parameter.empty else (default,),
                function.__closure__,
            ),
        )


class KeyTemplate:
    """How the key of a call is written."""

    def __init__(self, signature: inspect.Signature, write: Callable[[inspect.BoundArguments], str]) -> None:
        self.signature = signature
        self._write = write
        self.shortcut: Shortcut | None = None

    @classmethod
    def of(cls, key: str | Callable[..., str], signature: inspect.Signature) -> KeyTemplate:
        """`signature`: of the function whose calls have keys."""
        if not isinstance(key, str):
            return cls(signature, lambda bound: key(*bound.args, **bound.kwargs))
        pieces = [
            (literal, name, spec or "", conversion) for literal, name, spec, conversion in string.Formatter().parse(key)
        ]
        fields = [name for _, name, _, _ in pieces if name is not None]
        unknown = [name for name in fields if _parameter(name) not in signature.parameters]
        if unknown:
            msg = f"the key template {key!r} names {unknown[0]!r}, which is no parameter"
            raise ValueError(msg)
        if any(name == "self" and conversion is None for _, name, _, conversion in pieces):
            msg = f"the key template {key!r} prints self, which may be no more than an address: name a field of it"
            raise ValueError(msg)
        if any(not literal and name is not None for literal, name, _, _ in pieces[1:]):
            msg = f"the fields of the key template {key!r} need something between them"
            raise ValueError(msg)
        if len(fields) > 1:
            between = "".join(literal for literal, _, _, _ in pieces[1:])
            template = cls(signature, lambda bound: _format(key, _escaping(bound.arguments, between)))
        else:
            template = cls(signature, lambda bound: _format(key, bound.arguments))
        if _is_only_parameter(fields, pieces, signature):
            suffix = pieces[1][0] if len(pieces) > 1 else ""
            template.shortcut = Shortcut(pieces[0][0], suffix, signature.parameters[fields[0]])
        return template

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """The arguments by name, defaults included. TypeError where the function could not be called with them."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def written(self, bound: inspect.BoundArguments) -> str:
        return self._write(bound)

    def key(self, /, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401 (the function's own arguments)
        """The key of a call with these arguments."""
        return self.written(self.bound(args, kwargs))


def _parameter(field: str) -> str:
    """The parameter that a field such as `user.id` or `point[0]` is about."""
    return field.split(".", maxsplit=1)[0].split("[", maxsplit=1)[0]


def _is_only_parameter(
    fields: list[str],
    pieces: list[tuple[str, str | None, str, str | None]],
    signature: inspect.Signature,
) -> bool:
    if len(fields) != 1 or list(signature.parameters) != fields:
        return False
    parameter = signature.parameters[fields[0]]
    is_bare = all(not spec and conversion is None for _, _, spec, conversion in pieces)
    return is_bare and parameter.kind is parameter.POSITIONAL_OR_KEYWORD and not parameter.name.startswith("__")


def _format(template: str, values: dict[str, Any]) -> str:
    return string.Formatter().vformat(template, (), values)


def _escaping(values: dict[str, Any], between: str) -> dict[str, Any]:
    return {name: _Escaping(value, between) for name, value in values.items()}


class _Escaping:
    """A value that prints itself with the separators of its template percent-encoded."""

    def __init__(self, value: Any, between: str) -> None:  # noqa: ANN401 (any argument)
        self._value = value
        self._between = between

    def __getattr__(self, name: str) -> _Escaping:
        return _Escaping(getattr(self._value, name), self._between)

    def __getitem__(self, index: Any) -> _Escaping:  # noqa: ANN401 (whatever the value takes)
        return _Escaping(self._value[index], self._between)

    def __format__(self, spec: str) -> str:
        return self._encoded(format(self._value, spec))

    def __str__(self) -> str:
        return self._encoded(str(self._value))

    def __repr__(self) -> str:
        return self._encoded(repr(self._value))

    def _encoded(self, text: str) -> str:
        unsafe = {"%", *self._between}
        return "".join(_percent_encoded(char) if char in unsafe else char for char in text)


def _percent_encoded(char: str) -> str:
    """RFC 3986, section 2.1, for any character: a separator may be one that URLs leave alone."""
    return "".join(f"%{byte:02X}" for byte in char.encode(errors="surrogatepass"))
