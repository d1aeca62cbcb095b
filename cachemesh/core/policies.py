"""The policies, each one row of a table. A new policy is a new row; no reducer knows a policy by name.

| policy                 | missing | fresh | stale             | after a failed fetch | heeds cached failures |
|------------------------|---------|-------|-------------------|----------------------|-----------------------|
| cache_first            | fetch   | serve | fetch             | fail                 | yes                   |
| network_first          | fetch   | fetch | fetch             | serve_stale          | no                    |
| stale_while_revalidate | fetch   | serve | serve_and_refresh | fail                 | yes                   |
| network_only           | bypass  | bypass| bypass            | fail                 | no                    |
| cache_only             | refuse  | serve | refuse            | fail                 | yes                   |

An entry with a lifespan has three states more, which follow from the row:

| policy                 | ageing            | grace             | expired |
|------------------------|-------------------|-------------------|---------|
| cache_first            | serve_and_refresh | serve_and_refresh | fetch   |
| network_first          | fetch             | fetch             | fetch   |
| stale_while_revalidate | serve_and_refresh | serve_and_refresh | fetch   |
| network_only           | bypass            | bypass            | bypass  |
| cache_only             | serve             | refuse            | refuse  |
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final

from msgspec import Struct


class Freshness(StrEnum):
    """What there is under a key."""

    MISSING = "missing"
    FRESH = "fresh"
    STALE = "stale"
    """Past its ttl, where no window was given."""
    AGEING = "ageing"
    """Fresh, but so near to its expiry that it is to be refreshed ahead."""
    GRACE = "grace"
    """Past its ttl, within the window in which it may be served while it is refreshed."""
    EXPIRED = "expired"
    """Past its ttl and that window."""


class Action(StrEnum):
    """What a `Get` leads to."""

    SERVE = "serve"
    SERVE_AND_REFRESH = "serve_and_refresh"
    FETCH = "fetch"
    BYPASS = "bypass"
    """Fetch without reading or writing the cache."""
    REFUSE = "refuse"


class AfterFailure(StrEnum):
    """What the callers of a failed fetch are answered."""

    FAIL = "fail"
    SERVE_STALE = "serve_stale"
    """Whatever entry there is, however old; the failure where there is none."""


# Members by a name of their own: looking one up on its enum costs 135 ns in CPython 3.11, more than a handler's work.
SERVE: Final = Action.SERVE
SERVE_AND_REFRESH: Final = Action.SERVE_AND_REFRESH
FETCH: Final = Action.FETCH
BYPASS: Final = Action.BYPASS
REFUSE: Final = Action.REFUSE
SERVE_STALE: Final = AfterFailure.SERVE_STALE
MISSING: Final = Freshness.MISSING
FRESH: Final = Freshness.FRESH
STALE: Final = Freshness.STALE
AGEING: Final = Freshness.AGEING
GRACE: Final = Freshness.GRACE
EXPIRED: Final = Freshness.EXPIRED


class CachePolicy(Struct, frozen=True):
    """A row of the policy table. `CachePolicy.CACHE_FIRST` and its four siblings are built in.

    `heeds_failures`: a remembered failure is answered instead of fetching again.

    >>> stale_if_error = CachePolicy("stale_if_error", after_failure=AfterFailure.SERVE_STALE)
    >>> stale_if_error.action(Freshness.STALE)
    <Action.FETCH: 'fetch'>
    """

    name: str
    missing: Action = Action.FETCH
    fresh: Action = Action.SERVE
    stale: Action = Action.FETCH
    after_failure: AfterFailure = AfterFailure.FAIL
    heeds_failures: bool = True

    CACHE_FIRST: ClassVar[CachePolicy]
    NETWORK_FIRST: ClassVar[CachePolicy]
    STALE_WHILE_REVALIDATE: ClassVar[CachePolicy]
    NETWORK_ONLY: ClassVar[CachePolicy]
    CACHE_ONLY: ClassVar[CachePolicy]

    def __post_init__(self) -> None:
        actions = {type(self.missing), type(self.fresh), type(self.stale)}
        if actions != {Action} or type(self.after_failure) is not AfterFailure:
            msg = f"{self.name}: the cells of a row are Actions, and an AfterFailure"
            raise ValueError(msg)
        if self.missing in SERVING:
            msg = f"{self.name}: there is nothing to serve where an entry is missing"
            raise ValueError(msg)

    def action(self, freshness: Freshness, always_revalidate: bool = False) -> Action:  # noqa: FBT002 (a keyword costs)
        """The cell of this row for `freshness`.

        `always_revalidate` widens the background refresh of a policy that has one to fresh entries.
        A policy that serves what is fresh and fetches what is missing serves and refreshes what is ageing or in
        its grace; what has expired is to it as if it were missing.
        """
        if freshness is MISSING or freshness is EXPIRED:
            return self.missing
        if freshness is STALE:
            return self.stale
        if freshness is FRESH:
            widens = always_revalidate and self.fresh is SERVE and self.stale is SERVE_AND_REFRESH
            return SERVE_AND_REFRESH if widens else self.fresh
        if self.missing is FETCH and self.fresh in SERVING:
            return SERVE_AND_REFRESH
        return self.fresh if freshness is AGEING else self.stale


SERVING: Final = frozenset({Action.SERVE, Action.SERVE_AND_REFRESH})

CachePolicy.CACHE_FIRST = CachePolicy("cache_first")
CachePolicy.NETWORK_FIRST = CachePolicy(
    "network_first",
    fresh=Action.FETCH,
    after_failure=AfterFailure.SERVE_STALE,
    heeds_failures=False,
)
CachePolicy.STALE_WHILE_REVALIDATE = CachePolicy("stale_while_revalidate", stale=Action.SERVE_AND_REFRESH)
CachePolicy.NETWORK_ONLY = CachePolicy(
    "network_only",
    missing=Action.BYPASS,
    fresh=Action.BYPASS,
    stale=Action.BYPASS,
    heeds_failures=False,
)
CachePolicy.CACHE_ONLY = CachePolicy("cache_only", missing=Action.REFUSE, stale=Action.REFUSE)

BUILT_IN: Final = (
    CachePolicy.CACHE_FIRST,
    CachePolicy.NETWORK_FIRST,
    CachePolicy.STALE_WHILE_REVALIDATE,
    CachePolicy.NETWORK_ONLY,
    CachePolicy.CACHE_ONLY,
)
