"""`Configuration`: what is tried on a load; `grid`: many of them."""

from __future__ import annotations

from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace

from cachemesh.core.lifetimes import LONGEST_TTL_S
from cachemesh.core.model import Lifespan
from cachemesh.core.policies import BUILT_IN, SERVE_AND_REFRESH, CachePolicy
from cachemesh.core.retry import NO_RETRY, Retry
from cachemesh.shell.durations import UNITS, Duration, duration_s
from cachemesh.shell.lifetime import Lifetime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Eviction(StrEnum):
    """Which entry leaves when the memory is full."""

    S3FIFO = "s3fifo"
    """What a `Cache` does."""
    LRU = "lru"
    SIEVE = "sieve"


class Configuration(Struct, frozen=True):
    """What a cache would be set up with.

    `ttl_s`: seconds that an answer is fresh; None for ever. `lifespan`: its
    windows after that; None is a plain ttl, as of a `Cache` that is given a
    number. `capacity`: entries, over all users; None is unbounded.
    `failure_ttl_s`: how long a failure is remembered; None is not at all, unless
    the lifespan says so.

    >>> Configuration(CachePolicy.CACHE_FIRST, ttl_s=60.0, capacity=1_000).name
    'cache_first, ttl 1m, 1000 entries (s3fifo)'
    """

    policy: CachePolicy = CachePolicy.CACHE_FIRST
    ttl_s: float | None = None
    lifespan: Lifespan | None = None
    capacity: int | None = None
    eviction: Eviction = Eviction.S3FIFO
    retry: Retry = NO_RETRY
    failure_ttl_s: float | None = None

    def __post_init__(self) -> None:
        if self.capacity is not None and self.capacity < 1:
            msg = f"a capacity is a number of entries from 1 on, or None, not {self.capacity}"
            raise ValueError(msg)
        duration_s(self.ttl_s)
        duration_s(self.failure_ttl_s)

    @classmethod
    def of(  # noqa: PLR0913 (a setting each)
        cls,
        policy: CachePolicy | str = CachePolicy.CACHE_FIRST,
        ttl: Duration | Lifetime | None = None,
        *,
        windows: Lifetime | Lifespan | None = None,
        capacity: int | None = None,
        eviction: Eviction | str = Eviction.S3FIFO,
        retry: Retry = NO_RETRY,
        failure_ttl: Duration | None = None,
    ) -> Configuration:
        """One from what people write: policies by name, durations as text, a whole `Lifetime` as the ttl.

        `windows`: a `Lifetime` for `ttl`, whose own ttl does not count. ValueError where something makes no sense.

        >>> Configuration.of("stale_while_revalidate", Lifetime(ttl="5m", serve_stale_for="1h")).name
        'stale_while_revalidate, ttl 5m, stale 1h'
        """
        ttl_s = ttl.ttl_s if isinstance(ttl, Lifetime) else duration_s(ttl)
        given = ttl if isinstance(ttl, Lifetime) else windows
        return cls(
            policy_named(policy) if isinstance(policy, str) else policy,
            ttl_s,
            _lifespan_of(given) if isinstance(given, Lifetime) else given,
            capacity,
            Eviction(eviction),
            retry,
            duration_s(failure_ttl),
        )

    @property
    def remembers_failures(self) -> bool:
        """Whether a failed fetch is answered to others for a while."""
        return self.failure_ttl_s is not None or (self.lifespan is not None and self.lifespan.failure_ttl_s is not None)

    @property
    def name(self) -> str:
        """What tells it from others, for a row of a table."""
        said = [self.policy.name, f"ttl {shown_duration(self.ttl_s)}"]
        lifespan = self.lifespan
        if lifespan is not None:
            said.extend(_windows(lifespan))
        elif SERVE_AND_REFRESH in {self.policy.stale, self.policy.fresh}:
            said.append("stale for ever")
        if self.failure_ttl_s is not None:
            said.append(f"failures {shown_duration(self.failure_ttl_s)}")
        if self.retry.max_attempts > 1:
            said.append(f"{self.retry.max_attempts} attempts")
        if self.capacity is not None:
            said.append(f"{self.capacity} entries ({self.eviction.value})")
        return ", ".join(said)


def grid(  # noqa: PLR0913 (an axis each)
    policies: Iterable[CachePolicy | str] = (CachePolicy.CACHE_FIRST,),
    ttls: Iterable[Duration | None] = (None,),
    windows: Iterable[Lifetime | Lifespan | None] = (None,),
    capacities: Iterable[int | None] = (None,),
    evictions: Iterable[Eviction | str] = (Eviction.S3FIFO,),
    *,
    base: Configuration | None = None,
) -> Iterator[Configuration]:
    """Every combination, each once. `base`: where retry and the memory of failures come from.

    Without a capacity nothing is evicted, so such a combination is there for one eviction only.

    >>> for each in grid(["cache_first", "network_first"], ttls=["1m"], capacities=[100]):
    ...     print(each.name)
    cache_first, ttl 1m, 100 entries (s3fifo)
    network_first, ttl 1m, 100 entries (s3fifo)
    """
    base = Configuration() if base is None else base
    seen: set[Configuration] = set()
    every = tuple(evictions)
    for policy, ttl, window, capacity, eviction in product(policies, ttls, windows, capacities, every):
        made = Configuration.of(
            policy, ttl, windows=window, capacity=capacity, eviction=every[0] if capacity is None else eviction
        )
        made = replace(made, retry=base.retry, failure_ttl_s=base.failure_ttl_s)
        if made not in seen:
            seen.add(made)
            yield made


def policy_named(name: str) -> CachePolicy:
    """The built-in policy of that name.

    >>> policy_named("cache_only").name
    'cache_only'
    """
    for policy in BUILT_IN:
        if policy.name == name.strip().lower().replace("-", "_"):
            return policy
    msg = f"no policy is called {name!r}: there are {', '.join(policy.name for policy in BUILT_IN)}"
    raise ValueError(msg)


LARGEST_FIRST: Final = sorted(UNITS.items(), key=lambda item: -item[1])


def shown_duration(seconds: float | None) -> str:
    """Seconds as people write them, exactly.

    >>> [shown_duration(each) for each in (None, 0.0, 0.25, 90.0, 5400.0)]
    ['none', '0s', '250ms', '90s', '90m']
    """
    if seconds is None:
        return "none"
    if seconds == 0:
        return "0s"
    for unit, size in LARGEST_FIRST:
        count = seconds / size
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"


def _lifespan_of(lifetime: Lifetime) -> Lifespan:
    if callable(lifetime.failure_ttl):
        msg = "a failure_ttl that is a function looks at errors, and a simulation has none: give a duration"
        raise ValueError(msg)  # noqa: TRY004 (a function is a fine failure_ttl elsewhere)
    return lifetime.lifespan


def _windows(lifespan: Lifespan) -> Iterator[str]:
    if lifespan.serve_stale_s or not lifespan.stale_if_error_s:
        is_ever = lifespan.serve_stale_s >= LONGEST_TTL_S
        yield "stale for ever" if is_ever else f"stale {shown_duration(lifespan.serve_stale_s)}"
    if lifespan.stale_if_error_s:
        yield f"stale if error {shown_duration(lifespan.stale_if_error_s)}"
    if lifespan.refresh_ahead < 1.0:
        yield f"refresh ahead at {lifespan.refresh_ahead * 100:g}%"
    if lifespan.jitter:
        yield f"jitter {lifespan.jitter * 100:g}%"
    if lifespan.failure_ttl_s is not None:
        yield f"failures {shown_duration(lifespan.failure_ttl_s)}"
