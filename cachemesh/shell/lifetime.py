"""`Lifetime`: how long an answer is fresh, and what it is good for after that."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 (pydantic reads the annotations)
from functools import cached_property
from inspect import iscoroutine
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from cachemesh.core.lifetimes import REFRESH_BACKOFF_S
from cachemesh.core.model import Lifespan
from cachemesh.shell.durations import Duration, duration_s
from cachemesh.shell.options import Options


def _duration(value: object) -> object:
    checked = duration_s(value)
    if checked is None:
        msg = "a duration is not None"
        raise ValueError(msg)
    return checked


def _duration_or_none(value: object) -> object:
    return value if value is None or callable(value) else _duration(value)


def _share(value: object) -> object:
    if isinstance(value, bool):
        msg = "a share is a number from 0 to 1"
        raise ValueError(msg)  # noqa: TRY004 (pydantic turns a ValueError into its own)
    return value


Window: TypeAlias = Annotated[Duration, BeforeValidator(_duration)]
Share: TypeAlias = Annotated[float, BeforeValidator(_share), Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Lifetime(Options):
    """How long an answer is fresh, and what it is good for after that. Taken wherever a ttl is.

    `ttl`: fresh for so long; None for ever. `serve_stale_for`: for so long past
    that it is still answered, while it is refreshed behind (RFC 5861, section
    3). `stale_if_error_for`: for so long past it, it is answered where the
    fetch returns or raises a failure, or times out (section 4).
    `refresh_ahead`: the share of the ttl after which a hit also refreshes
    behind. `jitter`: up to this share of the ttl is taken away at random, so
    that what was stored together does not expire together. `failure_ttl`: how
    long a failed fetch is remembered; given, it is, unless the call says
    `cache_failures=False`. A function gets the error and answers with a
    duration, or with None for the ordinary time. `refresh_backoff`: how long
    after a failed refresh the next one waits, while an old value may be served.

    No answer is ever older than `ttl` and the window given. Durations are
    seconds, timedeltas, or text such as "5m" and "1h30m"; one that makes no
    sense raises pydantic's `ValidationError`.

    >>> Lifetime(ttl="5m", serve_stale_for="1h30m").serve_stale_for
    5400.0
    """

    ttl: Annotated[Duration | None, BeforeValidator(_duration_or_none)] = None
    serve_stale_for: Window = 0.0
    stale_if_error_for: Window = 0.0
    refresh_ahead: Share | None = None
    jitter: Share = 0.0
    failure_ttl: Annotated[Duration | Callable[[Any], Any] | None, BeforeValidator(_duration_or_none)] = None
    refresh_backoff: Window = REFRESH_BACKOFF_S

    @cached_property
    def lifespan(self) -> Lifespan:
        """What of this is data: the core's part."""
        return Lifespan(
            duration_s(self.serve_stale_for) or 0.0,
            duration_s(self.stale_if_error_for) or 0.0,
            1.0 if self.refresh_ahead is None else self.refresh_ahead,
            self.jitter,
            None if callable(self.failure_ttl) else duration_s(self.failure_ttl),
            duration_s(self.refresh_backoff) or 0.0,
        )

    @cached_property
    def ttl_s(self) -> float | None:
        """Seconds."""
        return duration_s(self.ttl)

    def failure_ttl_s(self, error: object) -> float | None:
        """How long to remember a failure with `error`: what the function says; None where there is none, or says so."""
        if not callable(self.failure_ttl):
            return None
        said = self.failure_ttl(error)
        if iscoroutine(said):
            said.close()
        return duration_s(said)

    @property
    def remembers(self) -> bool:
        """Whether failures are remembered where a call does not say."""
        return self.failure_ttl is not None


def retry_after(error: object) -> float | None:
    """For `failure_ttl`: the seconds that the error itself asks for, in its `retry_after`; None where it does not.

    >>> Lifetime(ttl=60, failure_ttl=retry_after).remembers
    True
    """
    try:
        return duration_s(getattr(error, "retry_after", None))
    except ValueError:
        return None
