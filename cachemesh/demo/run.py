"""The demo, from the first line it prints to its exit code."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cachemesh import Cache, CachePolicy, PrintLogger
from cachemesh.demo.catalog import Catalog
from cachemesh.demo.client import OriginClient
from cachemesh.demo.invariants import Invariant
from cachemesh.demo.origin import Origin
from cachemesh.demo.plan import Plan
from cachemesh.demo.score import Score
from cachemesh.demo.traffic import PATIENCE_S, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachemesh import CacheLogger
    from cachemesh.demo.report import Report
    from cachemesh.demo.traffic import Reader

POLICIES: Final = {
    policy.name: policy
    for policy in (
        CachePolicy.CACHE_FIRST,
        CachePolicy.NETWORK_FIRST,
        CachePolicy.STALE_WHILE_REVALIDATE,
        CachePolicy.NETWORK_ONLY,
        CachePolicy.CACHE_ONLY,
    )
}
FRAME_S: Final = 0.2
LOGGED_KEY: Final = "user:42"
LOGGED_TTL_S: Final = 300
OK: Final = 0
BROKEN: Final = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user may choose."""

    seconds: float = 2.0
    """For each policy."""
    clients: int = 40
    seed: int = 1
    policies: tuple[str, ...] = tuple(POLICIES)


def new_cache(logger: CacheLogger) -> Reader:
    """The cache that is shown: one for all users and all clients of a run."""
    return Cache(logger=logger)


async def run(settings: Settings, report: Report, make_cache: Callable[[CacheLogger], Reader] = new_cache) -> int:
    """Show it all; returns the exit code. `make_cache` is where a test puts a broken cache."""
    began_at = time.perf_counter()
    catalog = Catalog()
    with Origin(catalog) as origin:
        async with OriginClient(origin.url) as client:
            report.say(f"A real HTTP origin listens on {origin.url}. One key, read twice:\n")
            await log_lines(client, catalog)
            report.say(
                f"\n{settings.clients} clients of {len(catalog.owners)} users read for {settings.seconds:g} s "
                f"under each policy (seed {settings.seed}).\n"
                "Every time the origin has an outage (503), and later a rate limit (429).\n"
            )
            scores = await _all_policies(settings, report, make_cache, origin, client, catalog)

    report.finish(scores)
    return _verdict(scores, report, time.perf_counter() - began_at)


async def log_lines(client: OriginClient, catalog: Catalog) -> None:
    """Read one key twice through a cache that prints what happens: a miss and what follows, then a hit."""
    [user] = (resource for resource in catalog.resources if resource.key == LOGGED_KEY)
    async with Cache(logger=PrintLogger()) as cache:
        for _ in range(2):
            await cache.get(user.key, client.fetcher(user, None), ttl=LOGGED_TTL_S)


async def _all_policies(  # noqa: PLR0913, PLR0917  the parts of the demo, put together here and nowhere else
    settings: Settings,
    report: Report,
    make_cache: Callable[[CacheLogger], Reader],
    origin: Origin,
    client: OriginClient,
    catalog: Catalog,
) -> list[Score]:
    scores: list[Score] = []
    with report:
        for name in settings.policies:
            report.begin(name)
            score = Score(name, origin.begin(Plan.rough(settings.seconds, seed=settings.seed)))
            scores.append(score)
            cache = make_cache(score.log)
            traffic = Traffic(
                policy=POLICIES[name],
                clients=settings.clients,
                seconds=settings.seconds,
                seed=settings.seed,
                cache=cache,
                origin=client,
                catalog=catalog,
                score=score,
            )
            redrawing = asyncio.create_task(_redraw(report, scores, settings.policies[len(scores) :], origin))
            try:
                await traffic.run()
            finally:
                redrawing.cancel()
            score.check_fetches()
            await _close(cache, score)
            if Invariant.ANSWERED in score.broken:
                break  # What hangs once hangs again; the demo keeps to its time.
    return scores


async def _redraw(report: Report, scores: Sequence[Score], waiting: Sequence[str], origin: Origin) -> None:
    while True:
        report.tick(scores, waiting, origin.trouble)
        await asyncio.sleep(FRAME_S)


async def _close(cache: Reader, score: Score) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await cache.aclose()
    except TimeoutError:
        score.broke(Invariant.ANSWERED, f"aclose() hung for {PATIENCE_S:g} s")
    except Exception as error:  # noqa: BLE001  whatever it is, the verdict names it
        score.broke(Invariant.NO_EXCEPTION, f"aclose() raised {error!r}")


def _verdict(scores: Sequence[Score], report: Report, took_s: float) -> int:
    broken = [(score.policy, invariant, seen) for score in scores for invariant, seen in score.broken.items()]
    for policy, invariant, seen in broken:
        report.say(f'BROKEN under {policy}: "{invariant}": {seen}', style="bold red")
    if broken:
        return BROKEN

    calls = sum(score.calls for score in scores)
    own = sum(score.own_answers for score in scores)
    report.say(f"All invariants held, in {calls:,} calls ({own:,} private answers) and {took_s:.1f} s:", style="green")
    for invariant in Invariant:
        report.say(f"  ok  {invariant}", style="green")
    return OK
