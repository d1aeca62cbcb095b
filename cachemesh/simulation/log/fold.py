"""`replay`: folds a command log again, through the very reducer that the cache used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from cachemesh.core import commands
from cachemesh.core.commands import Get, Refresh
from cachemesh.core.model import State
from cachemesh.core.reducer import reduce
from cachemesh.core.scopes import owner_of
from cachemesh.shell.recording import Ended, Follows, Lost, Noted, Told, answered
from cachemesh.simulation.log.callers import Answered, AnswerKind, Callers, Tally, Totals
from cachemesh.simulation.log.lines import Header
from cachemesh.simulation.log.reader import LogReader

if TYPE_CHECKING:
    import os

    from cachemesh.core.effects import Effects
    from cachemesh.simulation.log.what_if import WhatIf


class Replay(Struct, frozen=True):
    """What a log says.

    `state`: at the end, or at the instant that was asked for; what closing the
    cache dropped is still there. `answers`: in the order of the asks.
    `began_at`: the first instant, on the cache's clock; `lasted_s`: seconds from
    it to the last one, or to the one that was asked for. `unreadable`, `lost`, `missing`: lines
    that are no lines, lines that the recorder left out, files that were rotated
    away. Where there is any, the log is not whole: then `unknown` asks were
    about something of which the log has lost the beginning. Of those that were
    answered at once the log's word is taken (a "hit" may have been a stale
    one); those that waited are left out.
    `differences`: asks that were answered in another way than the log says; in
    a log that is whole there are none.
    """

    header: Header
    state: State[Any]
    answers: tuple[Answered, ...]
    totals: Totals
    began_at: float
    lasted_s: float
    is_closed: bool = False
    is_torn: bool = False
    unreadable: int = 0
    lost: int = 0
    missing: int = 0
    unknown: int = 0
    differences: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the log has everything from the cache's first command on."""
        return not (self.unreadable or self.lost or self.missing)


def replay(log: str | os.PathLike[str], configuration: WhatIf | None = None, *, at: float | None = None) -> Replay:
    """What the command log `log` says, the same each time.

    `configuration`: what would have become of the same asks under it, as far
    as a log can say (see `WhatIf`). `at`: stop there, in seconds since the log
    began. `log` is the newest file; older ones beside it are found.
    NoCommandLogError, or OSError, where it cannot be read.
    """
    reader = LogReader(log)
    if configuration is not None:
        from cachemesh.simulation.log.what_if import modelled  # noqa: PLC0415 (it imports what is here)

        return modelled(reader, configuration, at=at)
    fold = Fold(reader)
    for line in reader:
        if fold.is_past(line, at):
            break
        fold.step(line)
    return fold.result()


def instant_of(line: object) -> float | None:
    """When a line was noted, on the cache's clock; None where it does not say."""
    now = getattr(line.command, "now", None) if isinstance(line, Noted) else None
    return now if isinstance(now, float) else None


class Fold:
    """The state of a log, line by line."""

    def __init__(self, reader: LogReader) -> None:
        self.reader = reader
        self.state: State[Any] = State(has_store=reader.header.has_store)
        self.began_at: float | None = None
        self.now = 0.0
        """The latest instant so far: threads may note theirs a little out of order."""
        self.callers = Callers()
        self.tally = Tally()
        self.lost = self.unknown = self.differences = 0
        self.is_closed = False
        self._follows: dict[int, int] = {}

    def is_past(self, line: object, at: float | None) -> bool:
        """Whether `line` is of after `at`, in seconds since the log began: then that is what time it is."""
        instant = instant_of(line)
        if at is None or self.began_at is None or instant is None or instant <= self.began_at + at:
            return False
        self.now = max(self.now, self.began_at + at)
        return True

    def step(self, line: object) -> Effects[Any]:
        """Take one line in: the effects of its command."""
        instant = instant_of(line)
        if instant is not None:
            self.now = instant if self.began_at is None else max(self.now, instant)
            self.began_at = instant if self.began_at is None else self.began_at
        if isinstance(line, Noted):
            return self._noted(line)
        if isinstance(line, Follows):
            self._follows[line.ask] = line.before
        elif isinstance(line, Told):
            self.callers.told(line.ask, line.how, self.now)
        elif isinstance(line, Lost):
            self.lost += line.lines
        elif isinstance(line, Ended):
            self.is_closed = True
        return ()

    @property
    def is_whole(self) -> bool:
        return not (self.lost or self.reader.unreadable or self.reader.missing)

    def _noted(self, line: Noted) -> Effects[Any]:
        command = line.command
        if isinstance(command, Get | Refresh):
            return self._asked(command, line)
        if isinstance(command, commands.InvalidatePrefix) and line.keys is not None:
            return self._without(command, line.keys)
        if isinstance(command, commands.Update):
            command = with_expected(self.state, command, changed=line.was == "refused:changed")
        self.state, ordered = reduce(self.state, command)
        self.tally.count(ordered)
        self.tally.evictions += isinstance(command, commands.Evict) and len(ordered) > 0
        self.callers.follow(ordered, self.now)
        return ordered

    def _asked(self, command: Get | Refresh, line: Noted) -> Effects[Any]:
        state, ordered = reduce(self.state, command)
        if answered(ordered) != line.was:
            if not self.is_whole:
                self.unknown += 1
                self._answered_by_the_log(command, line.was)
                return ()
            self.differences += 1
        assert self.began_at is not None
        before = self._follows.pop(command.flight_id, None)
        caller, explanation = self.callers.asks(self.state, command, self.now, self.began_at, before)
        self.state = state
        self.tally.count(ordered)
        self.callers.answer_now(caller, command, explanation, ordered, self.now)
        return ordered

    def _answered_by_the_log(self, command: Get | Refresh, was: str | int | None) -> None:
        """What an ask was answered with is lost, but not how it was answered."""
        if isinstance(was, str):
            assert self.began_at is not None
            kind = AnswerKind.HIT if was == "hit" else AnswerKind.FAILED
            self.callers.takes_word(self.state, command, kind, self.now, self.now - self.began_at)

    def _without(self, command: commands.InvalidatePrefix, keys: tuple[str, ...]) -> Effects[Any]:
        """A prefix as the keys that it stood for: those of hashes have none."""
        self.state, all_ordered = without_keys(self.state, command, keys)
        return all_ordered

    def result(self) -> Replay:
        answers = tuple(caller.answered for caller in self.callers.all)
        began_at = 0.0 if self.began_at is None else self.began_at
        return Replay(
            self.reader.header,
            self.state,
            answers,
            self.tally.totals(answers),
            began_at,
            self.now - began_at,
            self.is_closed,
            self.reader.is_torn,
            self.reader.unreadable,
            self.lost,
            self.reader.missing,
            self.unknown,
            self.differences,
        )


def without_keys(
    state: State[Any], command: commands.InvalidatePrefix, keys: tuple[str, ...]
) -> tuple[State[Any], Effects[Any]]:
    """`state` after each of `keys` was invalidated where `command` would."""
    all_ordered: Effects[Any] = ()
    for key in keys:
        state, ordered = reduce(state, commands.Invalidate(key, command.scope, command.viewer))
        all_ordered += ordered
    return state, all_ordered


def with_expected(state: State[Any], command: commands.Update[Any], *, changed: bool) -> commands.Update[Any]:
    """`command` with what it was made for: what is there, unless that had `changed`."""
    owner = owner_of(command.scope, state.active_user, command.viewer)
    partition = None if owner is None else state.partitions.get(owner)
    entry = None if partition is None else partition.entries.get(command.key)
    expected = object() if changed or entry is None else entry.answer
    return commands.Update(
        command.key, expected, command.answer, command.now, command.stamp, command.scope, command.viewer
    )
