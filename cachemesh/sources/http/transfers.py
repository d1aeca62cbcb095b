"""Files that come and go: a download is there whole or not at all, an upload is read as it is sent.

All that waits for a disk is in methods that may be called from another thread.
What a callback or a disk does wrong arrives as a `RefusedError`.
"""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from cachemesh.sources.failure import FailureKind, NetworkFailure, without_frames
from cachemesh.sources.http.refusals import RefusedError, refuse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    Progress = Callable[[int, int | None], object]

PIECE: Final = 256 * 1024
"""Bytes that are read of a file, and kept of a download, before a disk is asked again."""


NAME_LENGTH: Final = 50
"""Characters of a file's name that are in that of its part: file systems take 255 bytes."""


class Download:
    """Where a body goes: a file that has its name only once it is whole, or an open one."""

    def __init__(self, to: Path | IO[bytes], progress: Progress | None) -> None:
        if not isinstance(to, Path) and not callable(getattr(to, "write", None)):
            refuse("to: a Path, or a file that is open for writing bytes")
        self._to = to
        self._progress = progress
        self._lock = threading.Lock()
        self._pending: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._start: int | None = None
        self._part: Path | None = None
        self._is_new = True
        self._is_over = False
        self._total: int | None = None
        self._waiting = 0
        self.done = 0

    def begin(self, total: int | None) -> None:
        """A body begins; what came of an earlier attempt is nothing."""
        self._pending.clear()
        self._waiting = self.done = 0
        self._total = total
        self._is_new = True

    def take(self, data: bytes) -> None:
        """The next bytes of it."""
        self._pending.append(data)
        self._waiting += len(data)
        self.done += len(data)
        told(self._progress, self.done, self._total)

    @property
    def is_full(self) -> bool:
        """Whether it is time to `spill`."""
        return self._waiting >= PIECE

    def spill(self) -> None:
        """Write what has come. For a thread that may wait."""
        pending, self._pending, self._waiting = self._pending, [], 0
        with self._lock:
            if self._is_over:
                return
            try:
                file = self._opened()
                for data in pending:
                    _write(file, data)
            except Exception as error:  # noqa: BLE001 (a file of the user's may raise anything)
                _cannot("written", error)

    def commit(self) -> None:
        """That was all: write the rest, and give the file its name."""
        self.spill()
        with self._lock:
            try:
                file = self._opened()
                file.flush()
                if self._part is not None and isinstance(self._to, Path):
                    os.fsync(file.fileno())
                    file.close()
                    self._part.replace(self._to)
                self._is_over = True
            except Exception as error:  # noqa: BLE001 (as above)
                _cannot("written", error)

    def abandon(self) -> None:
        """Nothing came of it: leave nothing behind, as far as the file allows. After `commit`, nothing."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
            file = self._file
            if file is None:
                return
            with suppress(Exception):  # There is a failure already; a file that cannot be rewound stays as it is.
                if self._part is not None:
                    file.close()
                    self._part.unlink(missing_ok=True)
                else:
                    self._rewind(file)

    def _opened(self) -> IO[bytes]:
        file = self._file
        if file is None:
            if isinstance(self._to, Path):
                self._part = self._to.with_name(f".{self._to.name[:NAME_LENGTH]}.{secrets.token_hex(8)}.part")
                file = self._file = self._part.open("xb")
                self._start = 0
            else:
                file = self._file = self._to
                with suppress(Exception):  # Not every file knows where it is.
                    self._start = file.tell() if file.seekable() else None
        elif self._is_new:
            self._rewind(file)
        self._is_new = False
        return file

    def _rewind(self, file: IO[bytes]) -> None:
        if self._start is None:
            msg = "it cannot be rewound"
            raise OSError(msg)
        file.seek(self._start)
        file.truncate()


def _write(file: IO[bytes], data: bytes) -> None:
    """A raw file may take a part only."""
    view = memoryview(data)
    while view:
        written: Any = file.write(view)  # A file of the user's may say nothing.
        view = view[len(view) if written is None else written :]


class Upload:
    """What is sent: bytes, a file by its path, or one that is open, from where it stands."""

    def __init__(self, source: Path | IO[bytes] | bytes, progress: Progress | None) -> None:
        if not isinstance(source, Path | bytes) and not callable(getattr(source, "read", None)):
            refuse("source: bytes, a Path, or a file that is open for reading bytes")
        self._source = source
        self._progress = progress
        self._start: int | None = None
        self._file: IO[bytes] | None = None
        self._done = 0
        self.total: int | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether it can be sent once more."""
        return isinstance(self._source, Path | bytes) or self._start is not None

    def measure(self) -> None:
        """See how much there is. For a thread that may wait."""
        source = self._source
        try:
            if isinstance(source, bytes):
                self.total = len(source)
            elif isinstance(source, Path):
                self.total = source.stat().st_size
            elif source.seekable():
                self._start = source.tell()
                self.total = max(0, source.seek(0, os.SEEK_END) - self._start)
                source.seek(self._start)
        except Exception as error:  # noqa: BLE001 (a file of the user's may raise anything)
            _cannot("read", error)

    def begin(self) -> None:
        """Open or rewind the file. For a thread that may wait."""
        self._done = 0
        try:
            if isinstance(self._source, Path):
                self._file = self._source.open("rb")
            elif not isinstance(self._source, bytes):
                self._file = self._source
                if self._start is not None:
                    self._file.seek(self._start)
        except Exception as error:  # noqa: BLE001 (as above)
            _cannot("read", error)

    def piece(self) -> bytes:
        """The next bytes; none at the end. For a thread that may wait."""
        if isinstance(self._source, bytes):
            return self._source[self._done : self._done + PIECE]
        assert self._file is not None
        try:
            data = self._file.read(PIECE)
        except Exception as error:  # noqa: BLE001 (as above)
            _cannot("read", error)
        if not isinstance(data, bytes):
            refuse("source: the file does not read bytes")
        return data

    def sent(self, data: bytes) -> None:
        """`data` is on its way."""
        self._done += len(data)
        told(self._progress, self._done, self.total)

    def end(self) -> None:
        """Close what was opened here."""
        if isinstance(self._source, Path) and self._file is not None:
            self._file.close()


class Pieces:
    """What a source must know of an upload."""

    def __init__(self, upload: Upload) -> None:
        self.upload = upload

    @property
    def is_repeatable(self) -> bool:
        return self.upload.is_repeatable

    @property
    def headers(self) -> Mapping[str, str]:
        """How much there will be, where that is known: else it goes in chunks."""
        total = self.upload.total
        return {} if total is None else {"content-length": str(total)}


class SyncPieces(Pieces):
    """An upload as a client of the threaded face sends it."""

    def __iter__(self) -> Iterator[bytes]:
        upload = self.upload
        upload.begin()
        try:
            while data := upload.piece():
                yield data
                upload.sent(data)
        finally:
            upload.end()


class AsyncPieces(Pieces):
    """An upload as an asynchronous client sends it: `run` calls a function in another thread."""

    def __init__(self, upload: Upload, run: Callable[..., Awaitable[Any]]) -> None:
        super().__init__(upload)
        self._run = run

    async def __aiter__(self) -> AsyncIterator[bytes]:
        upload = self.upload
        await self._run(upload.begin)
        try:
            while data := await self._run(upload.piece):
                yield data
                upload.sent(data)
        finally:
            upload.end()


def told(progress: Progress | None, done: int, total: int | None) -> None:
    """Tell `progress`. Where it raises, that is the end of it."""
    if progress is None:
        return
    try:
        progress(done, total)
    except Exception as error:  # noqa: BLE001 (a callback of the user's may raise anything)
        message = f"progress raised {type(error).__name__}"
        raise RefusedError(
            NetworkFailure(kind=FailureKind.CANCELLED, message=message, cause=without_frames(error))
        ) from None


def _cannot(what: str, error: Exception) -> NoReturn:
    """A disk is not the network: to ask the origin again would not help."""
    if isinstance(error, RefusedError):
        raise error
    message = f"the file cannot be {what}: {type(error).__name__}"
    raise RefusedError(NetworkFailure(kind=FailureKind.UNKNOWN, message=message, cause=without_frames(error))) from None
