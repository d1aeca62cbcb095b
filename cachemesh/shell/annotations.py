"""What a function's annotation says of its answers: `Result[User, ApiError]` is one of a `User`."""

from __future__ import annotations

import typing
from types import NoneType, UnionType
from typing import Any, Final, Union, get_args, get_origin

from cachemesh.shell.directives import DoNotCache, Fresh, NotModified

RAILS: Final = frozenset({"Result", "IOResult", "FutureResult"})

NATIVE: Final[frozenset[Any]] = frozenset({NoneType, None, bool, int, float, str, Any, object})
"""Plain JSON, which needs no schema; and what says nothing."""


def types_of_answers(function: Any) -> tuple[Any, Any]:  # noqa: ANN401 (any callable)
    """The types of value and error; None for one that is plain JSON, or is not said.

    Raises NameError where the annotation names what is not (or not yet) defined.

    >>> from returns.result import Result
    >>> class User: ...
    >>> def user() -> Result[User, str]: ...
    >>> types_of_answers(user) == (User, None)
    True
    """
    try:
        returned = typing.get_type_hints(function, include_extras=True).get("return")
    except TypeError:  # Not a function, or an annotation that is no type.
        return None, None
    rail = rail_in(returned)
    if rail is None:
        return None, None
    value, error = get_args(rail)
    return said(value), said(error)


def rail_in(annotation: Any) -> Any:  # noqa: ANN401 (a type)
    """The `Result`, or its like, that is returned or awaited."""
    name = getattr(get_origin(annotation), "__name__", "")
    if name in RAILS and len(get_args(annotation)) == 2:  # noqa: PLR2004 (value and error)
        return annotation
    inner = get_args(annotation)
    return rail_in(inner[-1]) if name in {"Coroutine", "Awaitable"} and inner else None


def said(annotation: Any) -> Any:  # noqa: ANN401 (a type)
    """`annotation` without the directives that a `Directed` may be; None where it is plain JSON, or says nothing."""
    if get_origin(annotation) in {Union, UnionType}:
        kept = [each for each in get_args(annotation) if not is_directive(each)]
        annotation = Union[tuple(kept)] if kept else None  # noqa: UP007 (made of what there is)
    return None if is_native(annotation) or isinstance(annotation, typing.TypeVar) else annotation


def is_directive(annotation: Any) -> bool:  # noqa: ANN401 (a type)
    return annotation is NotModified or (get_origin(annotation) or annotation) in {Fresh, DoNotCache}


def is_native(annotation: Any) -> bool:  # noqa: ANN401 (a type)
    """Whether what is of this type is plain JSON."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is list or origin in {Union, UnionType}:
        return all(map(is_native, inner))
    if origin is dict:
        return inner[0] is str and is_native(inner[1])
    try:
        return annotation in NATIVE or annotation in {list, dict}
    except TypeError:  # An Annotated with metadata that has no hash.
        return False
