"""A cached function in the body of a class, and what an instance makes of it.

For the call alone the function would do. But what is asked of the method to
which it binds (`.key`, `.invalidate`, `.refresh`) is asked of the function, and
nobody tells that of which instance.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def is_in_class(function: Callable[..., Any]) -> bool:
    """Whether `function` was defined in the body of a class, as its qualified name says, and is not bound yet."""
    scope = getattr(function, "__qualname__", "").rpartition(".")[0]
    return bool(scope) and not scope.endswith("<locals>") and not inspect.ismethod(function)


class Method(staticmethod):  # type: ignore[type-arg]  # At run time it takes no parameters.
    """What stands in the class: the cached function for the class itself, a `BoundMethod` for an instance.

    A `staticmethod` by its base, for those who read the bodies of classes: pydantic
    would take any other object for a field that lacks its annotation.
    """

    def __get__(self, instance: object, owner: type | None = None) -> Any:  # noqa: ANN401 (one of the three protocols)
        function = self.__func__
        if instance is None:
            return function
        bound = BoundMethod(function, instance)
        bound.__doc__ = function.__doc__
        return bound

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (what the function has under that name)
        return getattr(self.__func__, name)


class BoundMethod(functools.partial[Any]):
    """A cached function that was given its `self`, for `key`, `invalidate` and `refresh` as well."""

    func: Any  # With attributes that `Callable` does not have.

    def key(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (the function's own arguments)
        return self.func.key(*self.args, *args, **kwargs)

    def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return self.func.invalidate(*self.args, *args, **kwargs)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return self.func.refresh(*self.args, *args, **kwargs)

    @property
    def __self__(self) -> Any:  # noqa: ANN401 (whatever has the method)
        return self.args[0]

    @property
    def __func__(self) -> Any:  # noqa: ANN401 (one of the three protocols)
        return self.func

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (what the function has under that name)
        if name.startswith("__") and name not in {"__name__", "__qualname__"}:
            raise AttributeError(name)  # `inspect` would take it for the function, `self` and all.
        return getattr(self.func, name)

    def __eq__(self, other: object) -> bool:
        if type(other) is not BoundMethod:
            return NotImplemented
        return self.func is other.func and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((self.func, id(self.__self__)))
