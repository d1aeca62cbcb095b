"""One transaction: the orders of a batch, applied one after the other, and written together at the end."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from cachemesh.shell.ports import Claim
from cachemesh.stores.envelope import DamagedEnvelopeError, sealed
from cachemesh.stores.marks import MOST_MARKS, Marks
from cachemesh.stores.sqlite import lease
from cachemesh.stores.sqlite.file import PAGE_SIZE, pragma
from cachemesh.stores.sqlite.lease import REFUSED, Held
from cachemesh.stores.sqlite.queue import place_of
from cachemesh.stores.sqlite.records import record_of
from cachemesh.stores.sqlite.schema import FENCE, MarkState, guarded, mark_of, meta_of, place_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry
    from cachemesh.stores.envelope import Cipher
    from cachemesh.stores.marks import Place
    from cachemesh.stores.sqlite.file import Database
    from cachemesh.stores.sqlite.lease import Claiming
    from cachemesh.stores.sqlite.places import PlaceNumber, Places
    from cachemesh.stores.sqlite.queue import Order
    from cachemesh.stores.sqlite.settings import Settings

GRACE_S: Final = 60.0
"""For so long at least what is written stays, expired or not: clocks differ, and some policies serve what is stale."""

MOST_TOMBS: Final = 100_000
"""Above so many, the claims from before are all refused instead."""

FLOOR_S: Final = 3_600.0
"""A fetch that takes longer than this, or twice this, may not be stored."""

MOST_EVICTED_AT_ONCE: Final = 4_096

Row = tuple[int, int, int, int, int, float | None, bytes]


class Transaction:
    """The orders of one batch. It has begun when this is made; `finish` leaves the commit to the caller."""

    def __init__(
        self, database: Database, places: Places, settings: Settings, cipher: Cipher | None, now: float
    ) -> None:
        self.connection = database.writer
        self._view = database.view
        self._places = places
        self._settings = settings
        self._cipher = cipher
        self._now = now
        self.meta = meta_of(self.connection.execute("SELECT last_mark, state FROM meta WHERE id = 1").fetchone())
        if self.meta.last_mark != self._view.known:
            self._view.load_within(self.connection)
        self._rows: dict[PlaceNumber, Row] = {}
        self._tombs: dict[PlaceNumber, int] = {}
        self._over: dict[PlaceNumber, None] = {}
        self._marks: Marks | None = None
        self.unsealed = 0
        """So many entries could not be put into an envelope."""
        self.new_marks: list[tuple[Place, int, float | None]] = []
        self._advance_floor()

    # The orders

    def apply(self, orders: Sequence[Order]) -> Mapping[Order, object]:
        """Carry out `orders`; what is to be answered to whom."""
        last = {order.place: order for order in orders if order.kind in {"write", "delete"}}
        answers: dict[Order, object] = {}
        for order in orders:
            change = order.change
            if order.kind == "claim":
                answers[order] = self._claim(order.claiming)
                continue
            if change is None:
                continue
            operation = change.operation
            if operation == "write":
                if last[order.place] is order:
                    assert change.entry is not None
                    self._write(change.entry)
            elif operation == "commit":
                assert change.entry is not None
                assert change.claim is not None
                answers[order] = self._commit(change.entry, change.claim)
            elif operation == "delete":
                assert change.owner is not None
                assert change.key is not None
                self._delete(self._places.number(change.owner, change.key))
            elif operation == "release":
                if change.claim is not None and change.claim.token:
                    place = self._places.number(change.claim.owner, change.claim.key)
                    lease.give_up(self.connection, place, change.claim.token)
            else:
                self._mark(place_of(order), change.stale_at if operation == "mark_tag" else None)
        return answers

    def _write(self, entry: StoredEntry) -> None:
        self.meta.seq += 1
        self._put(self._places.number(entry.owner, entry.key), entry, self.meta.seq)

    def _commit(self, entry: StoredEntry, claim: Claim) -> bool | None:
        place = self._places.number(claim.owner, claim.key)
        if claim.token:
            lease.give_up(self.connection, place, claim.token)
        if (entry.owner, entry.key) != (claim.owner, claim.key):
            return False
        generation = claim.generation
        if generation == REFUSED:
            return None
        if generation < self.meta.floor or generation > self.meta.seq or generation < self._latest(place):
            return False
        dated = replace(entry, generation=generation)
        if self._view.applied(dated) is None or (self._marks is not None and self._marks.applied(dated) is None):
            return False
        self._put(place, entry, generation)
        return True

    def _delete(self, place: PlaceNumber) -> None:
        self.meta.seq += 1
        self._rows.pop(place, None)
        self._over[place] = None
        self._tombs[place] = self.meta.seq

    def _mark(self, place: Place, stale_at: float | None) -> None:
        self.meta.seq += 1
        generation = self.meta.seq
        self.meta.last_mark = generation
        self.new_marks.append((place, generation, stale_at))
        if self._marks is None:
            self._marks = Marks()
        self._marks.add(place, generation, stale_at)
        owner, tag = place_names(place)
        key = (self._places.space, owner, tag)
        row = self.connection.execute(
            "SELECT space, owner, tag, last, state FROM marks WHERE space = ? AND owner = ? AND tag = ?", key
        ).fetchone()
        state = MarkState(*key, 0, 0, 0.0) if row is None else mark_of(row)
        if stale_at is None:
            state.gone = generation
        else:
            state.stale, state.stale_at = generation, stale_at
        self.meta.marks += row is None
        self.connection.execute(
            "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)", (*key, generation, guarded(state))
        )
        if self.meta.marks > MOST_MARKS:
            self._fold_marks()

    def _claim(self, claiming: Claiming) -> Claim | Held:
        place = self._places.number(claiming.owner, claiming.key)
        seen = claiming.seen
        if claiming.waits:
            if seen is not None:
                found = self._found(claiming.owner, claiming.key, place, seen)
                if found is not None:
                    return Claim(claiming.owner, claiming.key, self.meta.seq, found=found)
            else:
                seen = self.meta.written
        token = b""
        if claiming.length_s is not None:
            held = lease.holder(self.connection, place, self._now)
            if held is not None and held[0] != claiming.over:
                return Held(*held, self.meta.written if seen is None else seen)
            token = claiming.token
            lease.take(self.connection, place, token, self._now, claiming.length_s)
        # A generation of its own: of two claims, the later one's answer is the younger one.
        self.meta.seq += 1
        return Claim(claiming.owner, claiming.key, self.meta.seq, token)

    # Rows

    def _put(self, place: PlaceNumber, entry: StoredEntry, generation: int) -> None:
        try:
            envelope = sealed(replace(entry, generation=generation), self._settings.namespace, self._cipher)
        except Exception:  # noqa: BLE001 (a cipher's, whatever it raises; the other orders go on)
            # What was there before is not to be believed any more.
            self.unsealed += 1
            self._delete(place)
            return
        self.meta.written += 1
        self._over[place] = None
        self._rows[place] = (
            self.meta.written,
            *place,
            self._places.space,
            generation,
            dies_at(entry, self._now, self._settings.max_age),
            envelope,
        )

    def _latest(self, place: PlaceNumber) -> int:
        """The generation of what is or was last under `place`; of nothing, 0."""
        row = self._rows.get(place)
        if row is not None:
            return row[4]
        tomb = self._tombs.get(place)
        if tomb is not None:
            return tomb
        (latest,) = self.connection.execute(FENCE, place * 2).fetchone()
        # One from the future is damaged, and fences nothing off.
        return latest if type(latest) is int and latest <= self.meta.seq else 0

    def _found(self, owner: Owner, key: str, place: PlaceNumber, seen: int) -> StoredEntry | None:
        """What somebody else has written under `place` after `seen`, if it is fresh."""
        row = self._rows.get(place)
        if row is not None:
            n, generation, envelope = row[0], row[4], row[6]
        elif place in self._tombs:
            return None
        else:
            found = self.connection.execute(
                "SELECT n, generation, envelope FROM entries WHERE owner = ? AND key = ?", place
            ).fetchone()
            if found is None:
                return None
            n, generation, envelope = found
        if n <= seen:
            return None
        try:
            entry = record_of(envelope, generation, self._settings.namespace, owner, key, self._cipher)
        except DamagedEnvelopeError:
            return None  # To fetch anew is what mends it.
        left = self._view.applied(entry)
        if left is not None and self._marks is not None:
            left = self._marks.applied(left)
        if left is None or (left.expires_at is not None and left.expires_at <= self._now):
            return None
        return left

    # The end of it

    def finish(self) -> None:
        """Write what was gathered, keep the bounds, and put the counters down."""
        connection, meta = self.connection, self.meta
        if self._over:
            gone = connection.executemany("DELETE FROM entries WHERE owner = ? AND key = ?", list(self._over))
            meta.entries -= max(0, gone.rowcount)
        if self._rows:
            connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", list(self._rows.values()))
            meta.entries += len(self._rows)
        if self._tombs:
            self._entomb([(*place, generation) for place, generation in self._tombs.items()])
        self._keep_bounds()
        if meta.tombs > MOST_TOMBS:
            meta.floor = meta.seq
            connection.execute("DELETE FROM tombs")
            meta.tombs = 0
        self.put_meta()

    def put_meta(self) -> None:
        self.connection.execute(
            "UPDATE meta SET last_mark = ?, state = ? WHERE id = 1", (self.meta.last_mark, guarded(self.meta))
        )

    def _entomb(self, tombs: Sequence[tuple[int, int, int]]) -> None:
        self.connection.executemany("INSERT OR REPLACE INTO tombs VALUES (?, ?, ?)", tombs)
        self.meta.tombs += len(tombs)

    def _keep_bounds(self) -> None:
        """What was written longest ago leaves first."""
        most = self._settings.max_entries
        while most is not None and self.meta.entries > most:
            if not self.evict(min(self.meta.entries - most, MOST_EVICTED_AT_ONCE)):
                break
        most = self._settings.max_bytes
        while most is not None and self._bytes() > most:
            each = max(PAGE_SIZE // 8, self._bytes() // max(1, self.meta.entries))
            if not self.evict(min(1 + (self._bytes() - most) // each, MOST_EVICTED_AT_ONCE)):
                break

    def _bytes(self) -> int:
        connection = self.connection
        return (pragma(connection, "page_count") - pragma(connection, "freelist_count")) * PAGE_SIZE

    def evict(self, count: int) -> int:
        """Remove the oldest; how many there were."""
        return self.remove(
            self.connection.execute(
                "SELECT n, owner, key, generation FROM entries ORDER BY n LIMIT ?", (count,)
            ).fetchall()
        )

    def remove(self, rows: Sequence[tuple[int, int, int, int]]) -> int:
        """Remove the rows (n, owner, key, generation). A fetch from before one was written stays fenced off."""
        if not rows:
            return 0
        gone = self.connection.executemany("DELETE FROM entries WHERE n = ?", [row[:1] for row in rows])
        self.meta.entries -= max(0, gone.rowcount)
        floor = self.meta.floor
        self._entomb([row[1:] for row in rows if row[3] > floor])
        return len(rows)

    def _advance_floor(self) -> None:
        """Once an hour: what is older than the hour before needs no tombs any more."""
        meta = self.meta
        if abs(self._now - meta.next_floor_from) >= FLOOR_S:
            meta.floor, meta.next_floor, meta.next_floor_from = meta.next_floor, meta.seq, self._now

    def _fold_marks(self) -> None:
        """The older half of too many marks becomes one: everything that is as old as they are is gone."""
        connection, meta = self.connection, self.meta
        rows = connection.execute(
            "SELECT space, owner, tag, last, state FROM marks ORDER BY last LIMIT ?", (MOST_MARKS // 2,)
        ).fetchall()
        highest: dict[int, int] = {}
        for row in rows:
            mark = mark_of(row)
            highest[mark.space] = max(highest.get(mark.space, 0), mark.gone, mark.stale)
            connection.execute("DELETE FROM marks WHERE space = ? AND owner = ? AND tag = ?", row[:3])
        meta.marks -= len(rows)
        for space, generation in highest.items():
            key = (space, b"", b"")
            row = connection.execute(
                "SELECT space, owner, tag, last, state FROM marks WHERE space = ? AND owner = ? AND tag = ?", key
            ).fetchone()
            if row is None:
                meta.marks += 1
                state = MarkState(*key, generation, 0, 0.0)
            else:
                state = mark_of(row)
                state.gone = max(state.gone, generation)
            connection.execute(
                "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?, ?)",
                (*key, max(state.gone, state.stale), guarded(state)),
            )


def dies_at(entry: StoredEntry, now: float, max_age: float | None) -> float | None:
    """When the row may go: when no policy would serve the entry any more, or it is too old; None is never.

    What has no windows may be served stale for as long as it is kept.
    """
    dies = inf if max_age is None else now + max_age
    windows = [each for each in (entry.serve_stale_s, entry.stale_if_error_s) if each is not None]
    if entry.expires_at is not None and (windows or entry.is_failure):
        dies = min(dies, max(now, entry.expires_at + max(windows, default=0.0)) + GRACE_S)
    return None if dies == inf else dies
