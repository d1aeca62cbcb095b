"""Which resident leaves when a table is full.

This file holds the eviction order (S3-FIFO) and the resident it orders, and no
table: the caller owns those, puts residents in and takes victims out. It reads
no clock; an expired resident counts like any other until its owner removes it.

Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP
2023, with the details that the authors settled on in libCacheSim: the threshold
of promotion is two visits, and until the first eviction whatever does not fit
in the small queue goes to the main one.

Not neat yet: a dead resident still counts towards the length of its queue, so
that many deaths in the main queue make it lose a live one a little early.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from cachemesh.core.model import Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.core.model import Terms
    from cachemesh.shell.outcomes import Answer

MAX_VISITS: Final = 3
PROMOTING_VISITS: Final = 2
SMALL_SHARE: Final = 0.1
GHOST_SHARE: Final = 0.9

# What one `admit` may do before the event loop would notice: so many residents
# are looked at with mercy for the visited, and so many in all.
_MERCIFUL_STEPS: Final = 2_048
_MOST_STEPS: Final = 16_384

_SWEEP_STEPS: Final = 4
_HASTY_SWEEP_STEPS: Final = 64
_TOLERATED_DEAD: Final = 32

_MOST_SLOTS: Final = 4_093  # A prime, so that slot and page depend on different bits.


class Home(Protocol):
    """What knows by key who lives in it."""

    @property
    def get(self) -> Callable[[str], Resident | None]: ...


class Resident:
    """One cached entry; alive for as long as `home` answers its `key` with it.

    Mutable and owned by the shell. `visits` is raised by the hit path itself, up
    to `MAX_VISITS`, and spent by `S3Fifo`. A hit before `hit_until` has nothing
    to do but to answer. `life`: the ttl in seconds, where that and `hit_until`
    say all of its life; else the whole entry. To the core it is an `Entry`.
    """

    __slots__ = ("answer", "created_at", "hit_until", "home", "key", "life", "visits")

    def __init__(
        self,
        answer: Answer,
        created_at: float,
        life: float | Entry[Answer] | None,
        hit_until: float,
        key: str,
        home: Home,
    ) -> None:
        self.answer = answer
        self.created_at = created_at
        self.life = life
        self.hit_until = hit_until
        self.visits = 0
        self.key = key
        self.home = home

    # `life` is read once in each: it may be rewritten meanwhile.

    @property
    def ttl_s(self) -> float | None:
        life = self.life
        return life.ttl_s if isinstance(life, Entry) else life

    @property
    def expires_at(self) -> float:
        life = self.life
        return life.expires_at if isinstance(life, Entry) else self.hit_until

    @property
    def terms(self) -> Terms | None:
        life = self.life
        return life.terms if isinstance(life, Entry) else None

    def as_entry(self) -> Entry[Answer]:
        """What it is now, as a value. The lock that it is rewritten under is held."""
        return Entry(self.answer, self.created_at, self.ttl_s, self.expires_at, self.terms)


class S3Fifo:
    """The order in which the residents of one or more tables are evicted.

    A newcomer enters a small queue. From its head the visited are promoted to the
    main queue and the rest evicted, each leaving a ghost; a newcomer that meets
    its own ghost enters the main queue directly. From the head of the main queue
    the visited go back to its end, one visit poorer, and the rest are evicted.

    Residents may die without notice: a dead one is skipped when its turn comes,
    and swept out, a few at every `admit`, when the dead become many.

    `capacity` counts residents; None is unbounded and keeps no queues.
    `fingerprint`: what ghosts are known by. That of Python is another one in
    each process, so what is to repeat itself brings its own.

    >>> table: dict[str, Resident] = {}
    >>> order = S3Fifo(capacity=2)
    >>> for key in "abc":
    ...     table[key] = Resident(key.upper(), 0.0, 60.0, 60.0, key, table)
    ...     for victim in order.admit(table[key], live=len(table)):
    ...         del table[victim.key]
    >>> sorted(table)
    ['b', 'c']
    """

    __slots__ = (
        "_capacity",
        "_fingerprint",
        "_ghosts",
        "_main",
        "_main_capacity",
        "_small",
        "_small_capacity",
        "_sweeping",
    )

    def __init__(self, capacity: int | None, fingerprint: Callable[[str], int] = hash) -> None:
        self._capacity = capacity
        self._fingerprint = fingerprint
        self._small_capacity = max(1, int((capacity or 0) * SMALL_SHARE))
        self._main_capacity = (capacity or 0) - self._small_capacity
        self.forget_all()

    def forget_all(self) -> None:
        """Drop both queues and all ghosts, as if nothing had ever been admitted."""
        self._small = _Queue()
        self._main = _Queue()
        self._sweeping = self._small
        self._ghosts: _Ghosts | None = None

    def admit(self, resident: Resident, live: int) -> list[Resident]:
        """Queue a `resident` new in its home, and name those that must leave for it.

        `live` is the number of live residents, this one included. The caller
        removes the victims from their homes before it admits again; then `live`
        is within capacity. An entry refreshed in place is not admitted again.

        The newcomer itself is a victim only if nobody else can be: at capacity 0,
        or behind thousands of dead that it would take too long to step over.
        """
        capacity = self._capacity
        if capacity is None:
            return []

        ghosts = self._ghosts
        if ghosts is None:
            queue = self._small if self._small.length < self._small_capacity else self._main
        else:
            queue = self._main if ghosts.recall(resident.key) else self._small

        if live > capacity:
            victims = self._victims(live - capacity, resident)
            if victims[-1] is resident:
                return victims
        else:
            victims = []
            dead = self._small.length + self._main.length + 1 - live
            if dead > (live >> 2) + _TOLERATED_DEAD:
                self._sweep(_SWEEP_STEPS if dead < live else _HASTY_SWEEP_STEPS)

        queue.length += 1
        queue.unswept.append(resident)
        return victims

    def _victims(self, excess: int, newcomer: Resident) -> list[Resident]:
        """As many victims as `excess`; the newcomer is the last one, if at all."""
        ghosts = self._ghosts
        if ghosts is None:
            ghosts = self._ghosts = _Ghosts(max(1, int((self._capacity or 0) * GHOST_SHARE)), self._fingerprint)

        small = self._small
        main = self._main
        victims = []
        for step in range(_MOST_STEPS):
            from_main = main.length > self._main_capacity or not small.length
            queue = main if from_main else small
            if not queue.length:
                break

            queue.length -= 1
            candidate = (queue.swept or queue.unswept).popleft()
            if candidate.home.get(candidate.key) is not candidate:
                continue

            visits = candidate.visits
            if visits < (1 if from_main else PROMOTING_VISITS) or step >= _MERCIFUL_STEPS:
                if not from_main:
                    ghosts.remember(candidate.key)
                victims.append(candidate)
                if len(victims) == excess:
                    return victims
            else:
                candidate.visits = visits - 1 if from_main else 0
                main.length += 1
                main.unswept.append(candidate)

        victims.append(newcomer)
        return victims

    def _sweep(self, steps: int) -> None:
        """Sweep the queues in turns, each from end to end."""
        if self._sweeping.sweep(steps):
            self._sweeping = self._main if self._sweeping is self._small else self._small


class _Queue:
    """A FIFO that can lose its dead a few at a time, keeping the order of the rest.

    Its front is `swept`, its back `unswept`: a sweep carries the living from the
    one to the other, and when it has carried the last, the two change names.
    `S3Fifo` appends and pops by itself, for speed, and keeps `length` in step.
    """

    __slots__ = ("length", "swept", "unswept")

    def __init__(self) -> None:
        self.length = 0
        self.swept: deque[Resident] = deque()
        self.unswept: deque[Resident] = deque()

    def sweep(self, steps: int) -> bool:
        """Pass `steps` residents and drop the dead among them; True at the end of the queue."""
        swept = self.swept
        unswept = self.unswept
        for _ in range(steps):
            if not unswept:
                self.swept, self.unswept = unswept, swept
                return True
            resident = unswept.popleft()
            if resident.home.get(resident.key) is resident:
                swept.append(resident)
            else:
                self.length -= 1
        return False


class _Ghosts:
    """The last `capacity` keys that the small queue lost, as their hashes.

    A hash table without probing: a ghost takes the slot of its hash from whoever
    has it. At two to four slots a ghost, that costs 0.1 points of hit ratio at
    most, for 32 to 64 bytes a ghost. A slot holds a hash and a stamp, which counts
    ghosts and so tells the age. The slots come in pages, made when first written
    to: millions at once would stall the event loop.
    """

    __slots__ = ("_capacity", "_clock", "_fingerprint", "_page_mask", "_pages", "_slots")

    def __init__(self, capacity: int, fingerprint: Callable[[str], int] = hash) -> None:
        slots = 2 * capacity
        pages = 1 << (slots // (_MOST_SLOTS + 1)).bit_length()
        self._capacity = capacity
        self._fingerprint = fingerprint
        self._slots = slots if pages == 1 else _MOST_SLOTS
        self._page_mask = pages - 1
        self._pages: list[memoryview[int] | None] = [None] * pages
        self._clock = capacity  # So that an unwritten slot is too old to be a ghost.

    def remember(self, key: str) -> None:
        """The small queue has lost `key`."""
        fingerprint = self._fingerprint(key)
        slots = self._slots
        page = self._pages[fingerprint & self._page_mask]
        if page is None:
            page = memoryview(bytearray(16 * slots)).cast("q")
            self._pages[fingerprint & self._page_mask] = page
        slot = fingerprint % slots
        page[slot] = fingerprint
        page[slot + slots] = self._clock = self._clock + 1

    def recall(self, key: str) -> bool:
        """Whether `key` has a ghost, which is thereby laid to rest."""
        fingerprint = self._fingerprint(key)
        page = self._pages[fingerprint & self._page_mask]
        if page is None:
            return False
        slot = fingerprint % self._slots
        if page[slot] != fingerprint:
            return False
        age = self._clock - page[slot + self._slots]
        page[slot + self._slots] = 0
        return age < self._capacity
