"""Settings and options, checked once at the edge. A bad setting raises pydantic's `ValidationError` at construction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cachemesh.core.lifetimes import LONGEST_TTL_S
from cachemesh.core.retry import Retry
from cachemesh.shell.durations import Ttl, seconds


def _checked(duration: object) -> object:
    seconds(duration)
    return duration


class Options(BaseModel):
    """Options that never change: a copy with an `update` is checked as a new one is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        del deep  # Nothing in here changes.
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | dict(update or {}))


class RetryOptions(Options):
    """How often a fetch is tried. Durations are seconds or timedeltas.

    `max_attempts` counts the first try. `jitter` is the share of a delay that
    is random, 0 to 1; `max_delay` caps the delay with its jitter. `retry_when`
    sees the error that a fetch failed with, or the exception that it raised;
    where it raises itself, the fetch is not tried again. An attempt that takes
    longer than `attempt_timeout` fails with `FetchTimeout`.

    >>> RetryOptions(max_attempts=5, delay=0.2, backoff_factor=2.0, jitter=0.5).max_attempts
    5
    """

    max_attempts: Annotated[int, Field(ge=1, strict=True)] = 3
    delay: Annotated[Ttl, BeforeValidator(_checked)] = 0
    backoff_factor: Annotated[float, Field(ge=1.0, allow_inf_nan=False)] = 1.0
    max_delay: Annotated[Ttl, BeforeValidator(_checked)] = None
    jitter: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    retry_when: Callable[[Any], bool] | None = None
    attempt_timeout: Annotated[Ttl, BeforeValidator(_checked)] = None

    NO_RETRY: ClassVar[RetryOptions]
    DEFAULTS: ClassVar[RetryOptions]

    @cached_property
    def rule(self) -> Retry:
        """What of this is data: the core's part."""
        return Retry(
            self.max_attempts,
            seconds(self.delay) or 0.0,
            self.backoff_factor,
            seconds(self.max_delay),
            self.jitter,
        )

    @cached_property
    def attempt_timeout_s(self) -> float | None:
        """Seconds that one attempt may take."""
        return seconds(self.attempt_timeout)


RetryOptions.NO_RETRY = RetryOptions(max_attempts=1)
RetryOptions.DEFAULTS = RetryOptions()


class BreakerOptions(Options):
    """When an origin is left alone: after `failures` in a row, for `open_for`; then one fetch tries it.

    `counts`: sees the error of a failed fetch, or the exception that it raised,
    and says whether it tells against the origin ("not found" may not).

    >>> BreakerOptions(failures=3, open_for=10).failures
    3
    """

    failures: Annotated[int, Field(ge=1, strict=True)] = 5
    open_for: Annotated[Ttl, BeforeValidator(_checked)] = 30
    counts: Callable[[Any], bool] | None = None

    @cached_property
    def open_s(self) -> float:
        """Seconds."""
        open_s = seconds(self.open_for)
        return LONGEST_TTL_S if open_s is None else open_s
