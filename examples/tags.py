"""Tags: what belongs together goes together, whatever it is called and whoever is just fetching it."""

from __future__ import annotations

import asyncio

from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheExpired, CacheMiss, Directed, Fresh

names = {"42": "Ada"}
is_asked, may_answer = asyncio.Event(), asyncio.Event()


async def profile() -> Result[str, str]:
    return Success(f"profile of {names['42']}")


async def feed() -> Result[Directed[str], str]:
    """Whom it is about is known when it has come."""
    written = f"{names['42']} has written"
    is_asked.set()
    await may_answer.wait()
    return Success(Fresh(written, tags=("user:42",)))


async def main() -> None:
    async with Cache(default_ttl=300) as cache:
        await cache.get("profile:42", profile, tags=("user:42", "profiles"))
        cache.put("avatar:42", "a picture", tags=("user:42",))
        fetching = asyncio.create_task(cache.get("feed", feed))
        await is_asked.wait()

        names["42"] = "Ada Lovelace"
        cache.invalidate_tag("user:42")
        may_answer.set()

        # All three are gone. One had not even come: who asked for it before is answered, and it is not served again.
        assert cache.peek("profile:42") == Failure(CacheMiss("profile:42"))
        assert cache.peek("avatar:42") == Failure(CacheMiss("avatar:42"))
        assert await fetching == Success("Ada has written")
        assert cache.peek("feed") == Failure(CacheMiss("feed"))
        assert await cache.get("feed", feed) == Success("Ada Lovelace has written")

        # Softly: stale, so that policies and windows decide.
        await cache.get("profile:42", profile, tags=("user:42", "profiles"))
        cache.expire_tag("profiles")
        assert cache.peek("profile:42") == Failure(CacheExpired("profile:42"))
        assert cache.peek("profile:42", allow_expired=True) == Success("profile of Ada Lovelace")

        # By the beginning of their keys; this looks at every key.
        cache.invalidate_prefix("profile:")
        assert cache.peek("profile:42", allow_expired=True) == Failure(CacheMiss("profile:42"))
    print("tags: three keys gone by one order, one of them while it was being fetched")


if __name__ == "__main__":
    asyncio.run(main())
