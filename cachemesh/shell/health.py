"""Whether a store is to be bothered, and how much is told of its trouble. Instants are seconds of whoever asks."""

from __future__ import annotations

from typing import Final

TIMEOUT_S: Final = 1.0
"""A call that takes longer counts as failed."""

COOL_DOWN_S: Final = 1.0
"""For so long the store is left alone at first, then twice as long each time that it is tried in vain."""

LONGEST_REST_S: Final = 8.0

MOST_FAILURES_RUNNING: Final = 3
"""So many failed calls, none of them made good by a success between, and the store is left alone."""

TOLD_WITHIN_S: Final = 10.0
MOST_TOLD: Final = 3
"""So many failures of a store are told within that time. Of one that is not to be trusted: one."""

CALM_AFTER_S: Final = 60.0
"""A store is trusted again when it has not been left alone for so long."""


class Health:
    """What is known of a store. A suspect one is not called, but for a probe that nobody waits for.

    The clocks of event loops need not agree: an instant of the future is none.
    """

    def __init__(self) -> None:
        self._failures_running = 0
        self._rests_from = 0.0
        self._rests_for = 0.0
        self._next_rest_s = COOL_DOWN_S
        self._suspected_at: float | None = None
        self._told: list[float] = []
        self.is_suspect = False

    def may_probe(self, now: float) -> bool:
        """Whether a suspect store has rested long enough."""
        return not 0.0 <= now - self._rests_from < self._rests_for

    def rest_left(self, now: float) -> float:
        """For how many seconds the store is to be left alone from now on, at least; a moment, where it is not."""
        left = self._rests_from + self._rests_for - now
        return max(COOL_DOWN_S, left if left <= self._rests_for else 0.0)

    def takes_probe(self, now: float) -> bool:
        """Whether it is to be tried now, by whoever asks first."""
        if not self.may_probe(now):
            return False
        self._rest(now, TIMEOUT_S + self._next_rest_s)
        return True

    def succeeded(self) -> None:
        """A call has come through."""
        if self._failures_running:
            self._failures_running = 0
            self._next_rest_s = COOL_DOWN_S
            self._rests_for = 0.0
            self.is_suspect = False

    def failed(self, now: float, *, hung: bool, is_probe: bool = False) -> None:
        """A call has not. Of those that were under way when the store became suspect, none makes it rest longer."""
        self._failures_running += 1
        if self.is_suspect and not is_probe:
            return
        if hung or is_probe or self._failures_running >= MOST_FAILURES_RUNNING:
            self._suspected_at = now
            self._rest(now, self._next_rest_s)
            self._next_rest_s = min(2 * self._next_rest_s, LONGEST_REST_S)
            self.is_suspect = True

    def tells(self, now: float) -> bool:
        """Whether a failure is to be told; it counts as told then. To be asked before `failed` is."""
        self._told = [instant for instant in self._told if 0.0 <= now - instant < TOLD_WITHIN_S]
        is_calm = self._suspected_at is None or not 0.0 <= now - self._suspected_at < CALM_AFTER_S
        if len(self._told) >= (MOST_TOLD if is_calm else 1):
            return False
        self._told.append(now)
        return True

    def _rest(self, now: float, seconds: float) -> None:
        self._rests_from = now
        self._rests_for = seconds
