"""The failures that cachemesh itself answers with.

They are values: compared by type and content, picklable, and safe to keep. A
repr names types, never the content of a value or of somebody else's error,
so that it may be logged.
"""

from __future__ import annotations

from typing import Any


class CacheError(Exception):
    """Any failure that comes from the cache and not from the fetcher's own `Failure`."""

    def __init__(self, *fields: object) -> None:
        super().__init__(*fields)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        assert isinstance(other, CacheError)
        return _comparable(self.args) == _comparable(other.args)

    def __hash__(self) -> int:
        return hash((type(self), len(self.args), self.args[:1] if _hashable(self.args[:1]) else ()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(_shown(field) for field in self.args)})"

    def __str__(self) -> str:
        return repr(self)


def _comparable(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """Two exceptions with equal type and arguments count as the same error."""
    return tuple(
        (type(field), field.args) if isinstance(field, Exception) and not isinstance(field, CacheError) else field
        for field in fields
    )


def _hashable(fields: tuple[object, ...]) -> bool:
    return all(isinstance(field, str | float | int) or field is None for field in fields)


def _shown(field: object) -> str:
    if isinstance(field, BaseException):
        return type(field).__name__
    return repr(field)


class _KeyError(CacheError):
    """A failure that concerns one key."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


class CacheMiss(_KeyError):
    """Nothing is cached under `key`, and the call was not to fetch."""


class CacheExpired(_KeyError):
    """What is cached under `key` has expired, and the call was not to fetch."""


class NoActiveUser(_KeyError):
    """`key` was asked for in the user scope while nobody is signed in."""


class NoTokenKeeper(_KeyError):
    """`get_authenticated` was called on a cache that has no token keeper."""


class ReentrantFetch(_KeyError):
    """The fetch of `key` waits, directly or through other keys, for itself."""


class FetchCancelled(_KeyError):
    """The fetch that this call had joined was cancelled before it answered."""


class FetchRaised(CacheError):
    """The fetcher raised: `error` is the exception."""

    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(key, error)
        self.key = key
        self.error = error


class InvalidFetchResult(CacheError):
    """The fetcher returned something that is no `Result`: `got` is its type's name."""

    def __init__(self, key: str, got: str) -> None:
        super().__init__(key, got)
        self.key = key
        self.got = got


class InvalidKey(CacheError):
    """`key` is not a str."""

    def __init__(self, key: object) -> None:
        super().__init__(key)
        self.key = key

    def __repr__(self) -> str:
        return f"InvalidKey(<{type(self.key).__name__}>)"


class InvalidTtl(CacheError):
    """A ttl, or another duration, must be None or a finite number of seconds from 0 to a century."""

    def __init__(self, value: object) -> None:
        super().__init__(value)
        self.value = value


class InvalidOption(CacheError):
    """The option `option` of a call has the wrong type: `got` is its type's name."""

    def __init__(self, option: str, got: str) -> None:
        super().__init__(option, got)
        self.option = option
        self.got = got


class CircuitOpen(CacheError):
    """The origin `origin` has failed too often of late: it is left alone until `until`, in seconds since the epoch."""

    def __init__(self, origin: str, until: float) -> None:
        super().__init__(origin, until)
        self.origin = origin
        self.until = until


class ValueNotCopied(CacheError):
    """The value under `key` could not be copied or frozen: `error` is what the copier raised."""

    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(key, error)
        self.key = key
        self.error = error


class UpdateRaised(CacheError):
    """The function of an `update` raised: `error` is the exception. The value under `key` is as it was."""

    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(key, error)
        self.key = key
        self.error = error


class FetchTimeout(CacheError):
    """The fetch did not answer within `after` seconds."""

    def __init__(self, key: str, after: float) -> None:
        super().__init__(key, after)
        self.key = key
        self.after = after


class StoreFailed(CacheError):
    """The store failed or hung in `operation`; the cache went on without it."""

    def __init__(self, operation: str, error: Exception) -> None:
        super().__init__(operation, error)
        self.operation = operation
        self.error = error


class UndecodableEntry(CacheError):
    """The store returned something under `key` that is not an entry of this key."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason


class InvalidSnapshot(CacheError):
    """What was to be hydrated is no snapshot that can be read: `reason` says why, and quotes nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CacheClosed(CacheError):
    """The cache was closed."""

    def __init__(self) -> None:
        super().__init__()
