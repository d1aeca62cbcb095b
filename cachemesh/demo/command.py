"""`cachemesh demo`, as click sees it."""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import click
from rich.console import Console

from cachemesh.demo.report import Report
from cachemesh.demo.run import POLICIES, Settings, run

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it.


@click.command()
@click.option("--seconds", type=click.FloatRange(0.1, 60), default=2.0, show_default=True, help="For each policy.")
@click.option("--clients", type=click.IntRange(1, 200), default=40, show_default=True, help="How many at once.")
@click.option(
    "--policy",
    "policies",
    type=click.Choice(list(POLICIES)),
    multiple=True,
    help="Only this policy; may be given more than once.  [default: all five]",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the traffic and of the origin's latency.")
@click.option("--plain", is_flag=True, help="No live table, even on a terminal.")
def demo(seconds: float, clients: int, policies: tuple[str, ...], seed: int, *, plain: bool) -> None:
    """Read a slow, flaky HTTP origin through the cache, under each policy.

    The origin is real and local: it listens on a free port of 127.0.0.1, takes its time, goes down for a while and
    limits its rate for a while. The exit code is 1 if an invariant of the cache broke, and 0 otherwise.
    """
    settings = Settings(seconds=seconds, clients=clients, seed=seed, policies=policies or tuple(POLICIES))
    try:
        sys.exit(asyncio.run(run(settings, Report.on(Console(), plain=plain))))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
