"""`Survey`: what a trace is like, gathered while it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cachemesh.simulation.request import Request
    from cachemesh.simulation.traces.reading import Reading

MOST_KEPT: Final = 1_000_000
"""Requests that are kept for the configurations after the first; some 200 bytes each. A longer trace is read again."""


class TraceSummary(Struct, frozen=True):
    """A trace in figures. `name`: of the file, without its folder.

    `keys`, `users`: distinct ones. `repeats`: the share of requests for what had
    been asked for before, for the same user; no hit ratio is above it. `left_out`:
    lines that could not be read, and `unreadable`: why. `backwards`: how often times
    went back; `clamped`: where they could not be put right.
    """

    name: str
    requests: int
    keys: int
    users: int
    repeats: float
    duration_s: float
    format: str = ""
    left_out: int = 0
    unreadable: str = ""
    backwards: int = 0
    clamped: int = 0


class Survey:
    """Passes requests on, and learns from them. It keeps all of them, or none where they are more than `most_kept`.

    >>> from cachemesh.simulation.request import Request
    >>> survey = Survey()
    >>> [each.key for each in survey.seen([Request(0.0, "a"), Request(1.0, "a"), Request(4.0, "b")])]
    ['a', 'a', 'b']
    >>> survey.requests, survey.keys, survey.duration_s, len(survey.kept)
    (3, 2, 4.0, 3)
    """

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self.kept: list[Request] | None = []
        self.requests = 0
        self.duration_s = 0.0
        self._most_kept = most_kept
        self._keys: set[str] = set()
        """Of nobody's requests."""
        self._keys_of_users: set[str] = set()
        self._pairs: set[tuple[str, str]] = set()
        self._users: set[str] = set()

    def seen(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The requests, as they come. What is learnt can be asked for at their end."""
        first_at: float | None = None
        last_at = 0.0
        number = 0
        for request in requests:
            number += 1
            last_at = request.at
            if first_at is None:
                first_at = last_at
            if request.user is None:
                self._keys.add(request.key)
            else:
                self._keys_of_users.add(request.key)
                self._users.add(request.user)
                self._pairs.add((request.user, request.key))
            if self.kept is not None:
                self.kept.append(request)
                if number > self._most_kept:
                    self.kept = None
            yield request
        self.requests = number
        self.duration_s = 0.0 if first_at is None else last_at - first_at

    @property
    def keys(self) -> int:
        """How many different ones."""
        return len(self._keys | self._keys_of_users) if self._users else len(self._keys)

    def summary(self, name: str, reading: Reading) -> TraceSummary:
        """All of it, with what the reader counted."""
        first_ones = len(self._keys) + len(self._pairs)
        return TraceSummary(
            name=name,
            requests=self.requests,
            keys=self.keys,
            users=len(self._users),
            repeats=1.0 - first_ones / self.requests if self.requests else 0.0,
            duration_s=self.duration_s,
            format=str(reading.format),
            left_out=reading.unreadable.total,
            unreadable=str(reading.unreadable) if reading.unreadable.total else "",
            backwards=reading.backwards,
            clamped=reading.clamped,
        )
