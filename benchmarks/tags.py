"""The price of a hit on an entry with tags: each read looks whether one of them has been invalidated since.

The same hot key, read through both faces; beside it the plain hit, of an entry without tags.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any, Final

from returns.result import Result, Success

from benchmarks.floors import KEY, TTL_S
from benchmarks.harness import Contender, async_sample, race, sync_sample
from benchmarks.table import Table
from cachemesh import Cache, Lifetime, SyncCache

ROUNDS: Final = 31
TAGS: Final = ("user:42", "feed")
MARKS: Final = 5_000
"""Other tags that have been invalidated; at 10,000 they are folded into one."""

Face = Callable[[], Any]


async def fetch() -> Result[int, str]:
    return Success(1)


def fetch_in_thread() -> Result[int, str]:
    return Success(1)


def tables() -> list[Table]:
    with asyncio.Runner() as runner:

        def sample(cache: Cache, options: dict[str, Any]) -> Callable[[int], int]:
            get = partial(cache.get, KEY, fetch, **options)

            async def loop(n: int) -> None:
                for _ in repeat(None, n):
                    await get()

            return async_sample(runner, loop)

        found = table("Async hit of an entry with tags", Cache, sample)
    return [found, table("Sync hit of an entry with tags", SyncCache, sync_loop)]


def sync_loop(cache: SyncCache, options: dict[str, Any]) -> Callable[[int], int]:
    get = partial(cache.get, KEY, fetch_in_thread, **options)

    def loop(n: int) -> None:
        for _ in repeat(None, n):
            get()

    return sync_sample(loop)


def table(title: str, face: Face, sample: Callable[[Any, dict[str, Any]], Callable[[int], int]]) -> Table:
    """A plain hit, and what its entry's tags and its call's options cost beside it."""
    named = {"ttl": TTL_S, "tags": TAGS}
    plain = Contender("no tags: get(key, fetch)", sample(filled(face()), {}))
    others = [
        Contender("a Lifetime, no tags: get(key, fetch)", sample(filled(face(), ttl=Lifetime(ttl=TTL_S)), {})),
        Contender("no tags: get(key, fetch, ttl=, tags=)", sample(filled(face()), named)),
        Contender("two tags: get(key, fetch)", sample(filled(face(), tags=TAGS), {})),
        Contender("two tags: get(key, fetch, ttl=, tags=)", sample(filled(face(), tags=TAGS), named)),
        Contender(f"the same, {MARKS:,} other tags invalidated", sample(marked(filled(face(), tags=TAGS)), named)),
    ]
    race([plain, *others], rounds=ROUNDS)

    found = Table(title, ("what", "ns", "best ns", "x plain"))
    for row in (plain, *others):
        found.add(row.name, row.median, row.best, row.over(plain))
    return found


def filled(cache: Any, **options: Any) -> Any:  # noqa: ANN401  (either face)
    cache.put(KEY, 1, **{"ttl": TTL_S, **options})
    return cache


def marked(cache: Any) -> Any:  # noqa: ANN401  (either face)
    for number in range(MARKS):
        cache.invalidate_tag(f"other:{number}")
    assert cache.peek(KEY) == Success(1)
    return cache
