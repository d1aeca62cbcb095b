"""Ten callers of one key; the first, whose call began the fetch, is cancelled: how many of the nine are answered.

No time is measured here. It stands beside the figures of `flight` because many a fast peer is fast by failing this.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from benchmarks.floors import KEY, Call, Fetch
from benchmarks.processes import forked
from benchmarks.table import Table

FOLLOWERS: Final = 9
FETCH_S: Final = 0.02
GIVE_UP_S: Final = 3

Make = Callable[[Fetch], Coroutine[Any, Any, Call]]


def table(contenders: list[tuple[str, Make, object]], ours: str) -> Table:
    """A row a contender: its name, how it is made, the answer to expect."""
    result = Table(f"A cancelled leader and its {FOLLOWERS} followers", ("what", "served", "fetches"))
    for name, make, expected in contenders:
        served, fetches = forked(partial(_probed, make, expected))(1)
        result.add(
            name,
            f"{served}/{FOLLOWERS}",
            fetches,
            target=f"{FOLLOWERS}/{FOLLOWERS}, 1 fetch" if name == ours else "",
            reached=(served, fetches) == (FOLLOWERS, 1) if name == ours else None,
        )
    return result


def _probed(make: Make, expected: object, _n: int) -> tuple[int, int]:
    return asyncio.run(_probe(make, expected))


async def _probe(make: Make, expected: object) -> tuple[int, int]:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # Peers leave exceptions unretrieved.
    fetches = 0

    async def fetch(k: str) -> object:
        nonlocal fetches
        del k
        fetches += 1
        await asyncio.sleep(FETCH_S)
        return expected

    call = await make(fetch)

    async def caller() -> object:
        return await call(KEY)

    leader, *followers = [asyncio.create_task(caller()) for _ in range(1 + FOLLOWERS)]
    await asyncio.sleep(FETCH_S / 4)
    leader.cancel()
    done, _ = await asyncio.wait(followers, timeout=GIVE_UP_S)
    served = sum(1 for task in done if not task.cancelled() and not task.exception() and task.result() == expected)
    return served, fetches
