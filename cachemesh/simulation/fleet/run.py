"""`run_fleet`: many caches, one server and a bad network in one process, all of it said by a seed."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from cachemesh.shell.ports import Encoded
from cachemesh.simulation.fleet.ledger import Ledger, Violation, concerned
from cachemesh.simulation.fleet.network import Link
from cachemesh.simulation.fleet.node import Node
from cachemesh.simulation.fleet.schedule import (
    HEALTHY,
    USERS,
    Faults,
    Step,
    check_fleet,
    check_step,
    drawn,
)
from cachemesh.simulation.fleet.valkey import Valkey
from cachemesh.stores.envelope import opened
from cachemesh.stores.redis import scripts
from cachemesh.stores.redis.layout import HEADER_SIZE
from cachemesh.stores.redis.messages import unpacked
from cachemesh.testing.clock import VirtualClock
from cachemesh.testing.loop import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import News, StoredEntry
    from cachemesh.simulation.fleet.client import Ear, ModelledBus
    from cachemesh.simulation.fleet.ledger import Place
    from cachemesh.stores.redis.orders import Reply

KEYS: Final = ("a", "b", "w0", "w1")
"""Values are put by hand under those with a "w", by the node of that number."""

BEGINNING_S: Final = 1_000_000.0
BEGINNING_TAKES_S: Final = 5.0
LASTING_S: Final = 600.0
"""What lives for so long does not expire during a run. Who finds an expired value of somebody else's may fetch beside
others: there, fetches are not counted."""

QUIET_S: Final = 40.0
"""After the last step: longer than any rest, lease or pause."""

MOST_LAST_ASKS: Final = 4
"""So much each node asks for at the end; in a fleet of more than `FEW_NODES`, it is one thing."""
FEW_NODES: Final = 50


class FleetReport(Struct, frozen=True):
    """What came of a run. `digest`: the same for two runs in which the same was fetched and answered at the same time.

    `virtual_s`: how many seconds have passed for the nodes.
    """

    seed: int
    nodes: int
    faults: Faults
    ttl_s: float
    schedule: tuple[Step, ...]
    violations: tuple[Violation, ...]
    asked: int
    answered: int
    fetched: int
    messages: int
    virtual_s: float
    digest: str

    def __str__(self) -> str:
        """The seed, what is wrong, and the commands that led there."""
        lines = [f"seed {self.seed}, {self.nodes} nodes, {len(self.violations)} violations"]
        lines += [f"  {violation}" for violation in self.violations[:5]]
        return "\n".join((*lines, "commands:", *(f"  {step}" for step in self.schedule)))


def run_fleet(  # noqa: PLR0913 (what a fleet is, by keyword)
    seed: int,
    *,
    nodes: int = 4,
    steps: int = 40,
    faults: Faults | None = None,
    ttl_s: float = 20.0,
    schedule: Sequence[Step] | None = None,
) -> FleetReport:
    """Run a fleet of `nodes` caches through about `steps` steps, and check what they answer.

    Each node is a `Cache` on a `RedisStore`, whole: the real reducers, the real
    line in front of the store, the real protocol. The server, the network, the
    clocks and the origin are models, in virtual time, driven by `seed`: the same
    arguments give the same run, to the last message. `faults`: what may go
    wrong, everything unless said otherwise; `HEALTHY` is nothing. `ttl_s`: of
    all values. `schedule` replays these steps in the place of those that the
    seed draws. Needs the extra `redis`.

    >>> report = run_fleet(7, nodes=3, steps=20)
    >>> report.violations
    ()
    >>> report.answered > 0 and report == run_fleet(7, nodes=3, steps=20)
    True

    ValueError where an argument makes no sense.

    The rules: no cache raises, or fails where the origin did not; nobody is
    answered what belongs to another user; nothing fetched before a removal, of
    which the node knew or was told, is answered after it; nothing is older than
    its lifetime, or than a removal of longer ago than `STATED_CAP_S`, whatever
    news were lost; nobody waits for ever; and with `HEALTHY` and a `ttl_s` that
    outlasts the run (600), a key that has not changed is fetched once by all.

    >>> run_fleet(7, nodes=3, steps=20, faults=HEALTHY, ttl_s=3600.0).violations
    ()
    """
    faults = Faults() if faults is None else faults
    check_fleet(nodes, steps, ttl_s, faults)
    if schedule is None:
        schedule = drawn(seed, nodes, steps, faults, KEYS)
    for step in schedule:
        check_step(step, nodes, KEYS)
    clock = VirtualClock(BEGINNING_S)
    fleet = run(_played(seed, nodes, tuple(schedule), faults, ttl_s), clock=clock)
    ledger = fleet.ledger
    return FleetReport(
        seed=seed,
        nodes=nodes,
        faults=faults,
        ttl_s=ttl_s,
        schedule=tuple(schedule),
        violations=tuple(ledger.violations),
        asked=ledger.asked,
        answered=ledger.answered,
        fetched=ledger.fetched,
        messages=fleet.messages,
        virtual_s=round(clock() - BEGINNING_S, 6),
        digest=ledger.digest,
    )


async def _played(seed: int, nodes: int, schedule: tuple[Step, ...], faults: Faults, ttl_s: float) -> Fleet:
    fleet = Fleet(seed, nodes, faults, ttl_s)
    try:
        await fleet.begin()
        for step in schedule:
            if step.after_s:
                await asyncio.sleep(step.after_s)
            fleet.act(step)
        await fleet.come_to_rest()
    finally:
        await fleet.aclose()
    return fleet


class Fleet:
    """The nodes, the server, and what is between them."""

    def __init__(self, seed: int, nodes: int, faults: Faults, ttl_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._seed = seed
        self._faults = faults
        self._ttl_s = ttl_s
        self._chance = random.Random(f"fleet:{seed}")  # noqa: S311 (no secret: a run is to be repeated)
        places: list[Place] = [(user, key) for user in (None, *USERS) for key in KEYS]
        is_healthy = faults == HEALTHY
        self.ledger = Ledger(self._loop.time, places, ttl_s, faults.skew, is_healthy=is_healthy)
        self.server = ObservedValkey(self)
        self.ears: dict[ModelledBus, Ear] = {}
        self.messages = 0
        self._cuts: list[set[str]] = [set() for _ in range(nodes)]
        self._starts = [0] * nodes
        self._of_bus: dict[ModelledBus, Node] = {}
        self._ending: list[asyncio.Task[None]] = []
        self.nodes: list[Node | None] = [None] * nodes
        for number in range(nodes):
            self._start(number)

    def _start(self, number: int) -> None:
        self._starts[number] += 1
        name = f"{self._seed}:{number}:{self._starts[number]}"
        link = Link(name, self._loop, self.server, self._faults, self._cuts[number])
        skew_s = link.chance.uniform(-self._faults.skew, self._faults.skew)
        node = Node(
            number,
            link,
            self.ledger,
            self.ears,
            skew_s=skew_s,
            ttl_s=self._ttl_s,
            origin_fails=self._faults.origin_fails,
        )
        # It has nothing from before, but what the server has.
        node.knows(self.ledger.settled)
        self.nodes[number] = node
        self._of_bus[node.store.bus] = node

    def _kill(self, number: int) -> None:
        node, self.nodes[number] = self.nodes[number], None
        if node is not None:
            self._of_bus.pop(node.store.bus)
            node.link.is_dead = True
            self._ending.append(asyncio.ensure_future(node.aclose()))

    async def begin(self) -> None:
        """Let all who are to be healthy hear of each other first: who has just subscribed believes nothing."""
        if self.ledger.is_healthy:
            for node in self.nodes:
                assert node is not None
                node.ask((None, KEYS[0]))
            await asyncio.sleep(BEGINNING_TAKES_S)
            if self._ttl_s >= LASTING_S:
                self.ledger.begin_to_count()

    # Steps

    def act(self, step: Step) -> None:
        """Perform one step. What cannot be done, as with a node that is dead, is not done."""
        self.ledger.note("step", step)
        node = self.nodes[step.node]
        match step.what:
            case "stop_server":
                self.server.stop()
                for ear in list(self.ears.values()):
                    ear.break_off(is_felt=not ear.bus.link.cuts)
            case "start_server":
                if not self.server.is_up:
                    self.server.start(keeps_data=step.detail != "empty")
            case "cut":
                self._cut(step.node, step.detail)
            case "mend":
                self._cuts[step.node].clear()
            case "start" if node is None:
                self._start(step.node)
            case "kill":
                self._kill(step.node)
            case _ if node is not None:
                act(node, step)

    def _cut(self, number: int, detail: str) -> None:
        self._cuts[number].update(("requests", "replies", "news") if detail == "all" else (detail,))
        node = self.nodes[number]
        ear = None if node is None else self.ears.get(node.store.bus)
        if ear is not None and "news" in self._cuts[number]:
            ear.break_off(is_felt=False)

    async def come_to_rest(self) -> None:
        """All is mended; what is under way arrives, and everybody asks once more."""
        if not self.server.is_up:
            self.server.start(keeps_data=True)
        for number, cuts in enumerate(self._cuts):
            cuts.clear()
            if self.nodes[number] is None:
                self._start(number)
        await asyncio.sleep(QUIET_S)
        nodes = [node for node in self.nodes if node is not None]
        places = list(self.ledger.origin)
        count = MOST_LAST_ASKS if len(nodes) <= FEW_NODES else 1
        for node in nodes:
            for place in self._chance.sample(places, count):
                node.ask(place)
        await self._answers(nodes)

    async def _answers(self, nodes: Iterable[Node]) -> None:
        asked = [task for node in nodes for task in node.asked]
        if asked:
            await asyncio.gather(*asked)

    async def aclose(self) -> None:
        """End all that lives."""
        for number in range(len(self.nodes)):
            self._kill(number)
        await asyncio.gather(*self._ending)

    # News

    def publish(self, channel: bytes, message: bytes) -> None:
        """Hand a message to all who have subscribed."""
        del channel
        sender, news = news_in(message)
        settled = self.ledger.settled
        versions = {place: settled[place] for place in concerned(news, settled)}
        for ear in list(self.ears.values()):
            if ear.is_dead:
                continue
            link = ear.bus.link
            if "news" in link.cuts or link.loses():
                ear.break_off(is_felt=False)
                continue
            self.messages += 1
            link.later(self._deliver, ear, message, sender, versions)
            if link.doubles():
                link.later(self._deliver, ear, message, sender, versions)

    def _deliver(self, ear: Ear, message: bytes, sender: bytes, versions: dict[Place, int]) -> None:
        node = self._of_bus.get(ear.bus)
        if node is not None and self.ears.get(ear.bus) is ear and ear.bus.hear(message, sender):
            node.knows(versions)


class ObservedValkey(Valkey):
    """The server, whose removals and writes are put down in the books."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(asyncio.get_running_loop().time, fleet.publish)
        self._fleet = fleet
        self._gone: dict[tuple[Owner | None, str], int] = {}
        """What has been cleared, by owner and tag, and the generation that began with it."""

    def execute(self, args: Sequence[bytes]) -> Reply:
        """Perform a command. What a removal settles is settled before others hear of it."""
        ledger = self._fleet.ledger
        if args[1] in REMOVALS:
            ledger.removed(news_in(args[-1])[1])
        reply = super().execute(args)
        if args[1] == scripts.MARK.digest and isinstance(reply, list):
            _, news = news_in(args[-1])
            self._gone[news.owner, news.tag] = int(reply[1])
        elif args[1] == scripts.PUT.digest and reply == 1:
            ledger.settle(*version_in(opened_record(args[5])))
        elif args[1] == scripts.COMMIT.digest and reply == 1:
            entry = opened_record(args[8])
            if not self._is_gone(entry):
                ledger.stored(int(news_in(args[-1])[0]), *version_in(entry))
        return reply

    def start(self, *, keeps_data: bool) -> None:
        """Come back; who has forgotten everything counts from the beginning."""
        super().start(keeps_data=keeps_data)
        if not keeps_data:
            self._gone.clear()

    def _is_gone(self, entry: StoredEntry) -> bool:
        """Whether all who read `entry` know that it has been cleared: a mark takes from the server no entry itself."""
        places = [(owner, tag) for owner in (None, entry.owner) for tag in ("", *entry.tags)]
        return any(self._gone.get(place, 0) > entry.generation for place in places)


def news_in(message: bytes) -> tuple[bytes, News]:
    """Who sent it, and what it tells."""
    told = unpacked(message)
    assert told is not None
    return told


def opened_record(record: bytes) -> StoredEntry:
    """The entry in what a node sends to the server."""
    return opened(record[HEADER_SIZE:], NAMESPACE, None)


def version_in(entry: StoredEntry) -> tuple[Place, int]:
    """Of what it is, and which version."""
    assert isinstance(entry.value, Encoded)
    user, key, version, _ = msgspec.json.decode(entry.value.payload)
    return (user, key), version


NAMESPACE: Final = "cachemesh"
"""That of a store which was not told otherwise."""

REMOVALS: Final = frozenset({scripts.DELETE.digest, scripts.MARK.digest})


def act(node: Node, step: Step) -> None:
    """What a living node is to do."""
    user = step.user
    match step.what:
        case "ask":
            node.ask((user, step.key))
        case "ask_active":
            node.ask((user, step.key), is_active=True)
        case "switch":
            node.switch(user)
        case "invalidate" | "tag" | "put" | "clear":
            node.change(step.what, (user, step.key))
        case what:
            assert what == "start", what
