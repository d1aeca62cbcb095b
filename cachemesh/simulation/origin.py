"""`OriginModel`: how an origin behaves, as far as a cache in front of it can tell.

What it does is a function of the seed, the key, how often that key was asked
for, and the instant. So two configurations meet the same world: the third
request for a key takes as long in both, and a value changes at the same
instants. Only a rate limit depends on what else is asked.
"""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2b
from itertools import accumulate
from math import exp, factorial, inf, log, nextafter, ulp
from statistics import NormalDist
from typing import Final, TypeAlias

from msgspec import Struct


class Constant(Struct, frozen=True, tag=True):
    """Always so many seconds."""

    seconds: float

    def at(self, chance: float) -> float:
        """The latency that is longer than the share `chance` of all; here and below."""
        del chance
        return self.seconds


class Uniform(Struct, frozen=True, tag=True):
    """Anything between two numbers of seconds, all equally likely."""

    least: float
    most: float

    def at(self, chance: float) -> float:
        return self.least + (self.most - self.least) * chance


class LogNormal(Struct, frozen=True, tag=True):
    """Mostly near the median, with a long tail, as latencies of networks and services have it. Seconds.

    >>> round(LogNormal(median=0.05, p99=0.4).at(0.99), 3)
    0.4
    """

    median: float
    p99: float

    def __post_init__(self) -> None:
        if not 0.0 < self.median <= self.p99:
            msg = "a log-normal latency has a median above 0, and a p99 that is not below it"
            raise ValueError(msg)

    def at(self, chance: float) -> float:
        return self.median * exp(log(self.p99 / self.median) / P99_OF_NORMAL * inverse_normal(chance))


class Quantiles(Struct, frozen=True, tag=True):
    """As measured: pairs of a share and the seconds that this share does not exceed, with straight lines between them.

    >>> Quantiles(((0.0, 0.01), (0.5, 0.05), (1.0, 0.45))).at(0.75)
    0.25
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        shares = [share for share, _ in self.points]
        seconds = [each for _, each in self.points]
        if not self.points or shares != sorted(set(shares)) or seconds != sorted(seconds):
            msg = "quantiles are pairs of a share from 0 to 1 and seconds, both rising"
            raise ValueError(msg)

    def at(self, chance: float) -> float:
        points = self.points
        after = bisect_right(points, chance, key=_share)
        if after == 0 or after == len(points):
            return points[min(after, len(points) - 1)][1]
        (low, least), (high, most) = points[after - 1], points[after]
        return least + (most - least) * (chance - low) / (high - low)


Latency: TypeAlias = Constant | Uniform | LogNormal | Quantiles


class OriginModel(Struct, frozen=True):
    """How an origin behaves. Durations are seconds; instants are seconds since the first request of the load.

    `failure_rate`: the share of requests that fail by chance. `outages`: pairs
    of instants; whatever is asked from the first until just before the second
    fails. `rate_limit`: so many requests a second are answered, and what is too
    much is refused, which is a failure (a token bucket that holds one second's
    worth). `change_every_s`: a value becomes another one so often on the
    average, at random (a Poisson process for each key); None is never. Failures
    take as long as answers.

    >>> origin = OriginModel(Uniform(0.05, 0.15), failure_rate=0.01, outages=((3600.0, 3900.0),)).started(seed=7)
    >>> origin.ask("user:42", at=3700.0).fails
    True
    """

    latency: Latency = Constant(0.05)
    failure_rate: float = 0.0
    outages: tuple[tuple[float, float], ...] = ()
    rate_limit: float | None = None
    change_every_s: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.failure_rate <= 1.0:
            msg = f"a failure rate is a share from 0 to 1, not {self.failure_rate}"
            raise ValueError(msg)
        if any(not begins < ends for begins, ends in self.outages):
            msg = "an outage is a pair of instants, the second after the first"
            raise ValueError(msg)
        for name, given in (("rate_limit", self.rate_limit), ("change_every_s", self.change_every_s)):
            if given is not None and not 0.0 < given < inf:
                msg = f"{name} is a number above 0, or None, not {given}"
                raise ValueError(msg)
        if not 0.0 <= self.latency.at(SMALLEST_CHANCE) <= self.latency.at(1.0 - SMALLEST_CHANCE) < inf:
            msg = "a latency is a number of seconds from 0 on"
            raise ValueError(msg)

    def started(self, seed: int = 0, began_at: float = 0.0) -> ModelledOrigin:
        """An origin that behaves so. `began_at`: the instant of the first request."""
        return ModelledOrigin(self, seed, began_at)


class OriginAnswer(Struct, frozen=True, gc=False):
    """What an origin answers: after so many seconds, and until when it is what the origin would answer (inf: ever)."""

    latency_s: float
    fails: bool
    changes_at: float = inf


class _Asked(Struct, gc=False):
    """A key that was asked for: what its chance is drawn from, how often it was, and how long its last answer holds."""

    salt: int
    number: int = 0
    changes_at: float = -inf


class ModelledOrigin:
    """An `OriginModel` at work. It remembers how often each key was asked for, and what its rate limit has left."""

    __slots__ = ("_asked", "_fixed_s", "_fresh_at", "_left", "_model", "_outages", "_seed")

    def __init__(self, model: OriginModel, seed: int, began_at: float) -> None:
        self._model = model
        self._seed = blake2b(str(seed).encode(), digest_size=16).digest()
        # Instants: the difference of two has lost what tells a request at the edge from one before it.
        self._outages = [(began_at + begins, began_at + ends) for begins, ends in model.outages]
        self._asked: dict[str, _Asked] = {}
        latency = model.latency
        self._fixed_s = latency.seconds if type(latency) is Constant and not model.failure_rate else None
        self._left = self._burst
        self._fresh_at = began_at

    def ask(self, key: str, at: float) -> OriginAnswer:
        """The answer to a request for `key` that arrives at the instant `at`. Instants do not go back."""
        model = self._model
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = _Asked(self._salt(key))
        number = asked.number = asked.number + 1
        latency_s, fails = self._fixed_s, False
        if latency_s is None:
            drawn = mixed(asked.salt + number * GOLDEN)
            latency_s = model.latency.at(((drawn >> 32) + 0.5) * SMALLEST_CHANCE)
            fails = (drawn & 0xFFFFFFFF) * SMALLEST_CHANCE < model.failure_rate
        if model.outages and not fails:
            fails = any(begins <= at < ends for begins, ends in self._outages)
        if model.rate_limit is not None and self._is_too_much(at, model.rate_limit):
            fails = True
        if fails or model.change_every_s is None:
            return OriginAnswer(latency_s, fails)
        if at >= asked.changes_at:
            asked.changes_at = next_change(asked.salt, at, model.change_every_s)
        return OriginAnswer(latency_s, fails, asked.changes_at)

    def changes_at(self, key: str, at: float) -> float:
        """When the value that `key` has at `at` becomes another one; inf where it never does."""
        every_s = self._model.change_every_s
        return inf if every_s is None else next_change(self._salt(key), at, every_s)

    def _salt(self, key: str) -> int:
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=self._seed).digest()
        return int.from_bytes(digest, "big")

    @property
    def _burst(self) -> float:
        return max(1.0, self._model.rate_limit or 0.0)

    def _is_too_much(self, at: float, rate: float) -> bool:
        self._left = min(self._burst, self._left + (at - self._fresh_at) * rate)
        self._fresh_at = at
        if self._left < 1.0:
            return True
        self._left -= 1.0
        return False


def next_change(salt: int, at: float, every_s: float) -> float:
    """The first instant after `at` of a Poisson process with one event in `every_s` on the average.

    Time is cut into cells of that length. How many events are in a cell
    (Poisson of mean 1) and where (uniformly) depends on the cell alone, so any
    instant can be looked at without those before it.
    """
    if every_s < ulp(at):
        return nextafter(at, inf)  # Cells that floats cannot tell apart would never end.
    cell = int(at // every_s)
    while True:
        drawn = mixed((salt ^ CHANGES) + cell * GOLDEN)
        chance, found = (drawn >> 32) * SMALLEST_CHANCE, inf
        place = (drawn & 0xFFFFFFFF) * SMALLEST_CHANCE
        for events in POISSON:
            if chance < events:
                break
            instant = every_s * (cell + place)
            if at < instant < found:
                found = instant
            drawn = mixed(drawn)
            place = drawn * 2.0**-64
        if found < inf:
            return found
        cell += 1


def mixed(number: int) -> int:
    """64 bits in which those of `number` are spread evenly.

    The output function of SplitMix64 (Steele, Lea and Flood, Fast Splittable
    Pseudorandom Number Generators, OOPSLA 2014). Unlike `hash`, it is the same
    in every process and on every Python.
    """
    number = (number + GOLDEN) & MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)


def _share(point: tuple[float, float]) -> float:
    return point[0]


GOLDEN: Final = 0x9E3779B97F4A7C15
MASK: Final = (1 << 64) - 1
CHANGES: Final = 0x5851F42D4C957F2D
SMALLEST_CHANCE: Final = 2.0**-32

inverse_normal: Final = NormalDist().inv_cdf
P99_OF_NORMAL: Final = inverse_normal(0.99)

POISSON: Final = tuple(accumulate(exp(-1.0) / factorial(count) for count in range(20)))
"""The share of cells that have no more events than so many, up to where the rest is less than a float can tell."""
