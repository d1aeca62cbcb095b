"""`Backoff`: how often, and after how long a wait, something is asked again. Here it is computed, and not waited."""

from __future__ import annotations

import math
import random
from collections.abc import Callable  # noqa: TC003 (pydantic reads the annotations)
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from msgspec import Struct
from pydantic import BeforeValidator, Field

from cachemesh.core.retry import LONGEST_DELAY_S
from cachemesh.shell.durations import Duration, duration_s
from cachemesh.shell.options import Options

IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""To do it twice is to do it once (RFC 9110, section 9.2.2)."""


def checked(duration: object) -> object:
    """`duration` as it is written. ValueError where it is none."""
    duration_s(duration)
    return duration


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        msg = "a number"
        raise ValueError(msg)  # noqa: TRY004 (pydantic turns a ValueError into its own)
    return value


class Backoff(Options):
    """How often, and after how long a wait, something is asked again. For `retry=` and `retrying`.

    `max_attempts` counts the first. `delay`, then `factor` times as long after
    each attempt, never longer than `max_delay`. `jitter`: "full" waits anything up to
    that; "decorrelated" anything from `delay` to three times the last wait; "none" just that
    (Brooker, "Exponential Backoff And Jitter", 2015). `max_delay` holds for what is waited, jitter included.

    What has a `retry_after`, in seconds, is asked no earlier than that; where it is
    more than `max_retry_after` (None: whatever it is), there is no further attempt.
    `retry_when` sees the failure, and says whether there is; left out, its `is_retryable` does. Where it
    raises, there is none. `any_method`: also methods that are not idempotent (POST, PATCH), for sources.
    `attempt_timeout`: an attempt that takes longer is cancelled, and has failed with a `timeout`.
    `rng`: where chance comes from, numbers from 0 to 1. Durations are seconds, timedeltas or text such as "5s".

    A bad option raises pydantic's `ValidationError`.

    >>> Backoff(max_attempts=5, delay="200ms", max_delay=10, jitter="decorrelated").max_attempts
    5
    """

    max_attempts: Annotated[int, Field(ge=1, strict=True)] = 3
    delay: Annotated[Duration, BeforeValidator(checked)] = 0.5
    factor: Annotated[float, BeforeValidator(_no_bool), Field(ge=1.0, allow_inf_nan=False)] = 2.0
    max_delay: Annotated[Duration | None, BeforeValidator(checked)] = 30.0
    jitter: Literal["full", "decorrelated", "none"] = "full"
    max_retry_after: Annotated[Duration | None, BeforeValidator(checked)] = 60.0
    retry_when: Callable[[Any], bool] | None = None
    any_method: bool = False
    attempt_timeout: Annotated[Duration | None, BeforeValidator(checked)] = None
    rng: Callable[[], float] = random.random

    @cached_property
    def rule(self) -> Waits:
        """What of this is data."""
        return waits_of(self.delay, self.factor, self.max_delay, self.jitter)

    @cached_property
    def attempt_timeout_s(self) -> float | None:
        """Seconds that one attempt may take."""
        return duration_s(self.attempt_timeout)

    @cached_property
    def max_retry_after_s(self) -> float:
        """Seconds."""
        longest = duration_s(self.max_retry_after)
        return math.inf if longest is None else longest

    def covers(self, method: str) -> bool:
        """Whether a request with that method may be sent more than once."""
        return self.any_method or method.upper() in IDEMPOTENT


class Waits(Struct, frozen=True):
    """How long the waits are."""

    delay_s: float
    factor: float
    longest_s: float
    jitter: str


def waits_of(delay: Duration, factor: float, max_delay: Duration | None, jitter: str) -> Waits:
    """The waits that options speak of, in seconds."""
    longest = duration_s(max_delay)
    return Waits(duration_s(delay) or 0.0, factor, LONGEST_DELAY_S if longest is None else longest, jitter)


def wait_s(rule: Waits, attempt: int, before_s: float, chance: float) -> float:
    """Seconds to wait after failed attempt `attempt` (the first is 1). `before_s`: the last wait; 0 at first.

    >>> [wait_s(Waits(1.0, 2.0, 10.0, "none"), attempt, 0.0, 0.5) for attempt in (1, 2, 3, 4, 5)]
    [1.0, 2.0, 4.0, 8.0, 10.0]
    """
    if rule.jitter == "decorrelated":
        most = max(rule.delay_s, before_s) * 3.0
        return min(rule.longest_s, rule.delay_s + chance * (most - rule.delay_s))
    try:
        grown = rule.delay_s * math.pow(rule.factor, attempt - 1)
    except OverflowError:
        grown = math.inf if rule.delay_s > 0 else 0.0
    capped = min(rule.longest_s, grown)
    return capped * chance if rule.jitter == "full" else capped


class Attempts:
    """Those of one call."""

    __slots__ = ("_backoff", "_before_s", "count")

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._before_s = 0.0
        self.count = 0

    def wait_after(self, error: object) -> float | None:
        """Seconds until the next attempt, after one that failed with `error`; None: that was the last."""
        self.count += 1
        backoff = self._backoff
        if self.count >= backoff.max_attempts or not self._is_worth_it(error):
            return None
        asked = asked_s(error)
        if asked > backoff.max_retry_after_s:
            return None
        self._before_s = wait_s(backoff.rule, self.count, self._before_s, backoff.rng())
        return max(self._before_s, min(asked, LONGEST_DELAY_S))

    def _is_worth_it(self, error: object) -> bool:
        try:
            if self._backoff.retry_when is not None:
                return bool(self._backoff.retry_when(error))
            return getattr(error, "is_retryable", False) is True
        except Exception:  # noqa: BLE001 (a predicate of the user's may raise anything)
            return False


def asked_s(error: object) -> float:
    """Seconds that the failure itself asks for, in its `retry_after`."""
    try:
        asked = getattr(error, "retry_after", None)
        if isinstance(asked, int | float) and asked > LONGEST_DELAY_S:
            return math.inf  # No duration, and all the less one to ask again at once.
        return duration_s(asked) or 0.0
    except Exception:  # noqa: BLE001 (what is called so may be anything, a property that raises too)
        return 0.0
