"""How long an answer is fresh, and how long after that it may still be of use.

Instants are seconds on the cache's clock, durations seconds; None is for ever.
A plain ttl only says when an entry is stale. A `Lifespan` also bounds its use
after that: no answer is then older than its ttl and the window given.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from cachemesh.core.model import Entry, Lifespan, Terms
from cachemesh.core.policies import AGEING, EXPIRED, FRESH, GRACE, MISSING, STALE, Freshness
from cachemesh.core.tags import expiry_by_marks

if TYPE_CHECKING:
    from cachemesh.core.model import A, State
    from cachemesh.core.scopes import Owner

LONGEST_TTL_S: Final = 100 * 31_557_600.0
"""A century. What is meant to live longer is given no ttl."""

LONGEST_FAILURE_TTL_S: Final = 60.0
"""A failure without a ttl of its own is remembered for so long at the most."""

REFRESH_BACKOFF_S: Final = 30.0
"""After a failed background refresh the next one waits for so long."""

CLOCK_SKEW_S: Final = 60.0
"""How far in the future a stored entry may have been made before it counts as stale."""


def made(
    answer: A,
    now: float,
    ttl_s: float | None,
    stamp: int,
    *,
    lifespan: Lifespan | None = None,
    tags: tuple[str, ...] = (),
    validator: object = None,
    chance: float = 0.0,
    schema: object = None,
) -> Entry[A]:
    """The entry of an answer that came at `now`. `chance`: a number from 0 to 1 for the jitter."""
    if lifespan is None:
        terms = None
        if tags or validator is not None or schema is not None:
            terms = Terms(tags=tags, validator=validator, stamp=stamp, schema=schema)
        return Entry(answer, now, ttl_s, expiry(now, ttl_s), terms)
    if ttl_s is not None:
        ttl_s *= 1.0 - lifespan.jitter * chance
    expires_at = expiry(now, ttl_s)
    ahead = inf if ttl_s is None or lifespan.refresh_ahead >= 1.0 else now + ttl_s * lifespan.refresh_ahead
    terms = Terms(lifespan.serve_stale_s, lifespan.stale_if_error_s, ahead, tags, validator, stamp, schema)
    return Entry(answer, now, ttl_s, expires_at, terms)


def verdict(
    entry: Entry[Any] | None, now: float, state: State[Any] | None = None, owner: Owner | None = None
) -> Freshness:
    """What there is at `now`: past its ttl from exactly `expires_at` on.

    `state` and `owner`: where the entry is, so that its tags count.
    """
    if entry is None:
        return MISSING
    terms = entry.terms
    if terms is None:
        return FRESH if now < entry.expires_at else STALE
    expires_at = entry.expires_at if state is None or not terms.tags else expiry_by_marks(state, owner, entry, terms)
    if expires_at is None:
        return MISSING
    if now < expires_at:
        return FRESH if now < terms.ageing_at else AGEING
    if terms.serve_stale_s is None:
        return STALE
    return GRACE if now < expires_at + terms.serve_stale_s else EXPIRED


def plain_until(entry: Entry[Any]) -> float:
    """Until when a hit has nothing to do but to serve `entry`: what is tagged may be gone at any time."""
    terms = entry.terms
    if terms is None:
        return entry.expires_at
    return -inf if terms.tags else min(entry.expires_at, terms.ageing_at)


def over_from(entry: Entry[Any]) -> float:
    """From when on `entry` is of no use to anybody who keeps to its windows. A plain ttl has none."""
    terms = entry.terms
    if terms is None:
        return entry.expires_at
    return entry.expires_at + max(terms.serve_stale_s or 0.0, terms.stale_if_error_s or 0.0)


def stands_in(entry: Entry[Any] | None, now: float, state: State[Any], owner: Owner) -> bool:
    """Whether `entry` may stand in for an answer, for a caller who takes what there is: within its windows, if any."""
    return entry is not None and _stands_in(entry, now, state, owner, takes_any=True)


def rescues(entry: Entry[Any] | None, now: float, state: State[Any], owner: Owner) -> bool:
    """Whether `entry` may stand in for a failure, for any caller (RFC 5861, section 4: stale-if-error)."""
    return entry is not None and entry.terms is not None and _stands_in(entry, now, state, owner, takes_any=False)


def _stands_in(entry: Entry[Any], now: float, state: State[Any], owner: Owner, *, takes_any: bool) -> bool:
    terms = entry.terms
    if terms is None:
        return takes_any
    expires_at = expiry_by_marks(state, owner, entry, terms) if terms.tags else entry.expires_at
    if expires_at is None:
        return False
    if terms.stale_if_error_s is None or terms.serve_stale_s is None:
        return takes_any
    window = max(terms.stale_if_error_s, terms.serve_stale_s) if takes_any else terms.stale_if_error_s
    return now < expires_at + window and (takes_any or terms.stale_if_error_s > 0.0)


def expiry(created_at: float, ttl_s: float | None) -> float:
    """The instant from which on an entry is past its ttl."""
    return inf if ttl_s is None else created_at + ttl_s


def failure_ttl(ttl_s: float | None) -> float:
    """How long a failure is remembered where its value would live for `ttl_s`."""
    return LONGEST_FAILURE_TTL_S if ttl_s is None or ttl_s > LONGEST_FAILURE_TTL_S else ttl_s


def shorter(one: float | None, other: float | None) -> float | None:
    """The shorter of two lifetimes."""
    if one is None:
        return other
    return one if other is None or one <= other else other


def stricter(one: Lifespan | None, other: Lifespan | None) -> Lifespan | None:
    """What satisfies two callers who share a flight: the narrower of each window. None bounds nothing."""
    if one is None or other is None or one == other:
        return other if one is None else one
    return Lifespan(
        min(one.serve_stale_s, other.serve_stale_s),
        min(one.stale_if_error_s, other.stale_if_error_s),
        min(one.refresh_ahead, other.refresh_ahead),
        max(one.jitter, other.jitter),
        shorter(one.failure_ttl_s, other.failure_ttl_s),
        max(one.refresh_backoff_s, other.refresh_backoff_s),
    )


def renewed(
    entry: Entry[A],
    now: float,
    ttl_s: float | None,
    lifespan: Lifespan | None,
    stamp: int,
    chance: float,
) -> Entry[A]:
    """`entry`, to live for `ttl_s` from `now` on, with its windows where there is no `lifespan`.

    Its value stays as old as it is.
    """
    terms = entry.terms
    tags, validator, schema = ((), None, None) if terms is None else (terms.tags, terms.validator, terms.schema)
    if lifespan is None and terms is not None and terms.serve_stale_s is not None:
        lifespan = Lifespan(terms.serve_stale_s, terms.stale_if_error_s or 0.0)
    anew = made(
        entry.answer,
        now,
        ttl_s,
        stamp,
        lifespan=lifespan,
        tags=tags,
        validator=validator,
        chance=chance,
        schema=schema,
    )
    lives_s = None if ttl_s is None else anew.expires_at - entry.created_at
    return replace(anew, created_at=entry.created_at, ttl_s=lives_s)
