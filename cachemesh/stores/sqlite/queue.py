"""What is to be written, in order, and what reads are to see of it meanwhile.

An order is pending until it is on the disk. `overlay` has the last pending
order of each place; `marks`, those about more than one place, with tickets (a
number for each order) in the place of generations. What could not be written
stays behind as a *doubt*: an order without content that keeps the old copy on
the disk from being believed, until it has been deleted.

A claim is answered in its turn. So what is still pending when its commit comes
was ordered after it, and the commit comes too late.
"""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from msgspec.structs import replace

from cachemesh.shell.ports import Change
from cachemesh.stores.marks import Marks
from cachemesh.stores.sqlite.lease import REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry

Place: TypeAlias = "tuple[Owner | None, str | None]"
Answer: TypeAlias = "Callable[[Any, Exception | None], None]"
"""Is called from the worker's thread, with the answer or with what went wrong.

That of a commit: whether it was kept; None where it was lost, so that nobody knows. One that comes too late is
answered in the thread that ordered it.
"""

MOST_DOUBTS: Final = 10_000
"""Above so many, everything is doubtful."""

MOST_IN_A_BATCH: Final = 2_000
MOST_BYTES_IN_A_BATCH: Final = 8 * 2**20
OVERHEAD: Final = 200
"""What an order takes beside its content, roughly."""

WIDE: Final = frozenset({"clear", "clear_partition", "mark_tag"})
AT_A_PLACE: Final = frozenset({"write", "commit", "delete"})
# Beside these there are "release", and our own: "claim", "flush", "settle", "mend" and "doubt".


class Order:
    """One thing to do for the worker."""

    __slots__ = ("answer", "change", "claiming", "is_awaited", "kind", "place", "size", "ticket")

    def __init__(  # noqa: PLR0913, PLR0917 (each is made in one place of each kind, and there are many)
        self,
        kind: str,
        change: Change | None,
        place: Place,
        size: int,
        answer: Answer | None = None,
        is_awaited: bool = False,  # noqa: FBT001, FBT002 (a keyword costs)
    ) -> None:
        self.kind = kind
        self.change = change
        self.place = place
        self.size = size
        self.ticket = 0
        self.answer = answer
        self.is_awaited = is_awaited
        """Whether somebody waits for the answer, so that the worker is not to linger."""
        self.claiming: Any = None


class Queue:
    """Bounded by number and bytes. All methods may be called from any thread; none of them waits for anything."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._orders: deque[Order] = deque()
        self._bytes = 0
        self._tickets = 0
        self._urgent = 0
        self._wide: list[Order] = []
        self._doubts: dict[Place, Order] = {}
        self.lock = threading.RLock()
        """Reentrant, as a finalizer may order something while this thread is in here."""
        self.overlay: dict[Place, Order] = {}
        self.marks: Marks | None = None
        self.bell: SimpleQueue[None] = SimpleQueue()
        self.is_idle = True
        """Whether the worker sleeps, and so wants the bell."""
        self.lingers = False
        """Whether it waits for company, and wants the bell where somebody is in a hurry."""
        self.on_space: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._orders)

    @property
    def doubts(self) -> int:
        """How many places and marks wait to be made good."""
        return len(self._doubts) + sum(1 for order in self._wide if order.kind == "doubt")

    def linger(self, few: int) -> bool:
        """Whether there are few orders, none of them urgent, so that more may come in before they are taken."""
        with self.lock:
            self.lingers = not self._urgent and len(self._orders) < few
            return self.lingers

    # Ordering

    def put(self, change: Change, answer: Answer | None = None, *, is_awaited: bool = True) -> bool:
        """Take `change` in; False if there is no room. A commit that comes too late is answered with False at once."""
        kind = change.operation
        entry = change.entry
        place: Place
        if entry is not None:
            place = (entry.owner, entry.key)
            size = OVERHEAD + len(entry.value.payload) + len(entry.key)
        else:
            place = (change.owner, change.key)
            size = OVERHEAD if change.key is None else OVERHEAD + len(change.key)
        order = Order(kind, change, place, size, answer, is_awaited and answer is not None)
        with self.lock:
            if len(self._orders) >= self._most or (self._bytes + size > self._most_bytes and self._orders):
                return False
            is_late = kind == "commit" and self._is_late(change)
            if is_late:
                self._refuse(order)
            else:
                self._take_in(order)
        if is_late and answer is not None:
            is_refused = change.claim is not None and change.claim.generation == REFUSED
            answer(None if is_refused else False, None)
        return True

    def _take_in(self, order: Order) -> None:
        self._append(order)
        if order.kind in AT_A_PLACE:
            self._doubts.pop(order.place, None)
            self.overlay[order.place] = order
        elif order.kind in WIDE:
            self._widen(order)

    def ask(self, order: Order) -> None:
        """Take in one of our own."""
        with self.lock:
            order.is_awaited = order.answer is not None
            self._append(order)

    def _append(self, order: Order) -> None:
        self._tickets += 1
        order.ticket = self._tickets
        self._orders.append(order)
        self._bytes += order.size
        self._urgent += order.is_awaited
        if self.is_idle or (self.lingers and order.is_awaited):
            self.is_idle = self.lingers = False
            self.bell.put(None)

    def _widen(self, order: Order) -> None:
        self._wide.append(order)
        if self.marks is None:
            self.marks = Marks()
        self.marks.add(place_of(order), order.ticket, _stale_at(order))

    def _is_late(self, change: Change) -> bool:
        entry, claim = change.entry, change.claim
        assert entry is not None
        assert claim is not None
        pending = self.overlay.get((entry.owner, entry.key))
        if pending is not None:
            if pending.kind != "commit":
                return True
            assert pending.change is not None
            assert pending.change.claim is not None
            if pending.change.claim.generation > claim.generation:
                return True
        return self.marks is not None and self.marks.applied(replace(entry, generation=0)) is None

    def _refuse(self, order: Order) -> None:
        """Give up the lease of a commit that comes too late."""
        assert order.change is not None
        order.kind = "release"
        claim = order.change.claim
        order.answer, order.is_awaited = None, False
        order.place = (None, None) if claim is None else (claim.owner, claim.key)
        order.change = Change("release", claim=claim)
        order.size = OVERHEAD
        self._append(order)

    # What reads see

    def pending(self, place: Place) -> tuple[Order | None, Marks | None]:
        """The last order about `place`, and the pending marks, of one instant."""
        with self.lock:
            return self.overlay.get(place), self.marks

    # The worker's side

    def take(self) -> list[Order]:
        """The next orders to be carried out, in order."""
        with self.lock:
            taken: list[Order] = []
            size = 0
            while self._orders and len(taken) < MOST_IN_A_BATCH and size < MOST_BYTES_IN_A_BATCH:
                order = self._orders.popleft()
                size += order.size
                self._urgent -= order.is_awaited
                taken.append(order)
            self._bytes -= size
            waiters, self.on_space = self.on_space, []
        for each in waiters:
            each()
        return taken

    def rest(self) -> bool:
        """Whether there is nothing to do, so that the next order rings the bell."""
        with self.lock:
            self.is_idle = not self._orders
            return self.is_idle

    def leftovers(self) -> list[Order]:
        """What failed and is to be made good: wide orders, and doubts as many as fit into a batch."""
        with self.lock:
            wide = [order for order in self._wide if order.kind == "doubt"]
            room = max(0, MOST_IN_A_BATCH - len(wide))
            return wide + [order for order, _ in zip(self._doubts.values(), range(room), strict=False)]

    def done(self, orders: Iterable[Order]) -> None:
        """These are on the disk, and the marks among them known."""
        with self.lock:
            is_wide = False
            for order in orders:
                place = order.place
                if self.overlay.get(place) is order:
                    del self.overlay[place]
                if self._doubts.get(place) is order:
                    del self._doubts[place]
                is_wide = is_wide or (order.change is not None and order.change.operation in WIDE)
            if is_wide:
                over = set(map(id, orders))
                self._wide = [each for each in self._wide if id(each) not in over]
                self._mark_anew()

    def failed(self, orders: Iterable[Order]) -> None:
        """These could not be written: what they were about is doubtful from now on."""
        with self.lock:
            for order in orders:
                if order.kind in WIDE:
                    order.kind = "doubt"
                elif order.kind in AT_A_PLACE and self.overlay.get(order.place) is order:
                    owner, key = order.place
                    doubt = Order("doubt", Change("delete", owner, key), order.place, OVERHEAD)
                    doubt.ticket = order.ticket
                    self.overlay[order.place] = self._doubts[order.place] = doubt
            if self.doubts > MOST_DOUBTS:
                self._doubt_everything()

    def _doubt_everything(self) -> None:
        for place in self._doubts:
            del self.overlay[place]
        self._doubts.clear()
        everything = Order("doubt", Change("clear"), (None, None), OVERHEAD)
        self._tickets += 1
        everything.ticket = self._tickets
        self._wide = [each for each in self._wide if each.kind != "doubt"]
        self._wide.append(everything)
        self._mark_anew()

    def _mark_anew(self) -> None:
        if not self._wide:
            self.marks = None
            return
        marks = Marks()
        for order in self._wide:
            marks.add(place_of(order), order.ticket, _stale_at(order))
        self.marks = marks


def applied(marks: Marks, entry: StoredEntry, ticket: int) -> StoredEntry | None:
    """`entry`, of the order `ticket` or (0) from the disk, as pending marks leave it."""
    found = marks.applied(replace(entry, generation=ticket))
    return found and replace(found, generation=entry.generation)


def place_of(order: Order) -> tuple[Owner | None, str | None]:
    """What a wide order is about, as `stores.marks` names it."""
    change = order.change
    assert change is not None
    if change.operation == "clear":
        return None, None
    if change.operation == "clear_partition":
        return change.owner, None
    return change.owner, change.tag


def _stale_at(order: Order) -> float | None:
    assert order.change is not None
    return order.change.stale_at if order.change.operation == "mark_tag" else None
