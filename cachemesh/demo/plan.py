"""What goes wrong at the origin, and when.

A plan is pure: seconds since the start of a run go in, trouble and latency come
out. The same plan is played under each policy, so the policies meet the same origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Self


class Trouble(StrEnum):
    """What is wrong with the origin at a moment."""

    NONE = "up"
    OUTAGE = "outage"
    RATE_LIMIT = "rate limit"


@dataclass(frozen=True)
class Window:
    """From `starts_s` until just before `ends_s`, in seconds since the start of the run."""

    starts_s: float
    ends_s: float

    def __contains__(self, elapsed_s: float) -> bool:
        return self.starts_s <= elapsed_s < self.ends_s


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The weather of one run. Without arguments: always up, and a little slow."""

    seed: int = 1
    outages: tuple[Window, ...] = ()
    rate_limits: tuple[Window, ...] = ()
    requests_per_slot: int = 4
    """How many requests a rate limit lets through in each slot of `slot_s`."""
    slot_s: float = 0.1
    usual_s: tuple[float, float] = (0.005, 0.025)
    slow_s: tuple[float, float] = (0.06, 0.12)
    slow_share: float = 0.02

    @classmethod
    def rough(cls, seconds: float, *, seed: int) -> Self:
        """A run of `seconds` with one outage and one rate limit in it."""
        return cls(
            seed=seed,
            outages=(Window(0.30 * seconds, 0.50 * seconds),),
            rate_limits=(Window(0.70 * seconds, 0.85 * seconds),),
        )

    def trouble_at(self, elapsed_s: float) -> Trouble:
        """What is wrong `elapsed_s` after the start; an outage hides a rate limit."""
        if any(elapsed_s in window for window in self.outages):
            return Trouble.OUTAGE
        if any(elapsed_s in window for window in self.rate_limits):
            return Trouble.RATE_LIMIT
        return Trouble.NONE

    def retry_after_s(self, elapsed_s: float) -> float:
        """How long the rate limit of this moment still lasts; 0 without one."""
        return max((window.ends_s - elapsed_s for window in self.rate_limits if elapsed_s in window), default=0.0)

    def slot_at(self, elapsed_s: float) -> int:
        """The number of the slot in which a rate limit counts this moment."""
        return int(elapsed_s / self.slot_s)

    def latency_s(self, user: str | None, path: str, number: int) -> float:
        """How long the `number`-th request of `user` for `path` takes: by the seed, not by who came first."""
        chance = Random(f"{self.seed} {user} {path} {number}")  # noqa: S311  latency, not a secret
        return chance.uniform(*(self.slow_s if chance.random() < self.slow_share else self.usual_s))
