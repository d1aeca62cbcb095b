"""`simulate`: a load against a configuration, in virtual time.

It is a shell around the core, as `cachemesh.shell` is one. It owns the time,
hands commands to the reducers and performs the effects on a queue of events.
State is carried in the shell's own tables, in place; entries leave in the
shell's own order. A hit that has nothing to do but to answer does not come to
the reducers here either: until `hit_until`, which the shell and its `verdict`
agree on, the entry answers.

Where a fetch ends at the very instant of a request, it ends first.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count, islice
from math import inf
from typing import TYPE_CHECKING, Any, Final

from cachemesh.core.commands import Evict, FetchFailed, FetchSucceeded, Forget, Get, RetryDue
from cachemesh.core.effects import Join, Remember, Reply, Save, Settle, StartFetch, WaitUntil
from cachemesh.core.policies import FRESH, SERVE
from cachemesh.core.reducer import reduce
from cachemesh.core.scopes import GLOBAL, GLOBAL_OWNER, USER, Owner
from cachemesh.shell.eviction import MAX_VISITS
from cachemesh.shell.runtime import MOST_FAILURES
from cachemesh.shell.tables import LiveState
from cachemesh.simulation.orders import Lru, order_of
from cachemesh.simulation.origin import GOLDEN, MASK, mixed
from cachemesh.simulation.outcome import Histogram, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachemesh.core.commands import Command
    from cachemesh.shell.eviction import Resident
    from cachemesh.simulation.configuration import Configuration
    from cachemesh.simulation.origin import OriginAnswer, OriginModel
    from cachemesh.simulation.request import Request


class OutOfOrder(ValueError):
    """A request is earlier than the one before it."""

    def __init__(self, number: int, at: float, before: float) -> None:
        super().__init__(f"times go backwards: request {number} is at {at}, and the one before it at {before}")


def simulate(
    requests: Iterable[Request],
    origin: OriginModel,
    configuration: Configuration,
    seed: int = 0,
    *,
    warm_up_s: float = 0.0,
) -> Outcome:
    """What `configuration` makes of `requests`, which are in the order of their instants (else `OutOfOrder`).

    The same arguments give the same outcome, bit for bit. Requests are read one
    by one and not kept; memory grows with the number of distinct keys.
    `warm_up_s`: requests within so many seconds of the first one are answered,
    but not counted, and neither is what they ask of the origin.

    >>> from cachemesh.simulation import Configuration, OriginModel, Request
    >>> load = [Request(float(second), "feed") for second in range(120)]
    >>> outcome = simulate(load, OriginModel(), Configuration(ttl_s=60.0))
    >>> outcome.hits, outcome.origin_requests
    (118, 2)
    """
    return _Simulation(origin, configuration, seed).run(requests, warm_up_s, seed)


FAILED: Final = "failed"
"""The answer of a fetch that failed. That of one that did not is the `OriginAnswer` itself."""

DUE: Final = "due"
"""In the place of an answer: the wait before the next attempt is over."""

CHUNK: Final = 4_096
"""So many requests are taken at a time, and what was measured is counted behind them."""


class _Tally:
    """What is counted from an instant on."""

    __slots__ = (
        "ages",
        "evictions",
        "failures",
        "from_",
        "hits",
        "most_entries",
        "most_size",
        "origin_failures",
        "origin_requests",
        "peak",
        "second",
        "stale",
        "staleness",
        "stood_in",
        "this_second",
        "values",
        "waits",
    )

    def __init__(self, from_: float, entries: int, size: int) -> None:
        self.from_ = from_
        self.hits = self.stood_in = self.failures = self.stale = self.values = 0
        self.origin_requests = self.origin_failures = self.evictions = 0
        self.most_entries, self.most_size = entries, size
        self.second, self.this_second, self.peak = -1, 0, 0
        self.waits, self.ages, self.staleness = Histogram(keeps_largest=True), Histogram(), Histogram()

    def count_value(self, value: OriginAnswer, now: float, age_s: float) -> None:
        """Somebody is answered with `value`, which came so long ago."""
        self.values += 1
        if age_s:
            self.ages.pending.append(age_s)
        if now > value.changes_at:
            self.staleness.pending.append(now - value.changes_at)

    def flush(self) -> None:
        self.waits.flush()
        self.ages.flush()
        self.staleness.flush()


class _Simulation:
    """One run."""

    def __init__(self, model: OriginModel, configuration: Configuration, seed: int) -> None:
        self.configuration = configuration
        self.model = model
        self.seed = mixed(seed & MASK)
        self.origin = model.started(seed)
        self.state: Any = LiveState.empty(has_store=False)
        self.order = order_of(configuration.eviction, configuration.capacity)
        self.moves = self.order.visit if isinstance(self.order, Lru) else None
        self.events: list[tuple[float, int, int, Any, int, float]] = []
        """What is to happen: when, as which event, to which flight, with which answer, for a value of which size.

        And how long it took, as the sum of two instants has lost some of that.
        """
        self.numbers = count()
        self.flight_ids = count(1)
        self.waiting: dict[int, list[tuple[float, Join]]] = {}
        """By flight, since when somebody waits, and what would do instead of its answer."""
        self.remembered: deque[tuple[Owner, str]] = deque()
        self.sizes: dict[tuple[Owner, str], int] = {}
        """Of what is held, where it is not 1."""
        self.size_held = 0
        self.remembers_failures = configuration.remembers_failures
        self.began_at = 0.0
        self.tally = _Tally(-inf, 0, 0)
        lifespan, retry = configuration.lifespan, configuration.retry
        self.draws = retry.jitter > 0.0 or (lifespan is not None and lifespan.jitter > 0.0)

    def run(self, requests: Iterable[Request], warm_up_s: float, seed: int) -> Outcome:  # noqa: C901 (every request goes through this loop, so it calls nothing that it need not)
        serves = self.configuration.policy.action(FRESH) is SERVE
        changes = self.model.change_every_s is not None
        moves, find, events = self.moves, self.state.plain.get, self.events
        coming = iter(requests)
        chunk = list(islice(coming, 1))
        if not chunk:
            return Outcome(configuration=self.configuration)
        self.began_at = before = chunk[0].at
        self.origin = self.model.started(seed, self.began_at)
        measured_from = self.began_at + warm_up_s
        due = measured_from  # Of whatever comes before the next request is answered.
        uncounted = asked = hits = 0  # Those asked that are no plain hits.
        while chunk:
            add_age, add_staleness = self.tally.ages.pending.append, self.tally.staleness.pending.append
            for request in chunk:
                at = request.at
                if not at >= before:
                    raise OutOfOrder(uncounted + asked + hits + 1, at, before)
                before = at
                if at >= due:
                    self.catch_up(at)
                    if at >= measured_from:
                        self.tally = tally = _Tally(measured_from, self.state.census.count, self.size_held)
                        add_age, add_staleness = tally.ages.pending.append, tally.staleness.pending.append
                        measured_from, uncounted, asked, hits = inf, asked + hits, 0, 0
                    due = min(measured_from, events[0][0]) if events else measured_from
                if serves:
                    user = request.user
                    resident: Any = find(request.key) if user is None else self.resident((USER, user), request.key)
                    if resident is not None and at < resident.hit_until:
                        if moves is not None:
                            moves(resident)
                        elif resident.visits < MAX_VISITS:
                            resident.visits += 1
                        hits += 1
                        add_age(at - resident.created_at)
                        if changes and at > resident.answer.changes_at:
                            add_staleness(at - resident.answer.changes_at)
                        continue
                asked += 1
                self.ask(request)
                due = min(measured_from, events[0][0]) if events else measured_from
            self.tally.flush()
            chunk = list(islice(coming, CHUNK))
        self.catch_up(inf)
        if measured_from < inf:  # The load was over before its warm-up.
            return Outcome(configuration=self.configuration)
        return self.outcome(asked + hits, hits, before)

    def outcome(self, asked: int, plain_hits: int, until: float) -> Outcome:
        tally = self.tally
        tally.flush()
        values = tally.values + plain_hits
        outdated = tally.staleness.counts.total()
        return Outcome(
            configuration=self.configuration,
            requests=asked,
            hits=tally.hits + plain_hits,
            stood_in=tally.stood_in,
            failures=tally.failures,
            stale=tally.stale,
            outdated=outdated,
            origin_requests=tally.origin_requests,
            origin_failures=tally.origin_failures,
            peak_rate=tally.peak,
            waits=tally.waits.spread(asked - tally.waits.counts.total()),
            ages=tally.ages.spread(values - tally.ages.counts.total()),
            staleness=tally.staleness.spread(values - outdated),
            evictions=tally.evictions,
            most_entries=tally.most_entries,
            most_size=tally.most_size,
            duration_s=until - max(tally.from_, self.began_at),
        )

    # What happens

    def ask(self, request: Request) -> None:
        """Somebody asks, and it is no plain hit."""
        configuration, user, now = self.configuration, request.user, request.at
        command = Get(
            request.key,
            now,
            next(self.flight_ids),
            configuration.policy,
            GLOBAL if user is None else USER,
            user,
            0,
            configuration.ttl_s,
            configuration.retry,
            self.remembers_failures,
            lifespan=configuration.lifespan,
        )
        self.state, ordered = reduce(self.state, command)
        for effect in ordered:
            if type(effect) is StartFetch:
                self.fetch(effect, now, request.size)
            elif type(effect) is Join:
                self.waiting.setdefault(effect.flight_id, []).append((now, effect))
            elif type(effect) is Reply:
                self.reply(effect, now)
            else:  # Refuse
                self.tally.failures += 1

    def reply(self, effect: Reply[Any], now: float) -> None:
        tally = self.tally
        if not effect.hit:
            tally.failures += 1
            return
        resident = self.held(effect.owner, effect.key)
        if self.moves is not None:
            self.moves(resident)
        elif resident.visits < MAX_VISITS:
            resident.visits += 1
        tally.hits += 1
        tally.stale += now >= resident.expires_at
        tally.count_value(effect.answer, now, now - resident.created_at)

    def catch_up(self, until: float) -> None:
        """Whatever happens by then, in its order."""
        events = self.events
        while events and events[0][0] <= until:
            now, _, flight_id, answer, size, latency_s = heappop(events)
            if answer is DUE:
                command: Command[Any] = RetryDue(flight_id)
            elif answer is FAILED:
                self.tally.origin_failures += 1
                failure_ttl_s = self.configuration.failure_ttl_s
                command = FetchFailed(
                    flight_id, FAILED, now, chance=self.chance(flight_id), failure_ttl_s=failure_ttl_s
                )
            else:
                command = FetchSucceeded(flight_id, answer, now, self.chance(flight_id) if self.draws else 0.0)
            self.state, ordered = reduce(self.state, command)
            for effect in ordered:
                if type(effect) is Settle:
                    self.settle(effect, now, latency_s)
                elif type(effect) is Save:
                    self.save(effect, size)
                elif type(effect) is StartFetch:
                    self.fetch(effect, now, size)
                elif type(effect) is WaitUntil:
                    heappush(events, (effect.due_at, next(self.numbers), flight_id, DUE, size, 0.0))
                elif type(effect) is Remember and effect.is_new:
                    self.remember(effect.owner, effect.key)

    def fetch(self, effect: StartFetch, now: float, size: int) -> None:
        """Ask the origin: what it answers comes later."""
        owner, key = effect.owner, effect.key
        answered = self.origin.ask(key if owner is GLOBAL_OWNER else origin_key(owner, key), now)
        tally, second = self.tally, int(now - self.began_at)
        tally.origin_requests += 1
        if second != tally.second:
            tally.second, tally.this_second = second, 0
        tally.this_second += 1
        tally.peak = max(tally.peak, tally.this_second)
        answer = FAILED if answered.fails else answered
        latency_s = answered.latency_s
        heappush(self.events, (now + latency_s, next(self.numbers), effect.flight_id, answer, size, latency_s))

    def settle(self, effect: Settle[Any], now: float, latency_s: float) -> None:
        """A flight is over for those who wait for it. `latency_s`: of its last attempt."""
        tally, answer = self.tally, effect.answer
        for since, join in self.waiting.pop(effect.flight_id, ()):
            if since < tally.from_:
                continue
            tally.waits.pending.append(latency_s if since + latency_s == now else now - since)
            if answer is not FAILED:
                tally.values += 1
                if now > answer.changes_at:
                    tally.staleness.pending.append(now - answer.changes_at)
                continue
            old = effect.fallback if join.falls_back else effect.rescue if join.reads else None
            if old is None:
                tally.failures += 1
                continue
            resident = self.held(effect.owner, effect.key)
            tally.stood_in += 1
            tally.stale += now >= resident.expires_at
            tally.count_value(old, now, now - resident.created_at)

    def save(self, effect: Save[Any], size: int) -> None:
        """An entry was stored: others may have to leave for it."""
        tally, is_new, owner, key = self.tally, effect.is_new, effect.owner, effect.key
        if size != 1 or self.sizes:
            self.size_held -= 0 if is_new else self.sizes.pop((owner, key), 1)
            self.size_held += size
            if size != 1:
                self.sizes[owner, key] = size
        elif is_new:
            self.size_held += 1
        if is_new:
            if self.configuration.capacity is not None:
                for victim in self.order.admit(self.held(owner, key), self.state.census.count):
                    self.evict(victim)
            entries = self.state.census.count
            tally.most_entries = max(tally.most_entries, entries)
        elif self.moves is not None:
            self.moves(self.held(owner, key))
        tally.most_size = max(tally.most_size, self.size_held)

    def evict(self, victim: Resident) -> None:
        owner, key = victim.home.owner, victim.key  # type: ignore[attr-defined]  # a Residents
        self.state, _ = reduce(self.state, Evict(owner, key))
        self.size_held -= self.sizes.pop((owner, key), 1)
        self.tally.evictions += 1

    def remember(self, owner: Owner, key: str) -> None:
        """A failure is remembered, as one of so many at the most."""
        self.remembered.append((owner, key))
        if len(self.remembered) > MOST_FAILURES:
            self.state, _ = reduce(self.state, Forget(*self.remembered.popleft()))

    def resident(self, owner: Owner, key: str) -> Resident | None:
        partition = self.state.partitions.get(owner)
        return None if partition is None else partition.entries.get(key)

    def held(self, owner: Owner, key: str) -> Resident:
        """The same, of what is known to be there."""
        plain: bool = owner is GLOBAL_OWNER
        resident: Resident = (self.state.plain if plain else self.state.partitions[owner].entries).get(key)
        return resident

    def chance(self, flight_id: int) -> float:
        """A number from 0 to 1 for a jitter."""
        return mixed(self.seed + flight_id * GOLDEN) * 2.0**-64


def origin_key(owner: Owner, key: str) -> str:
    r"""What the origin is asked for: each user's value is another one.

    >>> origin_key((USER, "ada"), "feed")
    'feed\x00ada'
    """
    return key if owner[1] is None else f"{key}\0{owner[1]}"
