"""Railway style: from the cache through parsing, rules and fallbacks, with no `if` and no `except`.

`FutureResult(cache.get(...))` puts an answer of the cache on the rails of
`returns`: `map` and `bind` go on with a value, `alt` and `lash` with an error,
and the types of both travel along.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Final

from returns.future import FutureResult, future_safe
from returns.io import IOFailure, IOSuccess
from returns.pipeline import flow
from returns.pointfree import bind_result, map_
from returns.result import Failure, Result, Success, safe

from cachemesh import Cache, CacheError, FetchRaised, RetryOptions

RATES: Final = {"EUR": '{"usd": 1.25}', "XXX": "<html>"}

HIGHEST_USD: Final = 10.0


@dataclass(frozen=True)
class Rate:
    """So many dollars for one unit."""

    usd: float


class Exchange:
    """Raises as client libraries do; `future_safe` turns that into a `Failure`."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    @future_safe
    async def quote(self, currency: str) -> str:
        self.requests.append(currency)
        if len(self.requests) == 1:
            raise ConnectionResetError
        return RATES[currency]


@safe
def parsed(text: str) -> Rate:
    return Rate(**json.loads(text))


def plausible(rate: Rate) -> Result[Rate, Exception]:
    return Success(rate) if 0 < rate.usd < HIGHEST_USD else Failure(ValueError(f"{rate.usd} dollars"))


def shown(rate: Rate) -> str:
    return f"{rate.usd} dollars"


async def main() -> None:
    exchange = Exchange()
    async with Cache(default_ttl=60, retry=RetryOptions.DEFAULTS) as cache:

        def rate_of(currency: str) -> FutureResult[Rate, Exception]:
            """The cache's own errors are exceptions as well, so one error type serves for the whole line."""
            return (
                FutureResult(cache.get(currency, lambda: exchange.quote(currency)))
                .bind_result(parsed)
                .bind_result(plausible)
            )

        # A value stays on the upper rail. The first attempt failed, and was retried.
        assert await rate_of("EUR").map(lambda rate: 100 * rate.usd) == IOSuccess(125.0)
        assert await rate_of("EUR") == IOSuccess(Rate(1.25))
        assert exchange.requests == ["EUR", "EUR"], "the second call was a hit"

        # An error goes past every `map` and `bind`, and says what it was.
        problem = await rate_of("XXX").alt(lambda error: type(error).__name__)
        assert problem == IOFailure("JSONDecodeError"), "cached is what the origin said, not what became of it"

        # `lash` is a second chance: here another currency, there a constant.
        assert await rate_of("XXX").lash(lambda _: rate_of("EUR")) == IOSuccess(Rate(1.25))
        assert await rate_of("???").lash(lambda _: FutureResult.from_value(Rate(1.0))) == IOSuccess(Rate(1.0))

        # The same, point-free.
        in_dollars = flow(rate_of("EUR"), bind_result(plausible), map_(shown))
        assert await in_dollars == IOSuccess("1.25 dollars")

        # Without the rails a Result answers just as well; what a fetcher raised is an error like any other.
        async def raising() -> Result[str, Exception]:
            raise TimeoutError

        answer: Result[str, Exception | CacheError] = await cache.get("GBP", raising)
        assert answer == Failure(FetchRaised("GBP", TimeoutError()))
        assert answer.map(len).value_or(0) == 0

    print(f"railway: 1.25 dollars for a euro, after {len(exchange.requests)} requests")


if __name__ == "__main__":
    asyncio.run(main())
