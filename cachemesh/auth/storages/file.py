"""A token in a file of its own, for all processes of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachemesh.auth.ports import Kept
from cachemesh.auth.storages.guard import FlockGuard
from cachemesh.auth.storages.private import prepare_folder, read_private, sync_folder, telling, write_private
from cachemesh.auth.storages.record import NOTHING, next_version, read_back, written
from cachemesh.stores.sqlite.lock import HAS_LOCKS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from cachemesh.auth.storages.record import Cipher
    from cachemesh.auth.token import Token

CONTEXT: Final = b"cachemesh token file"


class FileTokenStorage:
    """Keeps a token in the file `path`, with mode 0600 whatever the umask. It is replaced whole, and synced.

    The folder is made, for nobody else, where it is missing. Refused, with an
    `UnsafeStorageError`: a folder that others may write in (unless it is sticky,
    as `/tmp` is), or that somebody else owns (but root); in the place of the
    file a link, somebody else's file, and one that others have rights on.
    What is there and cannot be read is an `UnreadableTokenError`, never "signed
    out"; after `discard` there is room for a new token.

    `cipher`: a `TokenCipher` enciphers what is written; without one the file
    has the token in clear. Two more files beside it, `.lock` and `.refresh`,
    are for the processes that share it. On a system without `flock` (Windows)
    it is a NotImplementedError; `SqliteTokenStorage` works there.

    >>> import tempfile
    >>> from cachemesh.auth.token import Token
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     storage = FileTokenStorage(f"{folder}/token.json")
    ...     _ = storage.swap(storage.read().version, Token(access_token="s3cret"))
    ...     FileTokenStorage(f"{folder}/token.json").read().token
    Token(access_token=***, refresh_token=None, expires_at=None, scopes=(), token_type='Bearer', metadata=<0>)
    """

    is_near: Final = False

    def __init__(self, path: str | os.PathLike[str], *, cipher: Cipher | None = None) -> None:
        if not HAS_LOCKS:
            msg = "FileTokenStorage needs flock, which this system has not; SqliteTokenStorage does without"
            raise NotImplementedError(msg)
        self.path: Final = Path(path)
        self._cipher: Final = cipher
        self._guard: Final = FlockGuard(self.path)

    def __repr__(self) -> str:
        return f"FileTokenStorage({str(self.path)!r})"

    def read(self) -> Kept:
        """What is kept now. No lock is needed: the file is always whole."""
        with telling("the token could not be read"):
            return self._read() if self.path.parent.is_dir() else NOTHING

    def swap(self, expected: int, token: Token | None, /) -> int | None:
        """Keep `token` if the version is still `expected`: the new version, or None."""
        with telling("the token could not be kept"):
            prepare_folder(self.path.parent)
            with self._guard.held():
                if self._read().version != expected:
                    return None
                version = next_version(expected)
                write_private(self.path, written(Kept(token, version), self._cipher, CONTEXT))
                return version

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        """The right to refresh; None: somebody has it."""
        with telling("the right to refresh could not be asked for"):
            prepare_folder(self.path.parent)
            return self._guard.try_lock(holds_s)

    def discard(self) -> None:
        """Remove the file, whatever is in it. Nobody is signed in then."""
        with telling("the token could not be removed"):
            if self.path.parent.is_dir():
                with self._guard.held():
                    self.path.unlink(missing_ok=True)
                    sync_folder(self.path.parent)

    def _read(self) -> Kept:
        prepare_folder(self.path.parent)
        content = read_private(self.path)
        return NOTHING if content is None else read_back(content, self._cipher, CONTEXT)
