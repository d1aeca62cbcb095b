"""What the processes of a fleet do in tests: one cache each, `Cache` and `SyncCache` by turns, over one store.

`python -m tests.stores.fleet_children NUMBER ORIGIN` is one of them. It reads
what it is to do from lines of JSON, and answers a line each. The origin that they
all ask is a file that they map. It knows when each version of each value came,
and counts who fetched it. Their parent is in `fleet.py`.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import mmap
import os
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field, to_builtins
from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheLogger, CachePolicy, CacheScope, Lifetime, StoreFailed, SyncCache
from cachemesh.stores.redis import RedisStore
from cachemesh.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from cachemesh.shell.ports import News

USERS: Final = 200
GLOBALS: Final = 40
KEYS: Final = 8
"""Of each user. They have the same names as the global ones."""
PLACES: Final = GLOBALS + USERS * KEYS
VERSIONS: Final = 2_048
"""So many of one value, at the most."""

MEMORY_CAP_S: Final = 2.0
TTL_S: Final = 2.0
WORKERS: Final = 12
"""Threads or tasks of one process that ask at the same time."""

LIFETIMES: Final = {
    # What is changed is invalidated by whoever changes it: it could be kept for an hour.
    "told": Lifetime(ttl=3_600.0),
    # What is changed is put. Two that put at once may arrive in either order, and then the ttl is what helps.
    "put": Lifetime(ttl=TTL_S),
    # What is changed is changed, and nobody says so. It is refreshed in the background.
    "ahead": Lifetime(ttl=TTL_S / 2, serve_stale_for=TTL_S / 2, refresh_ahead=0.5),
}
KINDS: Final = ("told", "told", "put", "ahead")


def kind_of(key: str) -> str:
    return key.partition(":")[0]


def key_at(number: int) -> str:
    return f"{KINDS[number % len(KINDS)]}:{number}"


class Place(Struct, frozen=True):
    """A value of the origin: of whom (None is all), and under which key."""

    user: str | None
    key: str

    @property
    def number(self) -> int:
        number = int(self.key.partition(":")[2])
        return number if self.user is None else GLOBALS + int(self.user.removeprefix("user")) * KEYS + number

    @property
    def scope(self) -> CacheScope:
        return CacheScope.GLOBAL if self.user is None else CacheScope.USER


class Origin:
    """What all processes ask. Its instants are `time.monotonic`, which is one clock for all of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        size = 8 * (8 + PLACES * (1 + 2 * VERSIONS))
        with path.open("a+b") as file:
            os.ftruncate(file.fileno(), size)
            self._map = mmap.mmap(file.fileno(), size)
        numbers, instants = memoryview(self._map).cast("q"), memoryview(self._map).cast("d")
        self.counters = numbers[:8]
        self._newest = numbers[8 : 8 + PLACES]
        self._came_at = instants[8 + PLACES : 8 + PLACES * (1 + VERSIONS)]
        self._fetches = numbers[8 + PLACES * (1 + VERSIONS) :]
        self._mine = threading.local()

    def read(self, number: int) -> int:
        """The version that there is now. It counts as a fetch."""
        with self._locked():
            version = self._newest[number]
            self._fetches[number * VERSIONS + version] += 1
        return version

    def change(self, number: int) -> int:
        with self._locked():
            version = self._newest[number] + 1
            self._came_at[number * VERSIONS + version] = time.monotonic()
            self._newest[number] = version
        return version

    def overtaken_s(self, number: int, version: int, at: float) -> float:
        """For how long `version` had been an old one then; 0 where it was not."""
        if self._newest[number] == version:
            return 0.0
        return max(0.0, at - self._came_at[number * VERSIONS + version + 1])

    def fetches(self, place: Place) -> list[int]:
        """How often each version of a value has been fetched."""
        first = place.number * VERSIONS
        return self._fetches[first : first + self._newest[place.number] + 1].tolist()

    def forget(self) -> None:
        """Begin anew. Nobody may be asking."""
        for number in range(PLACES):
            first = number * VERSIONS
            for version in range(self._newest[number] + 1):
                self._fetches[first + version] = 0
            self._newest[number] = 0
        for counter in range(len(self.counters)):
            self.counters[counter] = 0

    def add(self, counter: int, how_many: int = 1) -> int:
        with self._locked():
            self.counters[counter] += how_many
            return self.counters[counter]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One thread of one process. The lock is that of a file, which each thread opens for itself."""
        file = getattr(self._mine, "file", None)
        if file is None:
            file = self._mine.file = self._path.open("rb")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


ARRIVED, REQUESTS = 0, 1
"""Counters of the origin: at barriers, and made."""


class Tally(Struct):
    """What one process has seen."""

    requests: int = 0
    values: int = 0
    foreign: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """Exceptions, and answers that are no `Result`."""
    failures: Counter[str] = field(default_factory=Counter)
    oldest_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LIFETIMES, 0.0))
    """For how long a value had been an old one, at the most, when somebody began to ask for it; by kind."""
    store_failures: Counter[str] = field(default_factory=Counter)

    def add(self, origin: Origin, place: Place, answer: object, asked_at: float) -> None:
        """Look at the answer to a question about `place`."""
        if not isinstance(answer, Result):
            self.strange.append(f"{place}: {answer!r}")
        elif isinstance(answer, Failure):
            self.failures[repr(answer.failure())] += 1
        else:
            value: Any = answer.unwrap()
            self.values += 1
            if (value["user"], value["key"]) != (place.user, place.key):
                self.foreign.append(f"{place}: {value}")
                return
            old_s = origin.overtaken_s(place.number, value["version"], asked_at)
            kind = kind_of(place.key)
            self.oldest_s[kind] = max(self.oldest_s[kind], old_s)


class Heard(CacheLogger):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def on_error(self, key: str, error: object) -> None:
        del key
        if isinstance(error, StoreFailed):
            self._tally.store_failures[f"{error.operation}: {error.error!r}"] += 1
        else:
            self._tally.failures[f"heard {error!r}"] += 1


class ListeningStore(RedisStore):
    """It knows which news the cache has heard."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.heard: set[str | None] = set()

    def listen(self, hear: Callable[[News], None], /) -> Callable[[], None]:
        def both(news: News) -> None:
            hear(news)
            self.heard.add(news.key)

        return super().listen(both)


class Member:
    """One process: its cache, of either face, used by one and the same code. What is awaited need not be awaitable."""

    def __init__(self, number: int, origin: Origin) -> None:
        self.number = number
        self.is_async = number % 2 == 0
        self.origin = origin
        self.tally = Tally()
        self.store: Any = None

    def new_cache(self, store: str, **settings: Any) -> Any:
        logger = Heard(self.tally)
        kept: Any = (
            ListeningStore(store, memory_cap=MEMORY_CAP_S, ping_interval=MEMORY_CAP_S / 2, timeout=5.0, **settings)
            if store.startswith("redis")
            else SqliteStore(store, **settings)
        )
        self.store = kept
        # A small memory, so that it is the store that is asked.
        return (Cache if self.is_async else SyncCache)(store=kept, logger=logger, max_entries=500)

    def fetcher(self, place: Place, takes_s: float = 0.002) -> Callable[[], Any]:
        """What it answers is a little old when it arrives."""

        def read() -> Result[Any, str]:
            return Success(value_of(place, self.origin.read(place.number)))

        def fetch() -> Result[Any, str]:
            answer = read()
            time.sleep(takes_s)
            return answer

        async def fetch_async() -> Result[Any, str]:
            answer = read()
            await asyncio.sleep(takes_s)
            return answer

        return fetch_async if self.is_async else fetch

    def many_fetcher(self, user: str | None) -> Callable[[tuple[str, ...]], Any]:
        def fetch(keys: tuple[str, ...]) -> dict[str, Result[Any, str]]:
            places = [Place(user, key) for key in keys]
            return {place.key: Success(value_of(place, self.origin.read(place.number))) for place in places}

        async def fetch_async(keys: tuple[str, ...]) -> dict[str, Result[Any, str]]:
            return fetch(keys)

        return fetch_async if self.is_async else fetch

    async def settled(self, answer: Any) -> Any:
        return await answer if self.is_async else answer

    async def pause(self, seconds: float) -> None:
        await self.settled((asyncio.sleep if self.is_async else time.sleep)(seconds))

    async def together(self, coroutines: list[Coroutine[Any, Any, Any]]) -> list[Any]:
        """What each answers, in tasks or threads of their own."""
        if self.is_async:
            return await asyncio.gather(*coroutines)
        with ThreadPoolExecutor(len(coroutines)) as pool:
            return list(pool.map(driven, coroutines))

    async def meet(self, processes: int) -> None:
        """Wait until all processes are here."""
        arrived = self.origin.add(ARRIVED)
        all_of_them = -(-arrived // processes) * processes
        deadline = time.monotonic() + 120.0
        while self.origin.counters[ARRIVED] < all_of_them:
            assert time.monotonic() < deadline, "the others do not come"
            await self.pause(0.002)

    async def hear(self, key: str) -> None:
        """Wait until the cache has heard of `key`, and so of all that the same process did before."""
        deadline = time.monotonic() + 30.0
        while key not in self.store.heard:
            assert time.monotonic() < deadline, "it hears nothing"
            await self.pause(0.002)

    async def close(self, cache: Any) -> None:
        await self.settled(cache.aclose() if self.is_async else cache.close())


def value_of(place: Place, version: int) -> dict[str, Any]:
    return {"user": place.user, "key": place.key, "version": version}


def driven(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine answers that never waits for an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    msg = "it waits for an event loop"
    raise RuntimeError(msg)


# What they do


async def mix(member: Member, *, store: str, requests: int, seed: int = 0) -> Tally:
    """Whatever an application does, for 200 users, in random order."""
    tally = member.tally = Tally()
    cache = member.new_cache(store)
    workers = [
        worked(
            member, cache, random.Random(f"{seed}.{member.number}.{each}"), -(-requests // WORKERS), switches=not each
        )
        for each in range(WORKERS)
    ]
    await member.together(workers)
    await member.close(cache)
    return tally


async def worked(member: Member, cache: Any, chance: random.Random, requests: int, *, switches: bool) -> None:
    """`requests` of one worker. One of each process `switches` the active user, the others have views."""
    user = "user0"
    for number in range(requests):
        if switches:
            if number % 10 == 0:
                user = f"user{chance.randrange(USERS)}"
                cache.set_active_user(user)
            view = cache
        else:
            user = f"user{chance.randrange(USERS)}"
            view = cache.for_user(user)
        owner = None if chance.random() < 0.3 else user
        place = Place(owner, key_at(chance.randrange(GLOBALS if owner is None else KEYS)))
        try:
            await request(member, view, place, chance)
        except Exception as error:  # noqa: BLE001 (there is to be none)
            member.tally.strange.append(f"{place}: {error!r}")
        member.origin.add(REQUESTS)
        member.tally.requests += 1


async def request(member: Member, cache: Any, place: Place, chance: random.Random) -> None:
    """One of all that may be asked of a cache, for `place` and what is near it."""
    kind = kind_of(place.key)
    options: dict[str, Any] = {"scope": place.scope, "ttl": LIFETIMES[kind]}
    if kind == "told":
        options["tags"] = (tag_of(place),)
    dice = chance.randrange(100)
    if dice < 8:
        await changed(member, cache, place, options)
    elif dice < 10:
        asked_at = time.monotonic()
        answer = await member.settled(cache.refresh(place.key, member.fetcher(place), **options))
        member.tally.add(member.origin, place, answer, asked_at)
    elif dice < 12:
        changed_together(member, cache, place)
    elif dice < 13:
        cache.clear_scope(place.scope)
    elif dice < 19:
        await asked_together(member, cache, place, options)
    elif dice < 22:
        behind = {"policy": CachePolicy.STALE_WHILE_REVALIDATE, "always_revalidate": True}
        await asked(member, cache, place, options | behind)
    else:
        await asked(member, cache, place, options)


def tag_of(place: Place) -> str:
    return f"of {place.user}"


async def changed(member: Member, cache: Any, place: Place, options: dict[str, Any]) -> None:
    """A new version at the origin, and what is done about it for a value of this kind."""
    version = member.origin.change(place.number)
    match kind_of(place.key):
        case "told":
            cache.invalidate(place.key, scope=place.scope)
        case "put":
            answer = cache.put(place.key, value_of(place, version), **options)
            member.tally.add(member.origin, place, answer, time.monotonic())


def changed_together(member: Member, cache: Any, place: Place) -> None:
    """All that is invalidated when it changes, of one owner."""
    for number in range(GLOBALS if place.user is None else KEYS):
        if kind_of(key_at(number)) == "told":
            member.origin.change(Place(place.user, key_at(number)).number)
    answer = cache.invalidate_tag(tag_of(place), scope=place.scope)
    if answer != Success(tag_of(place)):
        member.tally.strange.append(f"invalidate_tag: {answer!r}")


async def asked_together(member: Member, cache: Any, place: Place, options: dict[str, Any]) -> None:
    """All of the same kind and owner."""
    keys = [key_at(each) for each in range(KEYS) if kind_of(key_at(each)) == kind_of(place.key)]
    asked_at = time.monotonic()
    answers = await member.settled(cache.get_many(keys, member.many_fetcher(place.user), **options))
    if list(answers) != keys:
        member.tally.strange.append(f"get_many: {list(answers)}")
    for key, answer in answers.items():
        member.tally.add(member.origin, Place(place.user, key), answer, asked_at)


async def asked(member: Member, cache: Any, place: Place, options: dict[str, Any]) -> None:
    asked_at = time.monotonic()
    answer = await member.settled(cache.get(place.key, member.fetcher(place), **options))
    member.tally.add(member.origin, place, answer, asked_at)


def some_places(how_many: int) -> list[Place]:
    """A user's and everybody's by turns, as long as there are any of these."""
    return [
        Place(None, f"told:{each // 2}") if each % 2 and each < 2 * GLOBALS else Place(f"user{each}", "told:0")
        for each in range(how_many)
    ]


async def generations(member: Member, *, store: str, processes: int, rounds: int, keys: int) -> Tally:
    """All ask for all keys, again and again; between, one of them changes and invalidates them in one of three ways."""
    tally = member.tally = Tally()
    cache = member.new_cache(store)
    places = some_places(keys)

    async def ask(place: Place) -> None:
        await asked(
            member, cache.for_user(place.user or "user0"), place, {"scope": place.scope, "ttl": 3_600, "tags": ("all",)}
        )
        tally.requests += 1

    for number in range(rounds):
        await member.meet(processes)
        random.Random(f"{member.number}.{number}").shuffle(places)
        for start in range(0, len(places), WORKERS):
            # Each is asked for twice by each process, at the same time.
            await member.together([ask(place) for place in places[start : start + WORKERS] * 2])
        await member.settled(cache.flush())
        await member.meet(processes)
        if member.number == number % processes:
            change_all(member, cache, places, ("tag", "key", "scope")[number % 3])
            await member.settled(cache.flush())
            cache.put(f"heard:{number}", number)
            await member.settled(cache.flush())
        else:
            await member.hear(f"heard:{number}")
    await member.close(cache)
    return tally


def change_all(member: Member, cache: Any, places: list[Place], by: str) -> None:
    """New versions of all, and the invalidation of them `by` tag, key or scope."""
    for place in places:
        member.origin.change(place.number)
    if by == "tag":
        cache.invalidate_tag("all")
        return
    for place in places:
        view = cache.for_user(place.user or "user0")
        if by == "key":
            view.invalidate(place.key, scope=place.scope)
        else:
            view.clear_scope(place.scope)


async def fetch_rounds(member: Member, *, store: str, processes: int, rounds: int, lease: float = 10.0) -> Tally:
    """In each round all processes ask for one key at the same time."""
    tally = member.tally = Tally()
    cache = member.new_cache(store, lease=lease)
    for place in some_places(rounds):
        await member.meet(processes)
        view = cache.for_user(place.user or "user0")
        await asked(member, view, place, {"scope": place.scope, "ttl": 3_600})
    await member.close(cache)
    return tally


async def hold(member: Member, *, store: str, number: int, lease: float) -> None:
    """Begin a fetch, and never end it."""
    cache = member.new_cache(store, lease=lease)
    place = some_places(number + 1)[-1]

    def fetch() -> Result[Any, str]:
        tell("it fetches")
        time.sleep(600.0)
        return Failure("never")

    async def fetch_async() -> Result[Any, str]:
        return fetch()

    view = cache.for_user(place.user or "user0")
    await member.settled(view.get(place.key, fetch_async if member.is_async else fetch, scope=place.scope, ttl=3_600))


async def follow(member: Member, *, store: str, number: int, lease: float) -> dict[str, Any]:
    """Ask twice for what `hold` holds. How long it took for the first time."""
    member.tally = Tally()
    cache = member.new_cache(store, lease=lease)
    place = some_places(number + 1)[-1]
    view = cache.for_user(place.user or "user0")
    options = {"scope": place.scope, "ttl": 3_600}
    began = time.monotonic()
    await asked(member, view, place, options)
    took_s = time.monotonic() - began
    await asked(member, view, place, options)
    await member.close(cache)
    return {"took_s": took_s, "tally": to_builtins(member.tally)}


CURRENT: Final[ContextVar[str]] = ContextVar("current user")
"""Who asks, as a web framework's dependency says it."""


async def serve(member: Member, *, store: str, requests: int) -> Tally:
    """200 users at once, `requests` each, each through a handle for the user of the request."""
    tally = member.tally = Tally()
    cache = member.new_cache(store)

    def of_current_user() -> Any:
        return cache.for_user(CURRENT.get())

    async def endpoint(chance: random.Random) -> None:
        user = CURRENT.get()
        kind = chance.choice(("told", "put", "ahead"))
        key = next(key for key in iter(lambda: key_at(chance.randrange(KEYS)), "") if kind_of(key) == kind)
        place = Place(user if chance.random() < 0.9 else None, key)
        handle = of_current_user()
        match chance.randrange(20):
            case 0:
                handle.end_session()
            case 1:
                handle.invalidate(key, scope=CacheScope.USER)
            case _:
                await asked(member, handle, place, {"scope": place.scope, "ttl": LIFETIMES[kind]})

    async def visit(number: int) -> None:
        """The requests of one user; in a task its context is its own, in a thread of a pool it is set anew."""
        chance = random.Random(f"{member.number}.{number}")
        for _ in range(requests):
            CURRENT.set(f"user{number}")
            try:
                await endpoint(chance)
            except Exception as error:  # noqa: BLE001 (there is to be none)
                tally.strange.append(f"user{number}: {error!r}")
            tally.requests += 1

    for start in range(0, USERS, USERS if member.is_async else 20):
        await member.together([visit(each) for each in range(start, start + (USERS if member.is_async else 20))])
    await member.close(cache)
    return tally


ROLES: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    each.__name__: each for each in (mix, generations, fetch_rounds, hold, follow, serve)
}


def tell(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(number: str, origin: str) -> None:
    logging.getLogger("cachemesh").addHandler(logging.NullHandler())  # A server that is gone is told of.
    member = Member(int(number), Origin(Path(origin)))
    for line in sys.stdin:
        asked_for = json.loads(line)
        acting: Any = ROLES[asked_for.pop("role")](member, **asked_for)
        tell(to_builtins(asyncio.run(acting) if member.is_async else driven(acting)))


if __name__ == "__main__":
    main(*sys.argv[1:])
