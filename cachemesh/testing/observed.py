"""What can be seen of a history from outside: what each caller was given, how old it was, and whose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from cachemesh.core.commands import Abandoned, FetchSucceeded, Get, Put, Refresh
from cachemesh.core.effects import Abort, AskAgain, CancelFetch, Join, Refuse, Reply, Settle
from cachemesh.core.scopes import Owner, owner_of
from cachemesh.testing.strategies import Moment, Stamp

if TYPE_CHECKING:
    from collections.abc import Iterator


class Given(Struct, frozen=True):
    """What a caller was given, who had asked for `key` of `owner` at the instant `asked_at`.

    `answer`: whose it is and what brought it; None where the caller was refused
    or its fetch was cancelled. `age_s`: seconds since the origin answered it (or
    somebody wrote it); None for a failure.
    """

    key: str
    owner: Owner | None
    asked_at: float
    at: float
    answer: Stamp | None = None
    age_s: float | None = None


class Observed(Struct, frozen=True):
    """One step: what happened (`moment`), when, and what callers were `given`. `earlier`: the steps before it."""

    moment: Moment
    at: float
    given: tuple[Given, ...]
    earlier: Sequence[Observed] = ()

    def __repr__(self) -> str:
        return f"Observed({type(self.moment.command).__name__} at {self.at} s, given {self.given})"


class _Waiter(Struct, frozen=True):
    asked: Get | Refresh
    owner: Owner | None
    at: float
    falls_back: bool
    reads: bool


class Observer:
    """Stands beside a history, and is shown its moments one by one.

    >>> from cachemesh.core import FetchSucceeded, Get
    >>> from cachemesh.testing.strategies import Happening, play
    >>> observer = Observer()
    >>> ask = Happening(Get("feed", 0.0, 0))
    >>> for moment in play([ask, Happening(FetchSucceeded(0, None, 0.0)), ask]):
    ...     print([(given.key, given.age_s) for given in observer.saw(moment, at=5.0).given])
    []
    [('feed', 0.0)]
    [('feed', 0.0)]
    """

    def __init__(self) -> None:
        self._made_at: dict[int, float] = {}
        self._waiting: dict[int, list[_Waiter]] = {}
        self._seen: list[Observed] = []

    def saw(self, moment: Moment, at: float) -> Observed:
        """What there is to be seen in `moment`, at the instant `at`."""
        command = moment.command
        if isinstance(command, FetchSucceeded):
            self._made_at.setdefault(command.flight_id, at)
        elif isinstance(command, Put):
            self._made_at[command.stamp] = at
        elif isinstance(command, Abandoned):
            self._waiting.pop(command.flight_id, None)
        observed = Observed(moment, at, tuple(self._given(moment, at)), tuple(self._seen))
        self._seen.append(observed)
        return observed

    def _given(self, moment: Moment, at: float) -> Iterator[Given]:
        command = moment.command
        if isinstance(command, Get | Refresh):
            owner = owner_of(command.scope, moment.before.active_user, command.viewer)
            for effect in moment.effects:
                if isinstance(effect, Join):
                    waiter = _Waiter(command, owner, at, effect.falls_back, effect.reads)
                    self._waiting.setdefault(effect.flight_id, []).append(waiter)
                elif isinstance(effect, Reply | Refuse):
                    answer = effect.answer if isinstance(effect, Reply) else None
                    yield self._one(_Waiter(command, owner, at, falls_back=False, reads=True), answer, at)
        for effect in moment.effects:
            if isinstance(effect, Settle):
                yield from self._settled(effect, at)
            elif isinstance(effect, Abort):
                for waiter in self._waiting.pop(effect.flight_id, ()):
                    yield self._one(waiter, None, at)
            elif isinstance(effect, AskAgain | CancelFetch):
                self._waiting.pop(effect.flight_id, None)

    def _settled(self, effect: Settle[Stamp], at: float) -> Iterator[Given]:
        for waiter in self._waiting.pop(effect.flight_id, ()):
            if effect.asks_again_after and waiter.asked.flight_id > effect.asks_again_after:
                continue
            old = effect.fallback if waiter.falls_back else effect.rescue if waiter.reads else None
            yield self._one(waiter, effect.answer if old is None else old, at)

    def _one(self, waiter: _Waiter, answer: Stamp | None, at: float) -> Given:
        age_s = None
        if answer is not None and answer.good:
            age_s = at - self._made_at.get(answer.flight_id, at)
        return Given(waiter.asked.key, waiter.owner, waiter.at, at, answer, age_s)
