"""What a cache tells of itself. A logger that raises never breaks a read.

The key of a user's entry arrives as a `PrivateKey`: equal to the key, but
printed as a hash, so that a log shows which lines belong together and not
what users look at.
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING

from cachemesh.errors import CacheError

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from cachemesh.core.model import RefreshSource
    from cachemesh.core.scopes import Owner

_SALT = os.urandom(16)


class PrivateKey(str):
    """A key that is printed as a hash, salted anew for each process. `str.__str__(key)` is the key itself."""

    __slots__ = ()

    def __str__(self) -> str:
        digest = hashlib.blake2s(str.encode(self, errors="surrogatepass"), key=_SALT, digest_size=6)
        return f"user#{digest.hexdigest()}"

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, format_spec: str) -> str:
        return format(str(self), format_spec)


def shown_key(owner: Owner, key: str) -> str:
    """`key` as a logger gets it."""
    return key if owner[1] is None else PrivateKey(key)


def shown_error(owner: Owner, error: object) -> object:
    """`error` as a logger gets it: what is about a user's key names it as a hash."""
    if owner[1] is None or not issubclass(type(error), CacheError) or not isinstance(error, CacheError):
        return error
    key = getattr(error, "key", None)
    return type(error)(PrivateKey(key), *error.args[1:]) if isinstance(key, str) else error


class CacheLogger:
    """Override what you want to hear of; every method does nothing here.

    `on_error` comes once a fetch has given up (after its retries), and for
    whatever else went wrong without costing an answer: a store, a clock, a
    predicate, a watcher's callback.
    """

    def on_hit(self, key: str) -> None:
        """A cached value was answered, fresh or stale."""

    def on_miss(self, key: str) -> None:
        """Nothing usable was cached."""

    def on_write(self, key: str, ttl: float | None) -> None:
        """A value was stored, for `ttl` seconds; None for ever."""

    def on_refresh(self, key: str, source: RefreshSource) -> None:
        """A fetch began, for the reason `source`."""

    def on_invalidate(self, key: str) -> None:
        """`key` was removed, by name or with its scope."""

    def on_invalidate_prefix(self, prefix: str) -> None:
        """Every key that begins with `prefix` was removed."""

    def on_invalidate_tag(self, tag: str) -> None:
        """Whatever bears `tag` was removed."""

    def on_expire_tag(self, tag: str) -> None:
        """Whatever bears `tag` was made stale."""

    def on_circuit(self, origin: str, until: float | None) -> None:
        """`origin` is left alone `until` then, in seconds since the epoch; None: it is asked again."""

    def on_clear(self) -> None:
        """Everything was removed."""

    def on_error(self, key: str, error: object) -> None:
        """A fetch gave up with `error`."""

    def on_scope_cleared(self, reason: str, keys: Sequence[str]) -> None:
        """A scope was dropped and `keys` with it: `reason` names the call."""

    def on_retry(self, key: str, attempt: int, error: object, delay: float) -> None:
        """Attempt `attempt` failed with `error`; the next one follows in `delay` seconds."""

    def on_evict(self, key: str) -> None:
        """The memory was full and `key` left it."""


class LineLogger(CacheLogger):
    """Hands every event to `write` as one line. Errors are named by type: their text may hold secrets."""

    def write(self, line: str) -> None:
        raise NotImplementedError

    def on_hit(self, key: str) -> None:
        self.write(f"hit {key}")

    def on_miss(self, key: str) -> None:
        self.write(f"miss {key}")

    def on_write(self, key: str, ttl: float | None) -> None:
        self.write(f"write {key}" if ttl is None else f"write {key} ttl={round(ttl * 1000)}ms")

    def on_refresh(self, key: str, source: RefreshSource) -> None:
        self.write(f"refresh {key} ({source})")

    def on_invalidate(self, key: str) -> None:
        self.write(f"invalidate {key}")

    def on_invalidate_prefix(self, prefix: str) -> None:
        self.write(f"invalidate_prefix {prefix}")

    def on_invalidate_tag(self, tag: str) -> None:
        self.write(f"invalidate_tag {tag}")

    def on_expire_tag(self, tag: str) -> None:
        self.write(f"expire_tag {tag}")

    def on_circuit(self, origin: str, until: float | None) -> None:
        self.write(f"circuit {origin} {'closed' if until is None else 'open'}")

    def on_clear(self) -> None:
        self.write("clear")

    def on_error(self, key: str, error: object) -> None:
        self.write(f"error {key} {error_name(error)}")

    def on_scope_cleared(self, reason: str, keys: Sequence[str]) -> None:
        self.write(f"scope_cleared {reason} keys={len(keys)}")

    def on_retry(self, key: str, attempt: int, error: object, delay: float) -> None:
        self.write(f"retry {key} attempt={attempt} delay={round(delay * 1000)}ms {error_name(error)}")

    def on_evict(self, key: str) -> None:
        self.write(f"evict {key}")


def error_name(error: object) -> str:
    """The type of `error`, and of what it wraps."""
    inner = getattr(error, "error", None)
    name = type(error).__name__
    return f"{name}({type(inner).__name__})" if isinstance(inner, BaseException) else name


class PrintLogger(LineLogger):
    """Prints one line an event.

    >>> PrintLogger().on_write("user:42", 300.0)
    [cachemesh] write user:42 ttl=300000ms
    """

    def __init__(self, tag: str = "cachemesh") -> None:
        self._tag = tag

    def write(self, line: str) -> None:
        """Print `line` with the tag before it."""
        sys.stdout.write(f"[{self._tag}] {line}\n")


class LoggingLogger(LineLogger):
    """Sends the same lines to a logger of the standard library: errors as warnings, the rest at debug level."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def write(self, line: str) -> None:
        """Log `line` at debug level."""
        self._logger.debug("%s", line)

    def on_error(self, key: str, error: object) -> None:
        self._logger.warning("error %s %s", key, error_name(error))
