"""A Valkey server as the store uses one: one command after the other, lifetimes, scripts, channels, restarts.

The scripts are those of `cachemesh.stores.redis.scripts`, told in Python: one
function a script. A test runs both, on a real server and here, and compares.
Left out: memory that is full, replicas, clusters, and the sweeping of what has
been cleared, which changes no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cachemesh.stores.redis import scripts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cachemesh.stores.redis.orders import Reply

SKIPPED_AFTER_RESTART: Final = 1_048_576
"""So many generations are passed over by a server that may have forgotten the last ones."""


class Valkey:
    """The server. `now`: its clock, in seconds; `publish`: hands a message to all who have subscribed by now."""

    def __init__(self, now: Callable[[], float], publish: Callable[[bytes, bytes], None]) -> None:
        self._now = now
        self._publish = publish
        self._strings: dict[bytes, tuple[bytes, float | None]] = {}
        """The value, and until when it is kept."""
        self._hashes: dict[bytes, dict[bytes, bytes]] = {}
        self._ranks: dict[bytes, dict[bytes, int]] = {}
        """Sorted sets: members and their scores."""
        self._starts = 1
        self.is_up = True

    @property
    def history(self) -> bytes:
        """What a script reads of `INFO replication`: another one after each start."""
        return b"%040x" % self._starts

    def stop(self) -> None:
        """No command is answered until it starts again."""
        self.is_up = False

    def start(self, *, keeps_data: bool) -> None:
        """Come back with all that it had, or with nothing."""
        self.is_up = True
        self._starts += 1
        if not keeps_data:
            self._strings.clear()
            self._hashes.clear()
            self._ranks.clear()

    def execute(self, args: Sequence[bytes]) -> Reply:
        """What the server answers to a command: MGET, or EVALSHA of a script of the store's."""
        if args[0] == b"MGET":
            return [self._get(key) or None for key in args[1:]]
        count = int(args[2])
        return SCRIPTS[args[1]](self, args[3 : 3 + count], args[3 + count :])

    # Strings

    def _get(self, key: bytes) -> bytes:
        """What is under `key`; empty where nothing is."""
        value, until = self._strings.get(key, (b"", None))
        if until is not None and self._now() >= until:
            del self._strings[key]
            return b""
        return value

    def _set(self, key: bytes, value: bytes, ms: bytes) -> None:
        self._strings[key] = value, self._now() + int(ms) / 1_000

    def _delete(self, *keys: bytes) -> None:
        for key in keys:
            self._strings.pop(key, None)

    # The counter

    def _counter(self, keys: Sequence[bytes], fresh: bytes) -> tuple[bytes, int, int]:
        head, meta, marks, soft = keys
        found, now = self._hashes.get(meta), self.history
        if found is None or int(found[b"count"]) != len(self._ranks.get(marks, ())):
            self._ranks[marks], self._hashes[soft] = {}, {}
            found = {b"id": fresh, b"generation": b"1", b"last": b"0", b"count": b"0", b"history": now}
            self._hashes[meta] = found
            self._strings[head] = fresh + digits(0), None
        elif found[b"history"] != now:
            found[b"generation"] = digits(int(found[b"generation"]) + SKIPPED_AFTER_RESTART)
            found[b"history"] = now
        if not self._get(head):
            self._strings[head] = found[b"id"] + digits(int(found[b"last"])), None
        return found[b"id"], int(found[b"generation"]), int(found[b"last"])

    def _current(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> Reply:
        name, generation, last = self._counter(keys, argv[0])
        return [name, digits(generation), digits(last)]

    def _draw(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> Reply:
        name, generation, _ = self._counter(keys, argv[0])
        self._hashes[keys[1]][b"generation"] = digits(generation + 1)
        return [name, digits(generation + 1)]

    def _mark(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> Reply:
        fresh, mark, stale_at, everything, most, channel, message = argv
        name, generation, _ = self._counter(keys, fresh)
        head, meta, marks_at, soft_at = keys
        marks, soft = self._ranks[marks_at], self._hashes[soft_at]
        generation += 1
        if mark == everything:
            marks.clear()
            soft.clear()
        marks[mark] = generation
        if stale_at:
            soft[mark] = stale_at
        if len(marks) > int(most):
            oldest = sorted(marks.items(), key=lambda item: (item[1], item[0]))[: len(marks) // 2]
            for each, _ in oldest:
                del marks[each]
                soft.pop(each, None)
            marks[everything] = max(oldest[-1][1], marks.get(everything, 0))
        counts = {b"generation": digits(generation), b"last": digits(generation), b"count": b"%d" % len(marks)}
        self._hashes[meta].update(counts)
        self._strings[head] = name + digits(generation), None
        self._publish(channel, message)
        return [name, digits(generation)]

    def _marks(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> Reply:
        name, _, last = self._counter(keys, argv[0])
        after = int(argv[2]) if argv[1] == name else -1
        answer = [name, digits(last)]
        for mark, generation in sorted(self._ranks[keys[2]].items(), key=lambda item: (item[1], item[0])):
            if generation > after:
                answer += [mark, digits(generation), self._hashes[keys[3]].get(mark, b"")]
        return answer

    # An entry and its lease

    def _claim(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> Reply:
        entry, lease = keys
        token, lease_ms, seen, placeholder, placeholder_ms = argv
        record = self._get(entry)
        header = record[: len(placeholder)]
        if seen not in {b"?", header} and header[:1] == b"E":
            return [b"found", record]
        if token:
            holder = self._get(lease)
            if holder and holder != token:
                return [b"taken", header]
            if not holder:
                self._set(lease, token, lease_ms)
        if not header:
            header = placeholder
            self._set(entry, placeholder, placeholder_ms)
        return [b"granted", header, self.history]

    def _commit(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> Reply:
        entry, lease = keys
        token, seen, known, record, size, ms, channel, message = argv
        header = self._get(entry)[: int(size)]
        if header == record[: int(size)]:
            return 1
        held = bool(token) and self._get(lease) == token
        fits = self._fits(header, seen, known, held=held)
        if fits:
            self._set(entry, record, ms)
        if held:
            self._delete(lease)
        if not fits:
            return 0
        self._publish(channel, message)
        return 1

    def _fits(self, header: bytes, seen: bytes, known: bytes, *, held: bool) -> bool:
        """The fence: whether nothing has been written or removed since the claim."""
        return header != b"" and (held or header == seen) and self.history == known

    def _release(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> Reply:
        entry, lease = keys
        token, seen = argv
        if token and self._get(lease) == token:
            self._delete(lease)
        if seen[:1] == b"P" and self._get(entry)[: len(seen)] == seen:
            self._delete(entry)
        return 1

    def _put(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> Reply:
        record, size, ms, begins, ends, channel, message = argv
        header = self._get(keys[0])[: int(size)]
        begin, end = int(begins) - 1, int(ends)
        if header[:begin] == record[:begin] and int(header[begin:end]) > int(record[begin:end]):
            return 0
        self._set(keys[0], record, ms)
        self._delete(keys[1])
        self._publish(channel, message)
        return 1

    def _remove(self, keys: Sequence[bytes], argv: Sequence[bytes]) -> Reply:
        self._delete(*keys)
        self._publish(*argv)
        return 1


SCRIPTS: Final[Mapping[bytes, Callable[[Valkey, Sequence[bytes], Sequence[bytes]], Reply]]] = {
    scripts.CURRENT.digest: Valkey._current,  # noqa: SLF001 (a table of the class above)
    scripts.DRAW.digest: Valkey._draw,  # noqa: SLF001 (as above)
    scripts.MARK.digest: Valkey._mark,  # noqa: SLF001 (as above)
    scripts.MARKS.digest: Valkey._marks,  # noqa: SLF001 (as above)
    scripts.CLAIM.digest: Valkey._claim,  # noqa: SLF001 (as above)
    scripts.COMMIT.digest: Valkey._commit,  # noqa: SLF001 (as above)
    scripts.RELEASE.digest: Valkey._release,  # noqa: SLF001 (as above)
    scripts.PUT.digest: Valkey._put,  # noqa: SLF001 (as above)
    scripts.DELETE.digest: Valkey._remove,  # noqa: SLF001 (as above)
}
"""By the digest under which a script is called."""


def digits(number: int) -> bytes:
    return b"%016d" % number
