"""`WhatIf`: the asks of a log, under another configuration.

What is kept, and what is modelled, decides how far the answer may be trusted.
Kept: each ask with its instant and its options, each order of the program
(invalidations, writes by hand, tags, sign-ins), and what other processes did.
Modelled: everything that follows from these. A fetch that is begun takes as
long, and ends in the same way, as that recorded fetch of its key which began
nearest to it; where its key was never fetched, as the nearest one of any key.
Retries wait as their rule says.

Left out: a store (each miss is a fetch, also one that the store would have
answered), the timeouts of callers, callers that were cancelled, and which ask
was made inside whose fetch. So the recorded asks are modelled as they are as
well: how far that is from what was recorded is the error of the model. And an
ask that followed from an answer (a program that asks again after a failure) is
kept, whatever the answer would have been.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from heapq import heappop, heappush
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from cachemesh.core import commands
from cachemesh.core.commands import FetchFailed, FetchSucceeded, Get, Refresh
from cachemesh.core.effects import Admit, Save, StartFetch, WaitUntil
from cachemesh.core.model import Lifespan, State
from cachemesh.core.policies import BUILT_IN, CachePolicy
from cachemesh.core.reducer import reduce
from cachemesh.shell.eviction import MAX_VISITS, S3Fifo
from cachemesh.shell.recording import Ended, Follows, Kept, Noted
from cachemesh.shell.tables import LiveState
from cachemesh.simulation.log.callers import Callers, Tally
from cachemesh.simulation.log.fold import Fold, Replay, with_expected, without_keys
from cachemesh.simulation.orders import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cachemesh.core.effects import Effects
    from cachemesh.core.scopes import Owner
    from cachemesh.simulation.log.reader import LogReader


class WhatIf(Struct, frozen=True):
    """What is to be different; None leaves it as it was recorded. Durations are seconds.

    `policy`, `ttl_s` and the windows are those of every ask, whatever its
    caller gave; an answer that names a ttl of its own keeps it. `capacity`: of
    how many entries the memory has room.

    >>> WhatIf.parse("ttl=30s,policy=network_first").ttl_s
    30.0
    """

    policy: CachePolicy | None = None
    ttl_s: float | None = None
    serve_stale_s: float | None = None
    stale_if_error_s: float | None = None
    refresh_ahead: float | None = None
    capacity: int | None = None

    @classmethod
    def parse(cls, text: str) -> WhatIf:
        """What `--what-if` says. ValueError, of one line, where it says nothing that is known."""
        found: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = (each.strip() for each in part.partition("="))
            if not equals or name not in READING:
                msg = f"what-if takes {', '.join(READING)}; as in ttl=30s,policy=network_first"
                raise ValueError(msg)
            field, read = READING[name]
            if field in found:
                msg = f"{name} is given twice"
                raise ValueError(msg)
            found[field] = read(name, value)
        return cls(**found)

    def of(self, command: Get | Refresh) -> Get | Refresh:
        """`command` as its caller would have asked it."""
        changes: dict[str, Any] = {"within": ()}
        if self.policy is not None and isinstance(command, Get):
            changes["policy"] = self.policy
        if self.ttl_s is not None:
            changes["ttl_s"] = self.ttl_s
        windows = {
            name: value
            for name in ("serve_stale_s", "stale_if_error_s", "refresh_ahead")
            if (value := getattr(self, name)) is not None
        }
        if windows:
            changes["lifespan"] = replace(command.lifespan or Lifespan(), **windows)
        return replace(command, **changes)


def _policy(name: str, value: str) -> CachePolicy:
    del name
    for policy in BUILT_IN:
        if policy.name == value:
            return policy
    msg = f"policy is one of {', '.join(policy.name for policy in BUILT_IN)}"
    raise ValueError(msg)


UNITS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}


def _seconds(name: str, value: str) -> float:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)", value)
    if found is None or found[2] not in UNITS or not isfinite(float(found[1])):
        msg = f"{name} is a duration, such as 500ms, 30s, 5min, 2h or 1d"
        raise ValueError(msg)
    return float(found[1]) * UNITS[found[2]]


def _share(name: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0.0 < share <= 1.0:
        msg = f"{name} is a share of the ttl, above 0 and at most 1"
        raise ValueError(msg)
    return share


def _count(name: str, value: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", value):
        msg = f"{name} is a number of entries, from 1 on"
        raise ValueError(msg)
    return int(value)


READING: Final = {
    "policy": ("policy", _policy),
    "ttl": ("ttl_s", _seconds),
    "serve_stale": ("serve_stale_s", _seconds),
    "stale_if_error": ("stale_if_error_s", _seconds),
    "refresh_ahead": ("refresh_ahead", _share),
    "capacity": ("capacity", _count),
}
"""What `--what-if` takes, and what it is here."""

NO_CHANGE: Final = WhatIf()


class Attempt(Struct, frozen=True):
    """A fetch as it was recorded: how long it took, and what it ended with."""

    began_at: float
    took_s: float
    outcome: FetchSucceeded[Any] | FetchFailed[Any]


class Attempts:
    """The recorded fetches, by key and in all, in the order in which they began."""

    def __init__(self, found: Iterable[tuple[tuple[Owner, str], Attempt]]) -> None:
        self._all: list[Attempt] = []
        self._by_key: dict[tuple[Owner, str], list[Attempt]] = {}
        for place, attempt in sorted(found, key=lambda each: each[1].began_at):
            self._all.append(attempt)
            self._by_key.setdefault(place, []).append(attempt)

    def nearest(self, place: tuple[Owner, str], at: float) -> Attempt:
        """The one that began nearest to `at`: of this key, or of any. Without any, a success that takes no time."""
        known = self._by_key.get(place) or self._all
        if not known:
            return Attempt(at, 0.0, FetchSucceeded(0, Kept(True, "unknown"), at))  # noqa: FBT003 (its name is there)
        behind = bisect_left(known, at, key=lambda each: each.began_at)
        around = known[max(0, behind - 1) : behind + 1]
        return min(around, key=lambda each: abs(each.began_at - at))


class AttemptWatch:
    """Finds the fetches of a log while it is folded."""

    def __init__(self) -> None:
        self.found: list[tuple[tuple[Owner, str], Attempt]] = []
        self._under_way: dict[int, tuple[tuple[Owner, str], float]] = {}
        self._due_at: dict[int, float] = {}

    def see(self, command: object, ordered: Effects[Any], now: float) -> None:
        """`command` had these effects."""
        outcome = outcome_of(command)
        begun = None if outcome is None else self._under_way.pop(outcome.flight_id, None)
        if outcome is not None and begun is not None:
            place, began_at = begun
            self.found.append((place, Attempt(began_at, max(0.0, outcome.now - began_at), outcome)))
        for effect in ordered:
            if isinstance(effect, WaitUntil):
                self._due_at[effect.flight_id] = effect.due_at
            elif isinstance(effect, StartFetch):
                # The end of a wait bears no instant of its own.
                began_at = max(now, self._due_at.pop(effect.flight_id, now))
                self._under_way[effect.flight_id] = (effect.owner, effect.key), began_at


def outcome_of(command: object) -> FetchSucceeded[Any] | FetchFailed[Any] | None:
    """What a fetch ended with, where `command` says so."""
    if isinstance(command, FetchSucceeded | FetchFailed):
        return command
    if isinstance(command, commands.Overdue):
        return FetchFailed(command.flight_id, command.answer, command.now, retryable=False)
    if isinstance(command, commands.FoundElsewhere):
        return FetchSucceeded(command.flight_id, command.entry.answer, command.now)
    return None


ID_SPACE: Final = 1 << 20
"""Between two ids of the log is room for so many of the model's own: ids are also the order of what they name."""

MODELLED: Final = (
    FetchSucceeded,
    FetchFailed,
    commands.RetryDue,
    commands.FetchAborted,
    commands.Abandoned,
    commands.WaitedLong,
    commands.GaveUp,
    commands.Overdue,
    commands.StoppedWaiting,
    commands.Loaded,
    commands.FoundElsewhere,
    commands.Evict,
    commands.Forget,
)
"""What follows from asks and orders: the model has its own."""


def modelled(reader: LogReader, what_if: WhatIf, *, at: float | None = None) -> Replay:
    """The asks of a log under `what_if`."""
    fold, watch = Fold(reader), AttemptWatch()
    kept: list[tuple[float, Noted]] = []
    follows: set[int] = set()
    recorded: Replay | None = None
    until = inf
    for line in reader:
        if recorded is None and fold.is_past(line, at):  # What follows says how long fetches take, and how they end.
            recorded, until = fold.result(), fold.now
        if isinstance(line, Follows):
            follows.add(line.ask)
        ordered = fold.step(line)
        if isinstance(line, Ended):
            break
        if isinstance(line, Noted):
            watch.see(line.command, ordered, fold.now)
            is_again = isinstance(line.command, Get | Refresh) and line.command.flight_id in follows
            if recorded is None and not is_again and not isinstance(line.command, MODELLED):
                kept.append((fold.now, line))
    recorded = fold.result() if recorded is None else recorded
    capacity = reader.header.max_entries if what_if.capacity is None else what_if.capacity
    model = Model(Attempts(watch.found), what_if, capacity, recorded.began_at)
    for now, line in kept:
        model.run_until(now)
        model.take(line, now)
    model.run_until(until)
    answers = tuple(caller.answered for caller in model.callers.all)
    return replace(
        recorded,
        state=model.state,
        answers=answers,
        totals=model.tally.totals(answers),
        lasted_s=max(recorded.lasted_s, model.now - recorded.began_at),
        unknown=0,
        differences=0,
    )


class Model:
    """A cache in virtual time: the reducer, the eviction of the shell, and the recorded fetches for an origin."""

    def __init__(self, attempts: Attempts, what_if: WhatIf, capacity: int | None, began_at: float) -> None:
        self.state: State[Any] = LiveState.empty(has_store=False, max_entries=capacity)
        self.callers = Callers(self._ask_again)
        self.tally = Tally()
        self.now = began_at
        self._attempts = attempts
        self._what_if = what_if
        self._capacity = capacity
        self._order = S3Fifo(capacity, fingerprint)
        self._began_at = began_at
        self._due: list[tuple[float, int, commands.Command[Any]]] = []
        self._number = 0
        self._last_id = 0
        self._again: list[tuple[int, Any]] = []

    def run_until(self, instant: float) -> None:
        """Let everything happen that is due by then."""
        while self._due and self._due[0][0] <= instant:
            due_at, _, command = heappop(self._due)
            self.now = max(self.now, due_at)
            self._happens(command)

    def take(self, line: Noted, now: float) -> None:
        """Put an ask or an order of the log to the cache."""
        self.now = max(self.now, now)
        command = with_wide_ids(line.command)
        self._last_id = max(self._last_id, getattr(command, "flight_id", 0), getattr(command, "stamp", 0))
        if isinstance(command, Get | Refresh):
            self._asks(replace(self._what_if.of(command), now=self.now), None)
        elif isinstance(command, commands.InvalidatePrefix) and line.keys is not None:
            self.state, _ = without_keys(self.state, command, line.keys)
        elif isinstance(command, commands.Update):
            self._happens(with_expected(self.state, command, changed=line.was == "refused:changed"))
        else:
            self._happens(command)

    def _asks(self, command: Get | Refresh, before: int | None) -> None:
        caller, explanation = self.callers.asks(self.state, command, self.now, self._began_at, before)
        self.state, ordered = reduce(self.state, command)
        self.callers.answer_now(caller, command, explanation, ordered, self.now)
        if explanation is not None and explanation.owner is not None:
            partition = self.state.partitions.get(explanation.owner)
            resident: Any = None if partition is None else partition.entries.get(command.key)
            if resident is not None and caller.answered.kind in {"hit", "stale"}:
                resident.visits = min(MAX_VISITS, resident.visits + 1)
        self._perform(ordered)

    def _happens(self, command: commands.Command[Any]) -> None:
        self.state, ordered = reduce(self.state, command)
        self._perform(ordered)
        self.callers.follow(ordered, self.now)
        again, self._again = self._again, []
        for ask, asked in again:
            self._last_id += 1
            self._asks(replace(asked, flight_id=self._last_id, now=self.now), ask)

    def _ask_again(self, ask: int, command: Any) -> None:  # noqa: ANN401 (a Get or a Refresh)
        self._again.append((ask, command))

    def _perform(self, ordered: Effects[Any]) -> None:
        self.tally.count(ordered)
        for effect in ordered:
            if isinstance(effect, StartFetch):
                attempt = self._attempts.nearest((effect.owner, effect.key), self.now)
                due_at = self.now + attempt.took_s
                self._at(due_at, replace(attempt.outcome, flight_id=effect.flight_id, now=due_at))
            elif isinstance(effect, WaitUntil):
                self._at(effect.due_at, commands.RetryDue(effect.flight_id))
            elif isinstance(effect, Save | Admit) and effect.is_new and self._capacity is not None:
                self._make_room(effect.owner, effect.key)

    def _make_room(self, owner: Owner, key: str) -> None:
        partition = self.state.partitions.get(owner)
        resident: Any = None if partition is None else partition.entries.get(key)
        if resident is None:
            return
        assert isinstance(self.state, LiveState)
        for victim in self._order.admit(resident, self.state.census.count):
            home: Any = victim.home
            self.state, _ = reduce(self.state, commands.Evict(home.owner, victim.key))
            self.tally.evictions += 1

    def _at(self, instant: float, command: commands.Command[Any]) -> None:
        self._number += 1
        heappush(self._due, (instant, self._number, command))


def with_wide_ids(command: Any) -> Any:  # noqa: ANN401 (a command)
    """`command` with room after its id."""
    for name in ("flight_id", "stamp"):
        if hasattr(command, name):
            return replace(command, **{name: getattr(command, name) * ID_SPACE})
    return command
