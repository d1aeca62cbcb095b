"""Staleness against origin load: the five policies, each with several ttls, and which of them no other one beats.

    python examples/staleness.py picture.png

Nothing is asked for real and nothing waits: `cachemesh.simulation` runs the cache's own
reducers over two hours of made-up traffic, in virtual time. The origin's values
change every ten minutes on the average, and for five minutes it is down.
Without a name for the picture, there is the table only, and no need of matplotlib.
"""

from __future__ import annotations

import sys
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Final

from cachemesh.simulation import Goal, OriginModel, Request, Uniform, front, grid, simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from cachemesh.simulation import Outcome

HOUR_S: Final = 3600.0
POLICIES: Final = ("cache_first", "stale_while_revalidate", "network_first", "network_only", "cache_only")
TTLS: Final = ("10s", "30s", "2m", "10m", "30m")
LONGEST_LATENCY_S: Final = 0.2
ORIGIN: Final = OriginModel(Uniform(0.02, LONGEST_LATENCY_S), outages=((HOUR_S, HOUR_S + 300.0),), change_every_s=600.0)

COMPARED: Final = tuple(Goal.parse(text).target for text in ("least origin load", "least mean staleness"))
MOST_FAILURES: Final = 0.5
"""Who fails more often than this is on no front: it asks the origin for little, because it answers little."""


def traffic(random: Random, *, requests: int = 15_000, keys: int = 300, hours: float = 2.0) -> list[Request]:
    """A Poisson process: each pause is independent of the last. Some keys are asked for far more often (Zipf)."""
    instants = accumulate(random.expovariate(requests / (hours * HOUR_S)) for _ in range(requests))
    names = [f"item:{rank}" for rank in range(1, keys + 1)]
    asked = random.choices(names, [1 / rank for rank in range(1, keys + 1)], k=requests)
    return [Request(at, key) for at, key in zip(instants, asked, strict=True)]


def on_front(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that answer, and that no other one which answers beats in origin load and in staleness."""
    answering = [each for each in outcomes if each.failure_share < MOST_FAILURES]
    return [each for each, is_on_it in zip(answering, front(answering, COMPARED), strict=True) if is_on_it]


def drawn(outcomes: Sequence[Outcome], best: Sequence[Outcome]) -> Figure:
    """A point for each outcome, a line for each policy, a dotted one through the front."""
    import matplotlib as mpl  # noqa: PLC0415 (who wants the table only need not have it)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    edge = sorted((each.staleness.mean, each.origin_requests) for each in best)
    axes.plot(*zip(*edge, strict=True), ":", color="0.4", linewidth=2, drawstyle="steps-post", label="Pareto front")
    axes.plot(*zip(*edge, strict=True), "o", color="0.4", markersize=14, markerfacecolor="none")
    for policy, colour, marker in zip(POLICIES, mpl.color_sequences["tab10"], "osD^x", strict=False):
        of_it = [each for each in outcomes if each.configuration.policy.name == policy]
        points = [(each.staleness.mean, each.origin_requests) for each in of_it]
        failing = of_it[0].failure_share > MOST_FAILURES
        label = f"{policy} (fails every time)" if failing else policy
        axes.plot(*zip(*points, strict=True), "-", marker=marker, color=colour, label=label, clip_on=False)
        beside = (7, 7) if policy == "stale_while_revalidate" else (-24, -14)
        if len(set(points)) > 1:
            for ttl, point in zip(TTLS, points, strict=True):
                axes.annotate(ttl, point, xytext=beside, textcoords="offset points", fontsize="small", color=colour)
    axes.set_xscale("symlog", linthresh=1.0)  # Logarithmic from one second on, and it has a place for 0.
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlim=(0, None), ylim=(0, None), title="What an old value saves")
    axes.set_xlabel("staleness: seconds that an answered value had been outdated, on the average")
    axes.set_ylabel("origin load: requests in two hours")
    axes.grid(color="0.9")
    axes.legend()
    return figure


def main(picture: str | None = None) -> None:
    load = traffic(Random(2026))  # noqa: S311 (a simulation is to repeat itself)
    outcomes = [simulate(load, ORIGIN, configuration, seed=1) for configuration in grid(POLICIES, TTLS)]
    best = on_front(outcomes)

    print(f"  {'configuration':<50}{'origin':>7}{'staleness':>11}{'failures':>10}")
    for each in outcomes:
        print(
            f"{'*' if each in best else ' '} {each.configuration.name:<50}{each.origin_requests:>7}"
            f"{each.staleness.mean:>9.2f} s{each.failure_share:>10.1%}"
        )
    print("* on the Pareto front: no other that answers has less of both, origin load and staleness")

    first, behind, network_first, only, cached = (
        [each for each in outcomes if each.configuration.policy.name == policy] for policy in POLICIES
    )
    assert all(each.staleness.most <= LONGEST_LATENCY_S for each in only), "outdated on its way here at the most"
    assert {each.origin_requests for each in only} == {max(each.origin_requests for each in outcomes)}, "at a price"
    assert all(each.failures == 0 for each in network_first), "a value from before bridges the outage"
    assert all(each.failures > 0 for each in only), "and without one it is seen"
    for of_policy in (first, behind):
        loads = [each.origin_requests for each in of_policy]
        assert loads == sorted(loads, reverse=True), "the longer the ttl, the less is asked"
        ages = [each.staleness.mean for each in of_policy]
        assert ages == sorted(ages), "and the older is what is answered"
    for at_once, waiting in zip(behind, first, strict=True):
        assert at_once.hit_ratio > waiting.hit_ratio, "nobody waits for a refresh"
        assert at_once.staleness.mean > waiting.staleness.mean, "so somebody is answered with what was before"
    assert all(each.failure_share == 1 for each in cached), "nobody has put anything there"

    if picture is not None:
        drawn(outcomes, best).savefig(picture, dpi=120)
        print(f"drawn: {picture}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
