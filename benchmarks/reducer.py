"""One step of the pure core, called from Python as somebody who embeds it would: a `Get` that hits."""

from itertools import repeat
from typing import Final

from benchmarks import floors
from benchmarks.floors import KEY, TTL_S
from benchmarks.harness import Contender, race, sync_sample
from benchmarks.table import Table

ROUNDS: Final = 31
MOST_NS: Final = 1_000


def tables() -> list[Table]:
    from cachemesh.core import FetchSucceeded, Get, State, reduce  # noqa: PLC0415  (only here)

    asked = Get(key=KEY, now=0.0, flight_id=1, ttl_s=TTL_S)
    asking, _ = reduce(State(), asked)
    state, _ = reduce(asking, FetchSucceeded(flight_id=1, answer=1, now=0.0))
    hit = Get(key=KEY, now=1.0, flight_id=2)
    after, effects = reduce(state, hit)
    assert after is state, "a hit must leave the state as it is"
    assert len(effects) == 1, effects

    def prebuilt(n: int) -> None:
        for _ in repeat(None, n):
            reduce(state, hit)

    def building(n: int) -> None:
        for _ in repeat(None, n):
            reduce(state, Get(key=KEY, now=1.0, flight_id=2))

    hand_written = floors.sync_hit()

    def by_hand(n: int) -> None:
        for _ in repeat(None, n):
            hand_written(KEY)

    floor = Contender("floor: function, dict get, TTL check", sync_sample(by_hand))
    step = Contender("reduce(state, get)", sync_sample(prebuilt))
    built = Contender("reduce(state, Get(key=, now=, flight_id=))", sync_sample(building))
    race([floor, step, built], rounds=ROUNDS)

    table = Table("One reducer step on a hit", ("what", "ns", "best ns", "x floor"))
    for row in (floor, step, built):
        judged = row is step
        table.add(
            row.name,
            row.median,
            row.best,
            row.over(floor),
            target=f"<= {MOST_NS:,} ns" if judged else "",
            reached=row.median <= MOST_NS if judged else None,
        )
    return [table]
