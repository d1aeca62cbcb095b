"""What a cache notes down for a recorder: each command as the reducer got it, and how it was answered.

A line is made under the lock, so that the lines stand in the order of the
commands, and no code of a user's runs for it: an answer is replaced by the name
of its type before anything else sees the line. Writing lines down is the part
of whoever takes them out of the queue, in a thread of its own.
"""

from __future__ import annotations

from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from msgspec import Struct
from msgspec.structs import replace
from returns.result import Failure, Success

from cachemesh.core import commands
from cachemesh.core.effects import Join, Refusal, Refuse, Reply
from cachemesh.core.model import Entry, Failed, Terms
from cachemesh.core.scopes import visible_owners

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.core.effects import Effects
    from cachemesh.core.model import State

MOST_WAITING: Final = 200_000
"""So many lines wait for their writer. One that is slower loses lines, and the log says how many."""


class Kept(Struct, frozen=True, gc=False):
    """What stands for an answer in the log: whether it was a success, and the name of its type."""

    is_success: bool
    kind: str


class Noted(Struct, frozen=True, gc=False):
    """A command, without its answers.

    `was`: how the one who asked was answered at once: "hit", "failure",
    "refused:<reason>", or the id of the flight that it waits for. `keys`: those
    that a prefix stood for.
    """

    command: commands.Command[Any]
    was: str | int | None = None
    keys: tuple[str, ...] | None = None


class Follows(Struct, frozen=True, gc=False):
    """The ask `ask` is that of a caller who has asked before, as `before`."""

    ask: int
    before: int


class Told(Struct, frozen=True, gc=False):
    """A caller did not wait for its flight to end: it got an old value, a failure, or was cancelled ("left")."""

    ask: int
    how: str


class Lost(Struct, frozen=True, gc=False):
    """So many lines are missing here."""

    lines: int


class Ended(Struct, frozen=True, gc=False):
    """The cache was closed."""


Line: TypeAlias = Noted | Follows | Told | Lost | Ended


class Beginning(Struct, frozen=True):
    """What a log begins with: the settings that its commands depend on.

    `epoch_offset`: seconds to be added to an instant for one since the epoch.
    """

    has_store: bool
    max_entries: int | None
    default_ttl_s: float | None
    epoch_offset: float


class CommandRecorder(Protocol):
    """What a cache is given as `recorder`: `cachemesh.simulation.Recorder` is one."""

    def begin(self, log: CommandLog) -> None:
        """Write down what comes into `log` from now on. ValueError where another cache is being recorded."""
        ...

    def close(self) -> None:
        """Return when all that has come is written, or has been given up on."""
        ...


class CommandLog:
    """The lines of one cache, on their way to whoever writes them down.

    `SimpleQueue`, because its `put` may be interrupted by a finalizer that puts
    as well.
    """

    def __init__(self, beginning: Beginning, report: Callable[[Exception], None]) -> None:
        self.beginning = beginning
        self.report = report
        self.lines: SimpleQueue[Line | None] = SimpleQueue()
        """None asks the one who reads it to look up: there is nothing to write."""
        self.is_over = False
        """Nobody writes any more."""
        self._lost = 0

    def put(self, line: Line) -> None:
        """Hand `line` over; never waits."""
        if self.is_over:
            return
        if self.lines.qsize() >= MOST_WAITING:
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self.lines.put(Lost(lost))
        self.lines.put(line)

    def recorded(self, reduce: Callable[[Any, Any], tuple[Any, Effects[Any]]]) -> Callable[[Any, Any], Any]:
        """`reduce`, which notes down what it does."""

        def reduce_and_note(state: State[Any], command: commands.Command[Any]) -> tuple[Any, Effects[Any]]:
            keys = keys_of(state, command) if type(command) is commands.InvalidatePrefix else None
            after, ordered = reduce(state, command)
            self.put(Noted(scrubbed(command), answered(ordered), keys))
            return after, ordered

        return reduce_and_note


def keys_of(state: State[Any], command: commands.InvalidatePrefix) -> tuple[str, ...]:
    """The keys that its prefix stands for now: a log of hashes cannot say it otherwise."""
    found: set[str] = set()
    for owner in visible_owners(command.scope, state.active_user, command.viewer):
        partition = state.partitions.get(owner)
        if partition is not None:
            for each in (partition.entries, partition.failures, partition.flights):
                found.update(key for key in each if key.startswith(command.prefix))
    return tuple(sorted(found))


def answered(ordered: Effects[Any]) -> str | int | None:
    """How a command was answered at once."""
    for effect in ordered:
        if isinstance(effect, Reply):
            return "hit" if effect.hit else "failure"
        if isinstance(effect, Join):
            return effect.flight_id
        if isinstance(effect, Refuse):
            return REFUSED[effect.reason]
    return None


REFUSED: Final = {reason: f"refused:{reason}" for reason in Refusal}

NAME_OF: Final = type.__dict__["__name__"].__get__
"""The name of a type, whatever its metaclass says: no code of a user's."""


def kept(answer: object) -> Kept:
    """What stands for `answer`, the Result of a fetch or of a write."""
    kind = type(answer)
    if kind is Success or kind is Failure:
        return Kept(kind is Success, NAME_OF(type(answer._inner_value)))  # type: ignore[attr-defined]  # noqa: SLF001 (unwrap costs more)
    return Kept(True, NAME_OF(kind))


def scrubbed(command: commands.Command[Any]) -> commands.Command[Any]:
    """`command` with nothing in it that a user's code has made, but for keys, tags and users' ids."""
    scrub = SCRUBS.get(type(command))
    return command if scrub is None else scrub(command)


def _answer(command: Any) -> Any:  # noqa: ANN401 (any command with an answer)
    return replace(command, answer=kept(command.answer))


def _answer_and_schema(command: Any) -> Any:  # noqa: ANN401 (as above)
    return replace(command, answer=kept(command.answer), schema=_is_there(command.schema))


def _succeeded(command: commands.FetchSucceeded[Any]) -> commands.FetchSucceeded[Any]:
    directives = command.directives
    if directives is not None:
        directives = replace(directives, validator=_is_there(directives.validator))
    return replace(command, answer=kept(command.answer), directives=directives, schema=_is_there(command.schema))


def _update(command: commands.Update[Any]) -> commands.Update[Any]:
    return replace(command, expected=None, answer=kept(command.answer))


def _loaded(command: commands.Loaded[Any]) -> commands.Loaded[Any]:
    return replace(command, entry=_entry(command.entry), failed=_failed(command.failed))


def _found_elsewhere(command: commands.FoundElsewhere[Any]) -> commands.FoundElsewhere[Any]:
    return replace(command, entry=_entry(command.entry))


def _hydrate(command: commands.Hydrate[Any]) -> commands.Hydrate[Any]:
    found = command.found
    return replace(command, found=_failed(found) if isinstance(found, Failed) else _entry(found))


def _entry(entry: Entry[Any] | None) -> Entry[Any] | None:
    if entry is None:
        return None
    terms = entry.terms
    if isinstance(terms, Terms):
        terms = replace(terms, validator=_is_there(terms.validator), schema=_is_there(terms.schema))
    return Entry(kept(entry.answer), entry.created_at, entry.ttl_s, entry.expires_at, terms)


def _failed(failed: Failed[Any] | None) -> Failed[Any] | None:
    if failed is None:
        return None
    return replace(failed, answer=kept(failed.answer), schema=_is_there(failed.schema))


def _is_there(opaque: object) -> bool | None:
    """All that the core looks at in what is the embedder's own."""
    return None if opaque is None else True


SCRUBS: Final[dict[type, Callable[[Any], Any]]] = {
    commands.FetchSucceeded: _succeeded,
    commands.FetchFailed: _answer_and_schema,
    commands.Overdue: _answer,
    commands.Loaded: _loaded,
    commands.FoundElsewhere: _found_elsewhere,
    commands.Hydrate: _hydrate,
    commands.Put: _answer_and_schema,
    commands.Update: _update,
}
"""The commands that carry answers: a test holds that these are all."""
