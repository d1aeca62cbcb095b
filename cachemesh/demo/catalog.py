"""The records that the origin serves, read from the JSON files beside this module."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


# Collection -> the seconds for which a client may keep one of its records.
PUBLIC: Final[Mapping[str, float]] = {"cities": 0.5, "weather": 0.2, "articles": 0.4, "users": 0.3}
PRIVATE: Final[Mapping[str, float]] = {"profile": 0.4, "orders": 0.25}


@dataclass(frozen=True)
class Resource:
    """One thing that clients read: the cache's key, the origin's path, and how long it keeps."""

    key: str
    path: str
    ttl_s: float
    is_private: bool


class Catalog:
    """All records, by path; the private ones by path and owner."""

    def __init__(self) -> None:
        self._public: dict[str, Any] = {
            f"/{collection}/{record['id']}": record for collection in PUBLIC for record in _load(collection)
        }
        self._accounts: dict[str, dict[str, Any]] = _load("accounts")

    @cached_property
    def owners(self) -> tuple[str, ...]:
        """Those who have private records."""
        return tuple(self._accounts)

    @cached_property
    def resources(self) -> tuple[Resource, ...]:
        """Everything that can be read, the public things first."""
        public = (
            Resource(f"{_SINGULAR[collection]}:{number}", path, PUBLIC[collection], is_private=False)
            for path in self._public
            for _, collection, number in [path.split("/")]
        )
        private = (Resource(f"me:{part}", f"/me/{part}", ttl_s, is_private=True) for part, ttl_s in PRIVATE.items())
        return (*public, *private)

    def is_private(self, path: str) -> bool:
        """Whether `path` is answered for its owner only."""
        return path.startswith("/me/")

    def find(self, path: str, user: str | None) -> object:
        """The record at `path`, as `user` sees it; None where there is none."""
        if not self.is_private(path):
            return self._public.get(path)
        return self._accounts.get(user or "", {}).get(path.removeprefix("/me/"))


_SINGULAR: Final[Mapping[str, str]] = {"cities": "city", "weather": "weather", "articles": "article", "users": "user"}


def _load(name: str) -> Any:  # noqa: ANN401  JSON
    return json.loads(files("cachemesh.demo").joinpath("data", f"{name}.json").read_text(encoding="utf-8"))
