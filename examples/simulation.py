"""The pure core inside a discrete-event simulation: what each policy would do for this origin, before any of it runs.

No event loop, no clock, no I/O: the simulation owns the time, and three hours of
traffic take less than one second. The core is handed commands (somebody asks, the origin
answered, the wait is over) and gives back effects (start a fetch, answer,
wait); the simulation performs them on its queue of events, which is all that a
shell does.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from cachemesh import AfterFailure, CachePolicy
from cachemesh.core import (
    Command,
    FetchFailed,
    FetchSucceeded,
    Get,
    Join,
    Refuse,
    Reply,
    Retry,
    RetryDue,
    Settle,
    StartFetch,
    State,
    WaitUntil,
    reduce,
)

STALE_IF_ERROR: Final = CachePolicy("stale_if_error", after_failure=AfterFailure.SERVE_STALE, heeds_failures=False)

POLICIES: Final = (
    CachePolicy.CACHE_FIRST,
    CachePolicy.NETWORK_FIRST,
    CachePolicy.STALE_WHILE_REVALIDATE,
    CachePolicy.NETWORK_ONLY,
    STALE_IF_ERROR,
)

HOUR_S: Final = 3600.0
TTL_S: Final = 300.0
RETRY: Final = Retry(max_attempts=2, delay_s=1.0)


@dataclass(frozen=True)
class Origin:
    """Answers in 50 to 150 ms, except during an outage."""

    down_from: float = 1.5 * HOUR_S
    down_until: float = 2.0 * HOUR_S

    def latency_s(self, random: Random) -> float:
        return random.uniform(0.05, 0.15)

    def is_up(self, now: float) -> bool:
        return not self.down_from <= now < self.down_until


@dataclass
class Report:
    """What the callers and the origin saw."""

    calls: int = 0
    hits: int = 0
    failures: int = 0
    origin_requests: int = 0
    waited_s: float = 0.0
    oldest_s: float = 0.0

    @property
    def hit_ratio(self) -> float:
        return self.hits / self.calls

    @property
    def mean_wait_ms(self) -> float:
        return 1000 * self.waited_s / self.calls


@dataclass
class Simulation:
    """One cache under one policy, its callers and its origin."""

    policy: CachePolicy
    random: Random
    origin: Origin = field(default_factory=Origin)
    now: float = 0.0
    state: State[Any] = field(default_factory=State)
    report: Report = field(default_factory=Report)

    def __post_init__(self) -> None:
        self.events: list[tuple[float, int, Command[Any]]] = []
        self.numbers = itertools.count(1)
        self.waiting: dict[int, deque[tuple[float, bool]]] = {}

    def run(self, arrivals: list[tuple[float, str]]) -> Report:
        for at, key in arrivals:
            asked = Get(key, at, next(self.numbers), self.policy, ttl_s=TTL_S, retry=RETRY)
            self.schedule(at, asked)
        while self.events:
            self.now, _, command = heapq.heappop(self.events)
            self.step(command)
        assert len(self.state.flights) == 0, "every fetch has ended"
        assert not self.waiting, "everyone has been answered"
        return self.report

    def schedule(self, at: float, command: Command[Any]) -> None:
        heapq.heappush(self.events, (at, next(self.numbers), command))

    def step(self, command: Command[Any]) -> None:
        self.state, effects = reduce(self.state, command)
        for effect in effects:
            match effect:
                case StartFetch():
                    self.fetch(effect)
                case Join():
                    self.waiting.setdefault(effect.flight_id, deque()).append((self.now, effect.falls_back))
                case WaitUntil():
                    self.schedule(effect.due_at, RetryDue(effect.flight_id))
                case Reply():
                    self.answered(effect.answer, since=self.now, is_hit=True)
                case Refuse():
                    self.answered(None, since=self.now, is_hit=False)
                case Settle():
                    for since, falls_back in self.waiting.pop(effect.flight_id, ()):
                        answer = effect.fallback if falls_back and effect.fallback is not None else effect.answer
                        self.answered(answer, since=since, is_hit=False)
                case _:  # Writing through, logging, watching: nothing of that exists here.
                    pass

    def fetch(self, effect: StartFetch) -> None:
        """Ask the origin: its answer, made at `now`, arrives later. An answer is the instant at which it was made."""
        self.report.origin_requests += 1
        at = self.now + self.origin.latency_s(self.random)
        if self.origin.is_up(self.now):
            self.schedule(at, FetchSucceeded(effect.flight_id, self.now, now=at))
        else:
            self.schedule(at, FetchFailed(effect.flight_id, None, now=at))

    def answered(self, made_at: float | None, *, since: float, is_hit: bool) -> None:
        report = self.report
        report.calls += 1
        report.hits += is_hit
        report.waited_s += self.now - since
        if made_at is None:
            report.failures += 1
        else:
            report.oldest_s = max(report.oldest_s, self.now - made_at)


def traffic(random: Random, *, calls: int = 20_000, keys: int = 200) -> list[tuple[float, str]]:
    """Calls at random instants within three hours, some keys asked for far more often than others (Zipf)."""
    names = [f"item:{number}" for number in range(keys)]
    weights = [1 / rank for rank in range(1, keys + 1)]
    instants = sorted(random.uniform(0.0, 3 * HOUR_S) for _ in range(calls))
    return list(zip(instants, random.choices(names, weights, k=calls), strict=True))


def simulate(seed: int = 2026) -> dict[str, Report]:
    """A report for each policy. The same seed gives the same reports."""
    arrivals = traffic(dice(seed))
    return {policy.name: Simulation(policy, dice(seed)).run(arrivals) for policy in POLICIES}


def dice(seed: int) -> Random:
    return Random(seed)  # noqa: S311 (a simulation is to repeat itself)


def main() -> None:
    reports = simulate()
    assert reports == simulate(), "a simulation repeats itself"

    print(f"{'policy':<24}{'hit ratio':>10}{'origin':>8}{'failures':>10}{'mean wait':>11}{'oldest':>9}")
    for name, report in reports.items():
        print(
            f"{name:<24}{report.hit_ratio:>10.1%}{report.origin_requests:>8}{report.failures:>10}"
            f"{report.mean_wait_ms:>8.1f} ms{report.oldest_s:>7.0f} s"
        )

    first, only = reports["cache_first"], reports["network_only"]
    behind, if_error = reports["stale_while_revalidate"], reports["stale_if_error"]
    assert first.origin_requests < only.origin_requests / 2
    assert first.failures > 0, "an outage is seen"
    assert if_error.failures == 0, "unless the old value will do"
    assert if_error.origin_requests == first.origin_requests, "which costs the origin nothing"
    assert behind.mean_wait_ms < first.mean_wait_ms / 2, "nobody waits for a refresh"
    assert first.oldest_s <= TTL_S + 0.15 < if_error.oldest_s, "the price is age"


if __name__ == "__main__":
    main()
