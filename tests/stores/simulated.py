"""A server, a bad network and several caches within one process: what arrives, and when, is what a test says.

The origin of each key has a version that only grows. Who makes it grow says so
to its cache, and the server then holds nothing older. So there is one rule: a
`get` that begins after its node has heard of version v answers no older one. A
node that lost a message is told so (`NewsKind.LOST`) when its connection is back,
and then counts as having heard of everything, once what it was asked before has
been answered: a gap strikes off no fetch (the store refuses to keep what came too
late), so who comes while one is under way joins it.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace
from returns.result import Result, Success

from cachemesh import Cache
from cachemesh.core.scopes import GLOBAL_OWNER
from cachemesh.shell.ports import Claim, News, NewsKind, StoredEntry
from cachemesh.stores.marks import Marks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cachemesh.core.scopes import Owner

LOST: Final = News(NewsKind.LOST)
KEYS: Final = ("a", "b", "c")
Message = tuple[News, "dict[str, int]"]
"""News, and the versions that were settled when they were sent."""


class Sea:
    """The server, the origin, and the nodes around them."""

    def __init__(self, nodes: int, keys: Sequence[str] = KEYS) -> None:
        self.keys = keys
        self.origin = dict.fromkeys(keys, 1)
        self.settled = dict.fromkeys(keys, 1)
        """The versions that nothing at the server is older than."""
        self.entries: dict[tuple[Owner, str], StoredEntry] = {}
        self.removed: dict[tuple[Owner, str], int] = defaultdict(int)
        self.marks = Marks()
        self.generation = 1
        self.fetches = 0
        self.gated: list[asyncio.Future[None]] = []
        """Replies that have not arrived yet."""
        self.holds_replies = True
        self.nodes = [Node(self) for _ in range(nodes)]

    def draw(self) -> int:
        self.generation += 1
        return self.generation

    def tell(self, sender: SimulatedStore, news: News) -> None:
        for node in self.nodes:
            if node.store is not sender:
                node.inbox.append((news, self.settled.copy()))

    async def replied(self) -> None:
        """Wait for the network to let a reply through."""
        if self.holds_replies:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.gated.append(gate)
            await gate

    def let_through(self, number: int) -> None:
        """One of the replies that are under way arrives, whichever was sent first."""
        self.gated = [gate for gate in self.gated if not gate.done()]
        if self.gated:
            self.gated.pop(number % len(self.gated)).set_result(None)

    def let_all_through(self) -> None:
        self.holds_replies = False
        while self.gated:
            self.let_through(0)

    async def turns(self, count: int = 12) -> None:
        """Let everybody do what can be done."""
        for _ in range(count):
            await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.let_all_through()
        for node in self.nodes:
            node.is_cut_off = False
            await asyncio.gather(*node.asked)
            await node.cache.aclose()


class Node:
    """A process: a cache, and what is on its way to it."""

    def __init__(self, sea: Sea) -> None:
        self.sea = sea
        self.store = SimulatedStore(sea, self)
        self.cache: Cache = Cache(store=self.store)
        self.inbox: list[Message] = []
        self.owes_lost = False
        self.is_cut_off = False
        self.known = dict.fromkeys(sea.keys, 1)
        """The versions that it has heard of."""
        self.asked: list[asyncio.Task[None]] = []
        self.wrong: list[tuple[str, int, int]] = []

    def hear(self, news: News) -> None:
        if self.store.hear is not None:
            self.store.hear(news)

    def _knows(self, versions: dict[str, int]) -> None:
        for key, version in versions.items():
            self.known[key] = max(self.known[key], version)

    def deliver(self, number: int, *, keeps: bool = False) -> None:
        """One of the messages arrives; with `keeps` it will arrive again."""
        if self.inbox and not self.is_cut_off:
            at = number % len(self.inbox)
            news, versions = self.inbox[at] if keeps else self.inbox.pop(at)
            self.hear(news)
            concerned = self.sea.keys if news.key is None else [news.key]
            if news.owner in {None, GLOBAL_OWNER}:
                self._knows({k: versions[k] for k in concerned if news.kind is not NewsKind.MARKED or k == news.tag})

    def lose(self, number: int) -> None:
        """One of the messages does not arrive, as the connection has broken; that will be noticed."""
        if self.inbox:
            self.inbox.pop(number % len(self.inbox))
            self.owes_lost = True

    def notice(self) -> None:
        """The connection is back: what was under way on the old one will not arrive."""
        if not self.is_cut_off:
            self.inbox.clear()
            self.owes_lost = False
            self.hear(LOST)
            under_way = [asked for asked in self.asked if not asked.done()]
            self.asked.append(asyncio.ensure_future(self._knows_after(under_way, self.sea.settled.copy())))

    async def _knows_after(self, under_way: list[asyncio.Task[None]], versions: dict[str, int]) -> None:
        if under_way:
            await asyncio.wait(under_way)
        self._knows(versions)

    def ask(self, key: str) -> None:
        """Begin a `get`."""
        self.asked.append(asyncio.ensure_future(self._ask(key)))

    async def _ask(self, key: str) -> None:
        known = self.known[key]
        got = (await self.get(key)).unwrap()
        if got < known:
            self.wrong.append((key, got, known))

    async def get(self, key: str) -> Result[Any, Any]:
        sea = self.sea

        async def fetch() -> Result[int, str]:
            sea.fetches += 1
            version = sea.origin[key]
            await sea.replied()
            return Success(version)

        return await self.cache.get(key, fetch, ttl=3_600, tags=(key,))

    async def change(self, key: str, how: str) -> None:
        """A new version at the origin, of which the cache is told, and by it the server."""
        sea = self.sea
        keys = sea.keys if how == "clear" else [key]
        for each in keys:
            sea.origin[each] += 1
        if how == "put":
            self.cache.put(key, sea.origin[key], ttl=3_600, tags=(key,))
        elif how == "tag":
            self.cache.invalidate_tag(key)
        elif how == "clear":
            self.cache.clear()
        else:
            self.cache.invalidate(key)
        await self.cache.flush()
        if not self.is_cut_off:
            self._knows({each: sea.settled[each] for each in keys})


class SimulatedStore:
    """A `SharedStore` and `Backplane` on a `Sea`."""

    def __init__(self, sea: Sea, node: Node) -> None:
        self._sea = sea
        self._node = node
        self.hear: Callable[[News], None] | None = None

    def _call(self) -> None:
        if self._node.is_cut_off:
            raise ConnectionError

    def _settle(self, *keys: str) -> None:
        for key in keys or self._sea.keys:
            self._sea.settled[key] = self._sea.origin[key]

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        [found] = await self.read_many([(owner, key)])
        return found

    async def read_many(self, places: Sequence[tuple[Owner, str]], /) -> Sequence[StoredEntry | None]:
        self._call()
        found = [self._now(*place) for place in places]
        await self._sea.replied()
        return found

    def _now(self, owner: Owner, key: str) -> StoredEntry | None:
        entry = self._sea.entries.get((owner, key))
        return None if entry is None else self._sea.marks.applied(entry)

    async def write(self, entry: StoredEntry) -> None:
        self._call()
        place = entry.owner, entry.key
        self._sea.entries[place] = replace(entry, generation=self._sea.draw())
        self._settle(entry.key)
        self._sea.tell(self, News(NewsKind.CHANGED, *place))

    async def delete(self, owner: Owner, key: str) -> None:
        self._call()
        self._sea.removed[owner, key] = self._sea.draw()
        self._sea.entries.pop((owner, key), None)
        if owner == GLOBAL_OWNER:
            self._settle(key)
        self._sea.tell(self, News(NewsKind.CHANGED, owner, key))

    async def clear_partition(self, owner: Owner) -> None:
        self._clear(owner)

    async def clear(self) -> None:
        self._clear(None)

    def _clear(self, owner: Owner | None) -> None:
        self._call()
        self._sea.marks.add((owner, None), self._sea.draw())
        if owner in {None, GLOBAL_OWNER}:
            self._settle()
        self._sea.tell(self, News(NewsKind.CLEARED, owner))

    async def mark_tag(self, owner: Owner | None, tag: str, stale_at: float | None) -> None:
        self._call()
        self._sea.marks.add((owner, tag), self._sea.draw(), stale_at)
        self._settle(tag)
        self._sea.tell(self, News(NewsKind.MARKED, owner, None, tag, stale_at))

    async def keys(self, owner: Owner) -> Collection[str]:
        self._call()
        return [key for each, key in self._sea.entries if each == owner]

    async def claim(self, owner: Owner, key: str, *, waits: bool) -> Claim:
        del waits
        self._call()
        return Claim(owner, key, self._sea.generation)

    async def commit(self, entry: StoredEntry, claim: Claim) -> bool:
        self._call()
        place = claim.owner, claim.key
        there = self._sea.entries.get(place)
        latest = max(self._sea.removed[place], 0 if there is None else there.generation)
        dated = replace(entry, generation=claim.generation)
        if latest > claim.generation or self._sea.marks.applied(dated) is None:
            return False
        self._sea.entries[place] = dated
        self._sea.tell(self, News(NewsKind.CHANGED, *place))
        return True

    async def release(self, claim: Claim) -> None:
        del claim
        self._call()

    async def flush(self) -> None:
        self._call()

    async def aclose(self) -> None:
        """There is nothing to let go of."""

    def listen(self, hear: Callable[[News], None], /) -> Callable[[], None]:
        self.hear = hear

        def end() -> None:
            self.hear = None

        return end


async def until_all_agree(sea: Sea, wait_s: float, *, pumps: bool = False) -> float:
    """Ask every node until it answers the latest of each key; how long that took. `pumps`: messages arrive by then."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        for node in sea.nodes if pumps else []:
            while node.inbox:
                node.deliver(0)
        answers = [(await node.get(key)).unwrap() for node in sea.nodes for key in sea.keys]
        if answers == [*sea.origin.values()] * len(sea.nodes):
            return loop.time() - began
        assert loop.time() - began < wait_s, (answers, sea.origin)
        await asyncio.sleep(0.005)


async def swizzled(seed: int, *, nodes: int, keys: int) -> float:
    """Cut the nodes off one by one while all go on, and let them back in another order; how long until all agree."""
    rng = random.Random(seed)
    sea = Sea(nodes, [f"k{number}" for number in range(keys)])
    sea.holds_replies = False
    try:
        cuts = rng.sample(sea.nodes, rng.randint(1, nodes))
        returns = rng.sample(cuts, len(cuts))
        for node in [*cuts, *returns]:
            for _ in range(rng.randrange(12)):
                other = rng.choice(sea.nodes)
                match rng.randrange(4):
                    case 0:
                        await other.change(rng.choice(sea.keys), rng.choice(["invalidate", "put", "tag", "invalidate"]))
                    case 1:
                        other.deliver(rng.randrange(5), keeps=rng.random() < 0.1)
                    case _:
                        await other.get(rng.choice(sea.keys))
            node.is_cut_off = not node.is_cut_off
            if not node.is_cut_off:
                node.notice()
        for node in sea.nodes:
            while node.inbox:
                node.deliver(0)
        return await until_all_agree(sea, 10.0, pumps=True)
    finally:
        await sea.aclose()
