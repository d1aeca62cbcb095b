"""What is true of the origin and the server, and whether what nodes answer agrees with it.

Each place (a user, or None for everybody, and a key) has a version that only
grows. Whoever makes it grow says so to its cache. A version is *settled* when
the removal has been performed at the server: nothing it holds or takes from
then on is older.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope, Owner
from cachemesh.shell.ports import News, NewsKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Place: TypeAlias = "tuple[str | None, str]"
Value: TypeAlias = "tuple[str | None, str, int, float]"
"""What the origin answers: for whom, under which key, which version, and when it was read."""

STATED_CAP_S: Final = 18.0
"""For so long may news be lost and nobody notice: a ping interval (5 s) and the quarter between two looks, then the
memory cap (10 s) with an attempt to connect (2.5 s) on top, told anew each time; and a fetch that was under way."""

CLAIMED_BEFORE_S: Final = 3.5
"""For so long a flight may have waited for the fetches of others: a removal meanwhile makes its own one for nothing."""

LONGEST_FETCH_S: Final = 2.0
"""A lifetime begins when the fetch is over, which may take so long at most."""

LONGEST_WAIT_S: Final = 90.0
"""No caller waits longer: a fetch, and once the longest claim."""


class Violation(Struct, frozen=True):
    """A rule was broken by `node` at `at_s` seconds of the run."""

    rule: str
    node: int
    at_s: float
    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: node {self.node} at {self.at_s:.3f} s, {self.place}: {self.what}"


class Ledger:
    """The books of one run."""

    def __init__(
        self, now: Callable[[], float], places: Sequence[Place], ttl_s: float, skew_s: float, *, is_healthy: bool
    ) -> None:
        self.origin = dict.fromkeys(places, 1)
        self.settled = dict.fromkeys(places, 1)
        self.violations: list[Violation] = []
        self.asked = self.answered = self.fetched = 0
        self._now = now
        self._began = now()
        self._ttl_s = ttl_s
        self._skew_s = skew_s
        self.is_healthy = is_healthy
        self._settled_at: dict[Place, list[tuple[float, int]]] = defaultdict(list)
        self._changed_at: dict[Place, float] = {}
        self._fetched_at: dict[Place, float] = {}
        self.counts_fetches = False
        self._digest = hashlib.sha256()

    # What happens

    def change(self, places: Iterable[Place]) -> None:
        """The origin has something new."""
        for place in places:
            self.origin[place] += 1
            self._changed_at[place] = self._now()

    def removed(self, news: News) -> None:
        """The server has performed the removal that it tells.

        Where values are put by hand, older ones may be on their way, which are no
        fetches: there, only a `put` that has arrived settles anything.
        """
        for place in concerned(news, self.origin):
            self.settle(place, 0 if is_written(place) else self.origin[place])

    def stored(self, node: int, place: Place, version: int) -> None:
        """The server has taken what `node` fetched."""
        if version < self.settled[place]:
            self._report("nothing from before a removal", node, place, f"stored version {version} too late")

    def settle(self, place: Place, version: int) -> None:
        """The server has nothing older than `version` from now on."""
        self._changed_at[place] = self._now()
        if version > self.settled[place]:
            self.settled[place] = version
            self._settled_at[place].append((self._now(), version))

    def fetch(self, node: int, place: Place) -> Value:
        """The origin reads what there is."""
        now = self._now()
        self.fetched += 1
        before = self._fetched_at.get(place)
        self._fetched_at[place] = now
        if self.counts_fetches and before is not None and now - before < self._ttl_s:
            changed_at = self._changed_at.get(place)
            if changed_at is None or changed_at < before - CLAIMED_BEFORE_S:
                self._report("one fetch a key while healthy", node, place, f"fetched {now - before:.3f} s before")
        self.note("fetch", node, place, self.origin[place])
        return *place, self.origin[place], now

    def begin_to_count(self) -> None:
        """What has been fetched by now counts for nothing; from now on, each key is fetched once."""
        self._fetched_at.clear()
        self.counts_fetches = True

    # What is answered

    def check(self, node: int, place: Place, value: Value, known: int, asked_at: float) -> None:
        """`value` is what `node`, which knew of the version `known`, answered to who asked at `asked_at`."""
        self.answered += 1
        user, key, version, fetched_at = value
        self.note("answer", node, place, version)
        if (user, key) != place:
            self._report("no value of another", node, place, f"was answered {key} of {user or 'everybody'}")
            return
        if version < known:
            self._report("nothing from before a removal", node, place, f"version {version}, knew of {known}")
        overdue = [each for at, each in self._settled_at[place] if at < asked_at - STATED_CAP_S]
        if overdue and version < overdue[-1]:
            self._report("nothing beyond the stated cap", node, place, f"version {version}, {overdue[-1]} long since")
        age_s = asked_at - fetched_at
        if age_s > self._ttl_s + 2 * self._skew_s + LONGEST_FETCH_S:
            self._report("nothing older than its lifetime", node, place, f"{age_s:.1f} s old")

    def waited(self, node: int, place: Place, asked_at: float) -> None:
        """Somebody who asked at `asked_at` was answered, or has given up."""
        waited_s = self._now() - asked_at
        if waited_s > LONGEST_WAIT_S:
            self._report("nobody waits for ever", node, place, f"{waited_s:.1f} s")

    def raised(self, node: int, place: Place, error: Exception) -> None:
        """A `get` has raised, rather than answered."""
        self._report("no cache raises", node, place, repr(error))

    def failed(self, node: int, place: Place, error: object) -> None:
        """A `get` was answered `error`, which the origin has not: whatever befalls a store costs no answer."""
        self._report("no failure but the origin's", node, place, repr(error))

    def _report(self, rule: str, node: int, place: Place, what: str) -> None:
        user, key = place
        shown = f"{key} of {user or 'everybody'}"
        self.violations.append(Violation(rule, node, round(self._now() - self._began, 6), shown, what))

    def note(self, *what: object) -> None:
        """Something that a replay must find again."""
        self._digest.update(repr((self._now(), *what)).encode())

    @property
    def digest(self) -> str:
        """All that was noted."""
        return self._digest.hexdigest()[:16]


def concerned(news: News, places: Iterable[Place]) -> list[Place]:
    """The places that `news` are about. A key bears itself as its tag."""
    if news.kind is NewsKind.LOST:
        return list(places)
    user = None if news.owner is None else user_of(news.owner)
    key = news.tag if news.kind is NewsKind.MARKED else news.key
    return [place for place in places if (news.owner is None or place[0] == user) and (key is None or place[1] == key)]


def is_written(place: Place) -> bool:
    """Whether values are put there by hand: then a single node says what they are."""
    return place[0] is None and place[1].startswith("w")


def user_of(owner: Owner) -> str | None:
    """Whose it is; None is everybody's."""
    return None if owner == GLOBAL_OWNER else owner[1]


def scope_of(user: str | None) -> CacheScope:
    return CacheScope.GLOBAL if user is None else CacheScope.USER
