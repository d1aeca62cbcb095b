"""Values that callers could change under the cache's hands: copied as they are given out, or frozen as they come in."""

from __future__ import annotations

from copy import deepcopy
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from returns.result import Failure, Success

from cachemesh.errors import ValueNotCopied
from cachemesh.shell.schema import EncodingError, encoded_plainly, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.shell.outcomes import Answer
    from cachemesh.shell.ports import Encoded
    from cachemesh.shell.schema import Schema


class Values:
    """What is done to values at the door. By default nothing: everybody gets the very object that was fetched."""

    __slots__ = ("copy", "freeze")

    def __init__(self, copy_on_read: bool | Callable[[Any], Any], freeze: Callable[[Any], Any] | None) -> None:
        self.copy: Callable[[Any], Any] | None = None
        if callable(copy_on_read):
            self.copy = copy_on_read
        elif copy_on_read:
            self.copy = deepcopy
        self.freeze = freeze

    def given(self, key: str, answer: Answer) -> Answer:
        """`answer` as a caller gets it."""
        return answer if self.copy is None else _with(self.copy, key, answer)

    def taken(self, key: str, value: Any) -> Answer:  # noqa: ANN401 (whatever a caller writes)
        """A value that a caller writes, as it is cached: the caller may go on changing it."""
        answer = Success(value)
        return answer if self.copy is self.freeze is None else self.kept(key, self.given(key, answer))

    def kept(self, key: str, answer: Answer) -> Answer:
        """`answer` as it is cached."""
        return answer if self.freeze is None else _with(self.freeze, key, answer)

    def encoded(self, key: str, value: Any, schema: Schema | None) -> Encoded:  # noqa: ANN401 (whatever is cached)
        """`value` as JSON that brings it back. `EncodingError` where there is none.

        A frozen one is written as what it was made of, if that would be frozen to the same again.
        """
        encode = encoded_plainly if schema is None else schema.encode
        try:
            return encode(value)
        except EncodingError:
            plain = value if self.freeze is None else self._thawed(key, value)
            if plain is value:
                raise
            return encode(plain)

    def _thawed(self, key: str, value: Any) -> Any:  # noqa: ANN401 (as above)
        """What `value` was made of; itself where that is not known."""
        try:
            plain = thawed(value)
            again, kept = self.kept(key, Success(plain)), self.kept(key, Success(value))
            is_same = isinstance(again, Success) and type(again.unwrap()) is type(kept.unwrap()) and again == kept
        except Exception as error:  # noqa: BLE001 (too deep, or an equality of the user's)
            raise EncodingError(reason_of(error)) from None
        return plain if is_same else value


def _with(change: Callable[[Any], Any], key: str, answer: Answer) -> Answer:
    if not isinstance(answer, Success):
        return answer
    try:
        return Success(change(answer.unwrap()))
    except Exception as error:  # noqa: BLE001 (a value may refuse to be copied in any way)
        return Failure(ValueNotCopied(key, error))


def thawed(value: Any) -> Any:  # noqa: ANN401 (whatever there is)
    """What `frozen` made of plain JSON, as plain JSON."""
    if type(value) is MappingProxyType:
        return {key: thawed(each) for key, each in value.items()}
    return [thawed(each) for each in value] if type(value) is tuple else value


def frozen(value: Any) -> Any:  # noqa: ANN401 (whatever there is)
    """For `freeze`: lists become tuples, dicts read-only mappings, sets frozensets, all the way down.

    >>> frozen({"tags": ["a", "b"]})["tags"]
    ('a', 'b')
    """
    if isinstance(value, dict):
        return MappingProxyType({key: frozen(each) for key, each in value.items()})
    if isinstance(value, list | tuple) and type(value) in {list, tuple}:
        return tuple(frozen(each) for each in value)
    if isinstance(value, set):
        return frozenset(value)
    return value
