"""When a connection is made, lost, made again and given up. Pure rules: what happens comes in, orders go out.

A loss is one event, one failure and one step further in the back-off, however
many callbacks notice it. The count of losses starts anew only with a
connection that has stood for `steady_s`: neither a request that was sent, nor
an accepted upgrade, nor a first message proves that a server is well, for one
that greets and hangs up would then be called at the shortest delay for ever.

How long a delay is, is `backoff.wait_s`'s. Clocks and chance come in with the events.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from cachemesh.core.retry import LONGEST_DELAY_S
from cachemesh.sources.backoff import Waits, wait_s
from cachemesh.sources.failure import NetworkFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Phase(StrEnum):
    """Where a connection stands."""

    IDLE = "idle"
    """Nobody has listened yet: nothing was connected."""
    CONNECTING = "connecting"
    UP = "up"
    WAITING = "waiting"
    """It was lost, and is tried again after a while."""
    GIVEN_UP = "given_up"
    """It was lost for good."""
    CLOSED = "closed"
    """Nobody listens any more."""


class Rules(Struct, frozen=True):
    """How often and after how long it is tried again. `max_losses` in a row are the end; None: never."""

    waits: Waits
    max_losses: int | None = None
    steady_s: float = 0.0


class Link(Struct, frozen=True):
    """The state. `losses`: in a row; `waited_s`: the last delay of that row; `opened_at`: when what is up was made."""

    phase: Phase = Phase.IDLE
    losses: int = 0
    waited_s: float = 0.0
    opened_at: float = 0.0


class Begun(Struct, frozen=True):
    """Somebody listens, or wants to send."""


class Opened(Struct, frozen=True):
    """The upgrade was accepted."""

    now: float


class Lost(Struct, frozen=True):
    """There is no connection: it was refused, did not come about in time, or broke.

    `is_final`: with this failure another try would be of no use. `chance`: a number from 0 to 1.
    """

    failure: NetworkFailure
    is_final: bool
    now: float
    chance: float


class Rested(Struct, frozen=True):
    """The delay is over."""


class Left(Struct, frozen=True):
    """Nobody listens any more."""


class Connect(Struct, frozen=True):
    """Make a connection: `Opened` or `Lost` comes back."""


class Listen(Struct, frozen=True):
    """Take the messages of the connection: `Lost` comes back."""


class Tell(Struct, frozen=True):
    """Tell those who listen of `failure`."""

    failure: NetworkFailure


class Rest(Struct, frozen=True):
    """Do nothing for `delay_s` seconds: `Rested` comes back."""

    delay_s: float


class Finish(Struct, frozen=True):
    """End the stream: nothing comes any more."""


Event: TypeAlias = Begun | Opened | Lost | Rested | Left
Order: TypeAlias = Connect | Listen | Tell | Rest | Finish
Orders: TypeAlias = tuple[Order, ...]


def step(link: Link, event: Event, rules: Rules) -> tuple[Link, Orders]:
    """The next state, and what is to be done. An event that has no row changes nothing: it comes too late.

    >>> step(Link(), Begun(), Rules(Waits(1.0, 2.0, 30.0, "none")))[1]
    (Connect(),)
    """
    handle = TABLE.get((link.phase, type(event)))
    return (link, ()) if handle is None else handle(link, event, rules)


def connecting(link: Link, event: Begun | Rested, rules: Rules) -> tuple[Link, Orders]:
    del event, rules
    return replace(link, phase=Phase.CONNECTING), (Connect(),)


def opened(link: Link, event: Opened, rules: Rules) -> tuple[Link, Orders]:
    del rules
    return replace(link, phase=Phase.UP, opened_at=event.now), (Listen(),)


def not_opened(link: Link, event: Lost, rules: Rules) -> tuple[Link, Orders]:
    return after_loss(link.losses + 1, link.waited_s, event, rules)


def broken(link: Link, event: Lost, rules: Rules) -> tuple[Link, Orders]:
    if event.now - link.opened_at >= rules.steady_s:
        return after_loss(1, 0.0, event, rules)
    return after_loss(link.losses + 1, link.waited_s, event, rules)


def left(link: Link, event: Left, rules: Rules) -> tuple[Link, Orders]:
    del event, rules
    return replace(link, phase=Phase.CLOSED), (Finish(),)


def after_loss(losses: int, waited_s: float, event: Lost, rules: Rules) -> tuple[Link, Orders]:
    """The loss that makes it `losses` in a row."""
    tell = Tell(event.failure)
    if event.is_final or (rules.max_losses is not None and losses >= rules.max_losses):
        return Link(Phase.GIVEN_UP, losses), (tell, Finish())
    delay_s = wait_s(rules.waits, losses, waited_s, event.chance)
    asked_s = min(event.failure.retry_after or 0.0, LONGEST_DELAY_S)
    return Link(Phase.WAITING, losses, delay_s), (tell, Rest(max(delay_s, asked_s)))


TABLE: Final[Mapping[tuple[Phase, type], Callable[..., tuple[Link, Orders]]]] = {
    (Phase.IDLE, Begun): connecting,
    (Phase.IDLE, Left): left,
    (Phase.CONNECTING, Opened): opened,
    (Phase.CONNECTING, Lost): not_opened,
    (Phase.CONNECTING, Left): left,
    (Phase.UP, Lost): broken,
    (Phase.UP, Left): left,
    (Phase.WAITING, Rested): connecting,
    (Phase.WAITING, Left): left,
    (Phase.GIVEN_UP, Left): left,
}
"""What happens in which phase."""
