"""`@cached`: the cache is at the function, and whoever calls it needs to know nothing of it.

The decorated function keeps its signature and its types, and gets `.key(...)`,
`.invalidate(...)` and `.refresh(...)`, called with the same arguments.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from returns.future import FutureResult
from returns.io import IOSuccess
from returns.result import Failure, Result, Success

from cachemesh import Cache, CachePolicy, InvalidKey, SyncCache, cached


@dataclass(frozen=True)
class Article:
    """A page of a wiki."""

    title: str
    language: str
    revision: int = 1


WIKI = {("Ada", "en"): Article("Ada", "en"), ("Ada", "de"): Article("Ada", "de")}
requests: list[str] = []

cache = Cache()
sync_cache = SyncCache()


@cached(cache, key="{language}/{title}", ttl=300, policy=CachePolicy.STALE_WHILE_REVALIDATE)
async def article(title: str, *, language: str = "en") -> Result[Article, str]:
    """The article under `title`."""
    requests.append(f"{language}/{title}")
    found = WIKI.get((title, language))
    return Success(found) if found else Failure("no such article")


@cached(cache, key="title:{language}:{title}")
def shouted(title: str, language: str) -> FutureResult[str, str]:
    """One cached function on top of another: a FutureResult stays one."""
    return FutureResult(article(title, language=language)).map(lambda found: found.title.upper()).alt(str)


@cached(sync_cache, key=lambda number: f"square:{number}")
def square(number: int) -> Result[int, str]:
    """For threads, with a key that is made by a function."""
    requests.append(f"square {number}")
    return Success(number * number)


@dataclass(frozen=True)
class Wiki:
    """In a class, the key names what it wants to know of `self`."""

    host: str

    @cached(sync_cache, key="{self.host}/{title}")
    def page(self, title: str) -> Result[str, str]:
        """The page under `title`."""
        requests.append(f"{self.host}/{title}")
        return Success(f"{title} at {self.host}")


async def main() -> None:
    # Ten calls at the same time are one request; later ones are hits. A default counts like a given argument.
    calls = [article("Ada"), article("Ada", language="en"), article(title="Ada")]
    assert await asyncio.gather(*calls) == [Success(Article("Ada", "en"))] * 3
    assert requests == ["en/Ada"]

    # Each argument has its part in the key, and the separator cannot be smuggled in.
    assert article.key("Ada") == "en/Ada"
    assert article.key("b/c", language="a") != article.key("c", language="a/b")
    assert await article("Ada", language="de") == Success(Article("Ada", "de"))
    assert await article("Eve") == Failure("no such article"), "a failure is not remembered unless that is asked for"

    # A newer revision is seen after `.refresh`, or after `.invalidate`.
    WIKI["Ada", "en"] = replace(WIKI["Ada", "en"], revision=2)
    assert await article("Ada") == Success(Article("Ada", "en", revision=1))
    assert await article.refresh("Ada") == Success(Article("Ada", "en", revision=2))
    WIKI["Ada", "en"] = replace(WIKI["Ada", "en"], revision=3)
    article.invalidate("Ada")
    assert await article("Ada") == Success(Article("Ada", "en", revision=3))

    assert await shouted("Ada", "en") == IOSuccess("ADA")
    assert cache.peek(shouted.key("Ada", "en")) == Success("ADA")

    # What the function was, it still is.
    assert (article.__name__, article.__doc__) == ("article", "The article under `title`.")  # type: ignore[attr-defined]
    await cache.aclose()


def threads() -> None:
    assert [square(3), square(3), square(number=3)] == [Success(9)] * 3
    assert requests.count("square 3") == 1

    # A method knows its instance, and so does what is asked of it.
    english, german = Wiki("en"), Wiki("de")
    assert [english.page("Ada"), german.page("Ada"), english.page("Ada")] == [
        Success("Ada at en"),
        Success("Ada at de"),
        Success("Ada at en"),
    ]
    english.page.invalidate("Ada")
    assert sync_cache.peek(german.page.key("Ada")) == Success("Ada at de")

    # A key that cannot be made is a Failure like any other.
    @cached(sync_cache, key=lambda rows: f"first:{rows[0]}")
    def total(rows: list[int]) -> Result[int, str]:
        return Success(sum(rows))

    assert isinstance(total([]).failure(), InvalidKey)
    sync_cache.close()


if __name__ == "__main__":
    asyncio.run(main())
    threads()
    print(f"cached_decorator: {len(requests)} requests, each for its reason: {', '.join(requests)}")
