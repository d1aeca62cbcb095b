"""A conditional refresh: the origin is asked whether anything has changed, and sends nothing where nothing has.

This is HTTP's ETag and 304 (RFC 9110, section 13), without HTTP: the fetcher
gets what is cached, with the validator that it gave, and says what there is to say.
"""

from __future__ import annotations

import asyncio

from returns.result import Result, Success

from cachemesh import Cache, Directed, DoNotCache, Fresh, NotModified, Previous
from cachemesh.testing import VirtualClock


class Origin:
    """A page with a version. It counts what it sends."""

    def __init__(self) -> None:
        self.version = 1
        self.said: list[str] = []

    async def page(self, previous: Previous[str] | None) -> Result[Directed[str], str]:
        if previous is not None and previous.validator == self.version:
            self.said.append("304")
            return Success(NotModified())
        self.said.append("200")
        page = f"version {self.version}"
        if self.version == 0:
            return Success(DoNotCache(page))
        return Success(Fresh(page, ttl=60, validator=self.version))


async def main() -> None:
    clock, origin = VirtualClock(), Origin()
    async with Cache(clock=clock, default_ttl=60) as cache:

        async def page() -> Result[str, object]:
            return await cache.get("page", origin.page, conditional=True)

        for _ in range(5):
            assert await page() == Success("version 1")
            clock.advance(60)
        assert origin.said == ["200", "304", "304", "304", "304"], "sent once, renewed four times"

        origin.version = 2
        assert await page() == Success("version 2")
        clock.advance(60)
        origin.version = 0
        assert await page() == Success("version 0"), "answered"
        assert cache.peek("page", allow_expired=True) == Success("version 2"), "and not stored"
    print(f"conditional_refresh: {' '.join(origin.said)}")


if __name__ == "__main__":
    asyncio.run(main())
