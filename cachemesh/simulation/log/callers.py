"""Who asked, who waits for what, and how each was answered: read off the effects of the commands."""

from __future__ import annotations

from enum import StrEnum
from sys import intern
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from cachemesh.core.commands import Get, Refresh
from cachemesh.core.effects import Abort, AskAgain, Join, Load, Refuse, Reply, Save, Settle, StartFetch
from cachemesh.core.explain import Ending, Explanation, explain
from cachemesh.core.policies import AGEING, FRESH
from cachemesh.core.scopes import Owner, owner_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.core.effects import Effects
    from cachemesh.core.model import State


class AnswerKind(StrEnum):
    """How a caller was answered."""

    HIT = "hit"
    """With a fresh value from the cache."""
    STALE = "stale"
    """With a value from the cache that was not fresh, or in place of a fetch that failed or took too long."""
    FETCHED = "fetched"
    """With what a fetch brought: its own, or one that it joined."""
    FAILED = "failed"
    """With a failure: of the fetch, a remembered one, or a refusal."""
    LEFT = "left"
    """Not at all: it was cancelled."""
    WAITING = "waiting"
    """Not yet."""


class Answered(Struct, frozen=True):
    """One call of a caller's, and how it ended.

    `at`: when it was asked, in seconds since the log began. `ask`: its number.
    `user`: the hash of the user whose entry it is. `waited_s`: None while it
    waits, and where the log does not say. `age_s`: of a value that was cached.
    `joined`: it waited for somebody else's fetch. `why`: the rows that decided.
    """

    at: float
    ask: int
    key: str
    scope: str
    user: str | None
    kind: AnswerKind
    why: str
    waited_s: float | None = None
    age_s: float | None = None
    joined: bool = False


class Caller:
    """One who asks: mutable, until it is answered."""

    __slots__ = ("answered", "asked_at", "falls_back", "is_final", "leads", "reads")

    def __init__(self, answered: Answered, asked_at: float) -> None:
        self.answered = answered
        self.asked_at = asked_at
        self.leads = self.falls_back = self.reads = False
        self.is_final = False


class Callers:
    """All who have asked. `asks_again`: told of a caller who is to ask anew, and of whom it waited for."""

    def __init__(self, asks_again: Callable[[int, Any], None] | None = None) -> None:
        self.all: list[Caller] = []
        self._by_ask: dict[int, Caller] = {}
        self._waiting: dict[int, list[tuple[Caller, Any]]] = {}
        self._asks_again = asks_again

    def asks(
        self, state: State[Any], command: Get | Refresh, now: float, began_at: float, before: int | None
    ) -> tuple[Caller, Explanation | None]:
        """`command` is about to be put to `state`. `before`: the ask that it goes on with."""
        explanation = explain(state, command) if isinstance(command, Get) else None
        why = f"refresh ({command.source})" if isinstance(command, Refresh) else ""
        if explanation is not None:
            why = explanation.why
        caller = None if before is None else self._by_ask.get(before)
        if caller is None:
            caller = self._new(state, command, now, now - began_at, why)
        else:
            caller.answered = replace(caller.answered, why=f"{caller.answered.why}; {why}")
        self._by_ask[command.flight_id] = caller
        return caller, explanation

    def _new(self, state: State[Any], command: Get | Refresh, now: float, at: float, why: str) -> Caller:
        owner: Owner | None = owner_of(command.scope, state.active_user, command.viewer)
        user = None if owner is None else owner[1]
        key, why = intern(command.key), intern(why)  # Millions of asks say the same.
        answered = Answered(at, command.flight_id, key, command.scope.value, user, AnswerKind.WAITING, why)
        caller = Caller(answered, now)
        self.all.append(caller)
        return caller

    def takes_word(self, state: State[Any], command: Get | Refresh, kind: AnswerKind, now: float, at: float) -> None:
        """An ask was answered at once, so says the log, from something that it has lost the beginning of."""
        self._settle(self._new(state, command, now, at, "the log has lost what this was answered from"), kind, now)

    def answer_now(
        self, caller: Caller, command: Get | Refresh, explanation: Explanation | None, ordered: Effects[Any], now: float
    ) -> None:
        """What the effects of an ask say to the one who asked."""
        for effect in ordered:
            if isinstance(effect, Reply):
                kind, age_s = AnswerKind.FAILED, None
                if effect.hit and explanation is not None:
                    is_hit = explanation.freshness in FRESH_ENOUGH and explanation.ending is not Ending.STAND_IN
                    kind = AnswerKind.HIT if is_hit else AnswerKind.STALE
                    age_s = explanation.age_s
                self._settle(caller, kind, now, age_s)
            elif isinstance(effect, Refuse):
                self._settle(caller, AnswerKind.FAILED, now)
            elif isinstance(effect, Join):
                caller.falls_back, caller.reads = effect.falls_back, effect.reads
                caller.leads = any(isinstance(each, StartFetch | Load) for each in ordered)
                self._waiting.setdefault(effect.flight_id, []).append((caller, command))

    def follow(self, ordered: Effects[Any], now: float) -> None:
        """What the effects of any command say to those who wait."""
        for effect in ordered:
            if isinstance(effect, Settle):
                self._follow_settle(effect, now)
            elif isinstance(effect, AskAgain):
                for caller, command in self._waiting.pop(effect.flight_id, ()):
                    self._again(caller, command)
            elif isinstance(effect, Abort):
                for caller, _ in self._waiting.pop(effect.flight_id, ()):
                    self._settle(caller, AnswerKind.FAILED, now)

    def _follow_settle(self, effect: Settle[Any], now: float) -> None:
        is_success = effect.answer.is_success
        for caller, command in self._waiting.pop(effect.flight_id, ()):
            if is_success and effect.asks_again_after and not caller.leads:
                self._again(caller, command)
                continue
            old = effect.fallback if caller.falls_back else effect.rescue if caller.reads else None
            kind = AnswerKind.FETCHED
            if not is_success:
                kind = AnswerKind.FAILED if old is None else AnswerKind.STALE
                if not caller.is_final:
                    failed = "the fetch failed" if old is None else "the fetch failed, an old value stands in"
                    caller.answered = replace(caller.answered, why=f"{caller.answered.why}; {failed}")
            self._settle(caller, kind, now, joined=not caller.leads)

    def _again(self, caller: Caller, command: Any) -> None:  # noqa: ANN401 (a Get or a Refresh)
        if self._asks_again is not None and not caller.is_final:
            self._asks_again(caller.answered.ask, command)

    def told(self, ask: int, how: str, now: float) -> None:
        """A caller did not wait for its flight, whatever became of that: the first such word counts."""
        caller = self._by_ask.get(ask)
        if caller is None or caller.is_final:
            return
        self._settle(caller, EARLY.get(how, AnswerKind.FAILED), now)
        caller.is_final = True

    @staticmethod
    def _settle(
        caller: Caller, kind: AnswerKind, now: float, age_s: float | None = None, *, joined: bool = False
    ) -> None:
        if not caller.is_final:
            caller.answered = replace(
                caller.answered,
                kind=kind,
                waited_s=max(0.0, now - caller.asked_at),
                age_s=age_s,
                joined=joined,
            )


FRESH_ENOUGH: Final = frozenset({FRESH, AGEING})

EARLY: Final = {"old": AnswerKind.STALE, "failed": AnswerKind.FAILED, "left": AnswerKind.LEFT}


class Totals(Struct, frozen=True):
    """Counts over a log. `fetches`: calls of the origin, retries among them. `served`: the share that needed none."""

    asks: int = 0
    hit: int = 0
    stale: int = 0
    fetched: int = 0
    failed: int = 0
    left: int = 0
    waiting: int = 0
    fetches: int = 0
    loads: int = 0
    saves: int = 0
    evictions: int = 0

    @property
    def served(self) -> float:
        """The share of asks that were answered from memory, fresh or stale."""
        return (self.hit + self.stale) / self.asks if self.asks else 0.0


class Tally:
    """Counts effects as they come."""

    def __init__(self) -> None:
        self.fetches = self.loads = self.saves = self.evictions = 0

    def count(self, ordered: Effects[Any]) -> None:
        for effect in ordered:
            self.fetches += isinstance(effect, StartFetch)
            self.loads += isinstance(effect, Load)
            self.saves += isinstance(effect, Save)

    def totals(self, answers: tuple[Answered, ...]) -> Totals:
        kinds = dict.fromkeys((kind.value for kind in AnswerKind), 0)
        for answer in answers:
            kinds[answer.kind.value] += 1
        return Totals(
            len(answers),
            **kinds,
            fetches=self.fetches,
            loads=self.loads,
            saves=self.saves,
            evictions=self.evictions,
        )
