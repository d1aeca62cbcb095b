"""What the rows of the core's tests are made of: states, written down instead of arrived at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_args, get_origin

from hypothesis import given, settings

from cachemesh.core import (
    GLOBAL_OWNER,
    Breaker,
    CacheScope,
    Command,
    Effects,
    Entry,
    Failed,
    Flight,
    FlightKind,
    Lifespan,
    Mark,
    Origin,
    Owner,
    Partition,
    RefreshSource,
    Retry,
    State,
    Terms,
    reduce,
)
from cachemesh.core.carriers import persistent
from cachemesh.core.lifetimes import expiry
from cachemesh.core.model import NO_MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hypothesis.strategies import SearchStrategy

EXAMPLES: Final = os.environ.get("CACHEMESH_EXAMPLES")
"""How many examples a law is tried on; left out, 40. `make mutants` takes few, and the same ones in every run."""

Place: TypeAlias = str | tuple[Owner, str]
"""A key, and whose it is; the application's where only the key is given."""

ALICE: Final[Owner] = (CacheScope.USER, "alice")
BOB: Final[Owner] = (CacheScope.USER, "bob")


def law(
    *drawn: SearchStrategy[Any], **named: SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test of something that always holds, on drawn examples."""
    if EXAMPLES is None:
        tried = settings(max_examples=40, deadline=None)
    else:
        tried = settings(max_examples=int(EXAMPLES), deadline=None, derandomize=True, database=None)

    def of(test: Callable[..., None]) -> Callable[..., None]:
        held: Callable[..., None] = tried(given(*drawn, **named)(test))
        return held

    return of


def entry(answer: str = "news", at: float = 0.0, ttl_s: float | None = 60.0, terms: Terms | None = None) -> Entry[str]:
    """An entry that was made `at` an instant, to live for `ttl_s`."""
    return Entry(answer, at, ttl_s, expiry(at, ttl_s), terms)


def failed(answer: str = "down", at: float = 0.0, serve: float = 60.0, hold: float = 0.0) -> Failed[str]:
    """The memory of a failure `at` an instant, answered for `serve` seconds, holding a refresh back for `hold`."""
    return Failed(answer, at, at + serve, at + hold)


def flight(
    flight_id: int = 1,
    key: str = "feed",
    owner: Owner = GLOBAL_OWNER,
    *,
    domain: int = 0,
    kind: FlightKind = FlightKind.FETCH,
    source: RefreshSource = RefreshSource.CACHE_MISS,
    persist: bool | None = None,
    ttl_s: float | None = None,
    store_failures: bool = False,
    retry: Retry | None = None,
    attempt: int = 1,
    waits_on: Iterable[int] = (),
    found_nothing: bool = False,
    lifespan: Lifespan | None = None,
    tags: tuple[str, ...] = (),
    origin: Origin | None = None,
    is_detached: bool = False,
    spans_gap: bool = False,
) -> Flight:
    """A flight that stores its answer where its kind does."""
    stores = kind is FlightKind.FETCH if persist is None else persist
    patience = Retry() if retry is None else retry
    return Flight(
        flight_id,
        owner,
        key,
        domain,
        kind,
        source,
        stores,
        ttl_s,
        store_failures,
        patience,
        attempt,
        tuple(waits_on),
        found_nothing,
        lifespan,
        tags,
        origin,
        is_detached,
        spans_gap,
    )


def state(
    *flights: Flight,
    entries: Mapping[Any, Entry[str]] | None = None,
    failures: Mapping[Any, Failed[str]] | None = None,
    struck: Iterable[int] = (),
    active_user: str | None = None,
    has_store: bool = False,
    marks: Mapping[tuple[Owner | None, str], Mark] | None = None,
    marks_floor: Mark = NO_MARK,
    breakers: Mapping[str, Breaker] | None = None,
) -> State[str]:
    """The state with these flights, entries and failures by `Place`; the flights in `struck` are listed no longer."""
    gone = set(struck)
    listed: dict[Any, tuple[int, ...]] = {}
    for each in flights:
        if each.flight_id not in gone:
            place = (each.owner, each.key)
            listed[place] = (*listed.get(place, ()), each.flight_id)
    maps = [by_owner(entries or {}), by_owner(failures or {}), by_owner(listed)]
    partitions: Any = persistent()
    for owner in {owner for each in maps for owner in each}:
        partitions = partitions.insert(owner, Partition(*(as_map(each.get(owner, {})) for each in maps)))
    under_way = as_map({each.flight_id: each for each in flights})
    return State(
        partitions, under_way, active_user, has_store, as_map(marks or {}), marks_floor, as_map(breakers or {})
    )


def by_owner(places: Mapping[Any, Any]) -> dict[Owner, dict[str, Any]]:
    found: dict[Owner, dict[str, Any]] = {}
    for place, value in places.items():
        owner, key = (GLOBAL_OWNER, place) if isinstance(place, str) else place
        found.setdefault(owner, {})[key] = value
    return found


def as_map(table: Mapping[Any, Any]) -> Any:
    made: Any = persistent()
    for key, value in table.items():
        made = made.insert(key, value)
    return made


def expect(before: State[str], command: Command[str], after: State[str], *effects: object) -> None:
    """The row: `command` in `before` leads to `after` and orders `effects`; unchanged, it is the same."""
    reached, ordered = reduce(before, command)

    assert (reached, ordered) == (after, effects)
    assert reached is before or after != before


def run(before: State[str], *commands: Command[str]) -> tuple[State[str], Effects[str]]:
    """The state after all `commands`, and what the last one ordered."""
    ordered: Effects[str] = ()
    for command in commands:
        before, ordered = reduce(before, command)
    return before, ordered


def members(union: Any) -> tuple[type, ...]:
    """The classes of a union, without their parameters."""
    return tuple(get_origin(each) or each for each in get_args(union))
