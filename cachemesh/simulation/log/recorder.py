"""`Recorder`: writes down what a cache is asked and what it decides, for `cachemesh replay`.

A thread of its own does all of the work; a cache hands lines over and goes on.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import secrets
import threading
import weakref
from itertools import pairwise
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cachemesh.shell.recording import Lost
from cachemesh.simulation.log.lines import VERSION, Header, Names, encoded

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import BinaryIO, Self

    from cachemesh.shell.recording import CommandLog

DEFAULT_MAX_BYTES: Final = 64 * 2**20
LEAST_MAX_BYTES: Final = 4_096

BATCH_S: Final = 0.05
"""So long lines gather before they are written together."""

BUFFER_BYTES: Final = 256 * 1024

CLOSE_GRACE_S: Final = 10.0
"""How long `close` waits for a disk."""


class Recorder:
    """Writes the command log of one cache to `path`, as lines of JSON.

    `clear_keys`: keys, tags and names of origins are written as they are;
    otherwise as hashes with a salt that is never written, so that nobody finds
    out a key by guessing. Ids of users are hashed always. Values and errors are
    never written, only the names of their types. A file grows to `max_bytes`;
    then it becomes `path.1`, what was `path.1` becomes `path.2`, and so on;
    `keep` older ones stay. What was under these names before goes the same way,
    if it is a file; anything else is left alone, and nothing is recorded. Files
    are for their owner's eyes only (mode 600). A second recorder on the same
    path, in this process or in another one, records nothing while the first one
    does: give each process a path of its own.

    With a recorder no hit is a plain one: each goes by the lock and the
    reducer, which costs some microseconds. A disk that fails costs no answer:
    the log ends there, the cache's logger hears of it once (`on_error`, under
    the key "recorder"), and `error` says why. Where the disk is slower than the
    cache for long, lines are left out, and the log says how many. A process
    that is forked records nothing: make the cache after the fork.

    >>> import tempfile
    >>> from returns.result import Success
    >>> from cachemesh import SyncCache
    >>> from cachemesh.simulation import replay
    >>> folder = tempfile.TemporaryDirectory()
    >>> with SyncCache(recorder=Recorder(f"{folder.name}/commands.log")) as cache:
    ...     _ = [cache.get("feed", lambda: Success("news"), ttl=60) for _ in range(3)]
    >>> [str(answer.kind) for answer in replay(f"{folder.name}/commands.log").answers]
    ['fetched', 'hit', 'hit']
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clear_keys: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
        keep: int = 4,
    ) -> None:
        if max_bytes < LEAST_MAX_BYTES:
            msg = f"max_bytes is at least {LEAST_MAX_BYTES}"
            raise ValueError(msg)
        if keep < 0:
            msg = "keep is a number of files"
            raise ValueError(msg)
        self._names = Names(secrets.token_bytes(32), clear_keys=clear_keys)
        self._files = Segments(Path(path).absolute(), max_bytes, keep, "clear" if clear_keys else "hashed")
        self._writer: Writer | None = None

    def __repr__(self) -> str:
        return f"<Recorder: {'not begun' if self._writer is None else self._files.state}>"

    @property
    def error(self) -> Exception | None:
        """Why nothing is written any more; None where all is well."""
        return None if self._writer is None else self._writer.error

    def hashed(self, key: str) -> str:
        """How `key` is named in this log."""
        return self._names.key(key)

    def begin(self, log: CommandLog) -> None:
        """Write down what comes into `log` from now on. ValueError where a cache is being recorded already."""
        if self._writer is not None:
            msg = "a recorder records one cache"
            raise ValueError(msg)
        self._writer = Writer(log, self._files, self._names)
        weakref.finalize(self, self._writer.end).atexit = False

    def close(self) -> None:
        """Return when all that has come is written, or after 10 seconds. A cache that is closed does this."""
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Writer:
    """The thread that writes. It knows the log, not the cache: a cache that is forgotten ends it."""

    def __init__(self, log: CommandLog, files: Segments, names: Names) -> None:
        self.error: Exception | None = None
        self._log = log
        self._files = files
        self._names = names
        self._ending = threading.Lock()
        """Held until the end: who waits for it waits no longer than that. A raw lock bears finalizers."""
        self._ending.acquire()
        self._thread = threading.Thread(target=self._run, name="cachemesh recorder", daemon=True)
        WRITERS.add(self)
        self._thread.start()

    def end(self) -> None:
        """Write what has come, and stop. Does not wait."""
        try:
            self._ending.release()
        except RuntimeError:  # It has been ended before.
            return
        self._log.lines.put(None)  # After that, so that whoever is woken by it finds the end.

    def close(self) -> None:
        self.end()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_GRACE_S)

    def stop_here(self) -> None:
        """Record nothing: in a process that was forked there is no such thread."""
        self._log.is_over = True
        self._files.leave()

    def _run(self) -> None:
        is_ending = False
        try:
            self._files.begin(self._log)
            while not is_ending:
                waiting = [self._log.lines.get()]
                is_ending = self._ending.acquire(timeout=BATCH_S)
                self._write(waiting)
                if not is_ending and self._ending.acquire(blocking=False):  # What was to wake it has just been read.
                    is_ending = True
                    self._write([])
        except Exception as error:  # noqa: BLE001 (a disk fails in many ways, and none of them may cost an answer)
            self._fail(error)
        self._log.is_over = True
        try:
            self._files.close()
        except OSError as error:
            self._fail(error)
        self._empty()

    def _write(self, waiting: list[Any]) -> None:
        """Write `waiting`, and all that has come since."""
        lines = self._log.lines
        while True:
            for line in waiting:
                if line is not None:
                    self._files.add(self._encoded(line))
            waiting.clear()
            try:
                waiting.append(lines.get_nowait())
            except Empty:
                break
        self._files.flush()

    def _encoded(self, line: Any) -> bytes:  # noqa: ANN401 (a Line)
        try:
            return encoded(line, self._names)
        except (TypeError, ValueError):  # What JSON cannot say: the log says that a line is missing.
            return encoded(Lost(1), self._names)

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            self._log.is_over = True
            self._log.report(error)

    def _empty(self) -> None:
        """Nobody will read what still came."""
        while True:
            try:
                self._log.lines.get_nowait()
            except Empty:
                return


class Segments:
    """The files of a log, the newest one open."""

    def __init__(self, path: Path, max_bytes: int, keep: int, keys: str) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._keys = keys
        self._file: BinaryIO | None = None
        self._header: Header | None = None
        self._buffer = bytearray()
        self._size = 0

    @property
    def state(self) -> str:
        return "closed" if self._file is None else "recording"

    def begin(self, log: CommandLog) -> None:
        """Open the first file, in place of what was there."""
        self._header = Header(
            cachemesh_log=VERSION,
            log=secrets.token_hex(8),
            segment=0,
            keys=self._keys,
            **msgspec.structs.asdict(log.beginning),
        )
        self._open()

    def add(self, line: bytes) -> None:
        """Write `line` soon."""
        if self._size + len(line) > self._max_bytes:
            assert self._header is not None
            self.close()
            self._header = msgspec.structs.replace(self._header, segment=self._header.segment + 1)
            self._open()
        self._buffer += line
        self._size += len(line)
        if len(self._buffer) >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what has been added to the operating system."""
        assert self._file is not None
        view = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        if self._file is not None:
            try:
                if self._buffer:
                    self.flush()
            finally:
                file, self._file = self._file, None
                with file:
                    give_up(file)

    def leave(self) -> None:
        """Let go of the file, in a child of the process that writes it: it would keep the claim."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _open(self) -> None:
        self._rotate()
        file = open(self._path, "xb", buffering=0, opener=_for_the_owner)  # noqa: SIM115 (it stays open; Path.open has no opener)
        try:
            claim(file, self._path)
        except OSError:
            file.close()
            raise
        self._file = file
        line = msgspec.json.encode(self._header) + b"\n"
        self._size = len(line)
        self._buffer += line
        self.flush()

    def _rotate(self) -> None:
        names = [self._path, *(older(self._path, number) for number in range(1, self._keep + 1))]
        for name in names:
            if name.exists() and not name.is_file():
                raise FileExistsError(errno.EEXIST, "Is no file, and is left alone", str(name))
        with unclaimed(self._path):
            for newer, old in reversed(list(pairwise(names))):
                if newer.exists():
                    newer.replace(old)
            self._path.unlink(missing_ok=True)


def claim(file: BinaryIO, path: Path) -> None:
    """Keep other recorders from rotating `file` away from `path`. BlockingIOError where one is about to.

    The system lets go of the claim when every process that has inherited the
    file has closed it, or is dead. A file system without locks has no claims.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_there = False
    except OSError:  # The file system has no locks.
        return
    if not is_there:
        raise BlockingIOError(errno.EAGAIN, "Another recorder writes this log", str(path))


def give_up(file: BinaryIO) -> None:
    """Let go of the claim at once, also where the child of a fork still has the file."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # The file system has no locks.
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)


@contextlib.contextmanager
def unclaimed(path: Path) -> Iterator[None]:
    """For as long as this lasts, nobody can claim the file at `path`. BlockingIOError where somebody has."""
    try:
        file = path.open("rb")
    except (FileNotFoundError, PermissionError):  # Of another user's file nothing can be said.
        yield
        return
    with file:
        claim(file, path)
        try:
            yield
        finally:
            give_up(file)


def older(path: Path, number: int) -> Path:
    """The name of an older file of the log at `path`: 1 is the last one before it."""
    return path.with_name(f"{path.name}.{number}")


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


WRITERS: Final[weakref.WeakSet[Writer]] = weakref.WeakSet()


def _close_all() -> None:
    for writer in list(WRITERS):
        writer.close()


def _stop_all() -> None:
    for writer in list(WRITERS):
        writer.stop_here()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stop_all)
