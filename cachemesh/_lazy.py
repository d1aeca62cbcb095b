"""Names of a package that are imported when they are first asked for (PEP 562)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy(namespace: dict[str, Any], homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for the package with the globals `namespace`.

    `homes`: the names, separated by blanks, that each module has for it. A
    name that is the module's own means the module.
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}

    def __getattr__(name: str) -> Any:  # noqa: ANN401, N807 (what the module has under that name)
        if name not in home_of:
            msg = f"module {namespace['__name__']!r} has no attribute {name!r}"
            raise AttributeError(msg)
        home = home_of[name]
        module = import_module(home)
        found = namespace[name] = module if home.endswith(f".{name}") else getattr(module, name)
        return found

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*namespace, *home_of})

    return __getattr__, __dir__
