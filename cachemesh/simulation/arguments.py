"""Arguments of the command as people write them. Each function reads one; its ValueError is a line to show."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

from cachemesh.core.lifetimes import LONGEST_TTL_S
from cachemesh.shell.durations import seconds
from cachemesh.shell.lifetime import Lifetime
from cachemesh.simulation.amounts import Unit, amount
from cachemesh.simulation.configuration import Eviction
from cachemesh.simulation.origin import Constant, LogNormal, Quantiles, Uniform
from cachemesh.simulation.traces.columns import FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachemesh.simulation.origin import Latency
    from cachemesh.simulation.traces.columns import Columns, Field

EVER: Final = frozenset({"none", "ever", "forever", "unbounded"})


def duration(text: str) -> float:
    """Seconds.

    >>> duration("1h30m")
    5400.0
    """
    value = amount(text.strip().lower(), Unit.TIME)
    seconds(value)
    return value


def duration_or_none(text: str) -> float | None:
    """None for `none` or `ever`."""
    return None if text.strip().lower() in EVER else duration(text)


def window(text: str) -> float | None:
    """Seconds past the ttl, a century for `ever`; None for `none`: nothing is said of it."""
    plain = text.strip().lower()
    return None if plain == "none" else LONGEST_TTL_S if plain in EVER else duration(text)


def capacity(text: str) -> int | None:
    """Entries; None for `none` or `unbounded`."""
    if text.strip().lower() in EVER:
        return None
    value = amount(text.strip().lower(), Unit.COUNT)
    if value < 1 or value != int(value):
        msg = f"{text[:40]!r} is no number of entries from 1 on"
        raise ValueError(msg)
    return int(value)


def eviction(text: str) -> Eviction:
    """By name."""
    try:
        return Eviction(text.strip().lower())
    except ValueError:
        msg = f"no eviction is called {text[:40]!r}: there are {', '.join(Eviction)}"
        raise ValueError(msg) from None


def share(text: str) -> float:
    """From 0 to 1, or in percent."""
    return amount(text.strip().lower(), Unit.SHARE)


def rate(text: str) -> float:
    """A number a second, above 0."""
    value = amount(text.strip().lower(), Unit.RATE)
    if not value:
        msg = "a rate limit is above 0"
        raise ValueError(msg)
    return value


def outage(text: str) -> tuple[float, float]:
    """Seconds after the first request: when it begins, and when it is over.

    >>> outage("1h..1h5m")
    (3600.0, 3900.0)
    """
    begins, dots, ends = text.partition("..")
    if not dots:
        msg = f"an outage reads like 1h..1h5m (after the first request), not {text[:40]!r}"
        raise ValueError(msg)
    pair = duration(begins), duration(ends)
    if not pair[0] < pair[1]:
        msg = f"an outage ends after it begins, not as {text[:40]!r}"
        raise ValueError(msg)
    return pair


def latency(text: str) -> Latency:
    """A distribution: one duration, a range, or percentiles; of the median and p99 alone, log-normal.

    >>> latency("20ms..200ms")
    Uniform(least=0.02, most=0.2)
    >>> latency("p50=50ms,p99=400ms")
    LogNormal(median=0.05, p99=0.4)
    >>> latency("p0=10ms,p90=50ms,p100=1s")
    Quantiles(points=((0.0, 0.01), (0.9, 0.05), (1.0, 1.0)))
    """
    if ".." in text:
        least, _, most = text.partition("..")
        pair = duration(least), duration(most)
        if pair[0] > pair[1]:
            msg = f"a range goes from less to more, not as {text[:40]!r}"
            raise ValueError(msg)
        return Uniform(*pair)
    if "=" not in text:
        return Constant(duration(text))
    points = dict(_percentile(part) for part in text.split(","))
    if points.keys() == {0.5, 0.99} and 0.0 < points[0.5] <= points[0.99]:
        return LogNormal(points[0.5], points[0.99])
    return Quantiles(tuple(sorted(points.items())))


def _percentile(text: str) -> tuple[float, float]:
    name, _, value = text.strip().lower().partition("=")
    name = "p50" if name == "median" else name
    try:
        percent = float(name.removeprefix("p"))
    except ValueError:
        percent = -1.0
    if not name.startswith("p") or not 0.0 <= percent <= 100.0:  # noqa: PLR2004 (percent)
        msg = f"a latency reads like 50ms, 20ms..200ms or p50=50ms,p99=400ms; there is no {name[:40]!r}"
        raise ValueError(msg)
    return percent / 100.0, duration(value)


def columns(pairs: Iterable[str]) -> Columns | None:
    """Columns by name, or, where all are numbers, by place.

    >>> columns(["key=url", "time=when"])
    {'key': 'url', 'time': 'when'}
    """
    named = dict(map(_column, pairs))
    if named and all(name.isdecimal() for name in named.values()):
        return {field: int(place) for field, place in named.items()}
    return named or None


def _column(text: str) -> tuple[Field, str]:
    field, sign, name = text.partition("=")
    if not sign or not name or field not in FIELDS:
        msg = f"a column is said like key=url, for one of {', '.join(FIELDS)}; not {text[:40]!r}"
        raise ValueError(msg)
    return field, name


def windows(
    stale: Sequence[float | None], stale_if_error: Sequence[float], jitter: Sequence[float] = ()
) -> list[Lifetime | None]:
    """What is said beside the ttl. None: nothing was, so it is the policy's own way.

    >>> windows([None, 60.0], [0.0])[0], windows([None, 60.0], [0.0])[1].serve_stale_for
    (None, 60.0)
    """
    return [
        None
        if window is None and not on_error and not share_taken
        else Lifetime(serve_stale_for=window or 0.0, stale_if_error_for=on_error, jitter=share_taken)
        for window, on_error, share_taken in product(stale or [None], stale_if_error or [0.0], jitter or [0.0])
    ]
