"""A token in the keyring of the system, through the package `keyring`. It needs the extra `keyring`."""

from __future__ import annotations

from contextlib import contextmanager
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if find_spec("keyring") is None:
    message = "KeyringTokenStorage needs the extra `keyring`: pip install 'cachemesh[keyring]'"
    raise ModuleNotFoundError(message, name="keyring")

import keyring
from keyring.util.platform_ import data_root

from cachemesh.auth.ports import Kept
from cachemesh.auth.storages.database import Database, Lease
from cachemesh.auth.storages.errors import TokenStorageError
from cachemesh.auth.storages.guard import FlockGuard
from cachemesh.auth.storages.private import prepare_folder, telling
from cachemesh.auth.storages.record import NOTHING, next_version, read_back, written
from cachemesh.stores.sqlite.lock import HAS_LOCKS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from keyring.backend import KeyringBackend

    from cachemesh.auth.storages.guard import Guard
    from cachemesh.auth.token import Token


class KeyringTokenStorage:
    """Keeps a token as the password of `user` for `service`, in `backend` or in the one that `keyring` finds.

    It is as safe as that backend: some third-party ones write in clear. Calls
    wait for as long as the system asks the user to unlock the keyring, which may
    be longer than the `storage_timeout` that a keeper has by default. What the
    backend raises, and that there is none, is a `TokenStorageError`. What is
    written is read back, since some backends keep nothing, or not all: the
    Credential Manager of Windows takes 1,280 characters, which is less than
    some JSON Web Tokens have (`SqliteTokenStorage` with a cipher takes any).

    A keyring has no locks. So there are files without secrets in `lock_folder`,
    by default beside the package's own data; processes that share a token must
    agree on it.
    """

    is_near: Final = False

    def __init__(
        self,
        service: str,
        user: str = "token",
        *,
        backend: KeyringBackend | None = None,
        lock_folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.service: Final = service
        self.user: Final = user
        self._backend: Final = backend
        folder = Path(data_root()) / "cachemesh" if lock_folder is None else Path(lock_folder)
        name = blake2b(repr((service, user)).encode(), digest_size=16, person=b"cachemesh lock").hexdigest()
        self._folder: Final = folder
        self._guard: Final[Guard] = FlockGuard(folder / name) if HAS_LOCKS else DatabaseGuard(folder / "locks.db", name)

    def __repr__(self) -> str:
        return f"KeyringTokenStorage({self.service!r}, {self.user!r})"

    def read(self) -> Kept:
        """What is kept now."""
        with self._telling("read"):
            content = self._keyring().get_password(self.service, self.user)
        return NOTHING if content is None else read_back(content.encode(), None, b"")

    def swap(self, expected: int, token: Token | None, /) -> int | None:
        """Keep `token` if the version is still `expected`: the new version, or None."""
        with self._held():
            if self.read().version != expected:
                return None
            version = next_version(expected)
            content = written(Kept(token, version), None, b"").decode()
            with self._telling("write"):
                backend = self._keyring()
                backend.set_password(self.service, self.user, content)
                there = backend.get_password(self.service, self.user)
            if there != content:
                msg = f"the keyring did not keep the {len(content)} characters that it was given"
                raise TokenStorageError(msg)
            return version

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        """The right to refresh; None: somebody has it."""
        with telling("the right to refresh could not be asked for"):
            prepare_folder(self._folder)
            return self._guard.try_lock(holds_s)

    def discard(self) -> None:
        """Remove the password, whatever it is. Nobody is signed in then."""
        with self._held(), self._telling("remove"):
            backend = self._keyring()
            if backend.get_password(self.service, self.user) is not None:
                backend.delete_password(self.service, self.user)

    def _keyring(self) -> KeyringBackend:
        return keyring.get_keyring() if self._backend is None else self._backend

    @contextmanager
    def _held(self) -> Iterator[None]:
        with telling("the token could not be kept"):
            prepare_folder(self._folder)
            with self._guard.held():
                yield

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """What a backend raises, without its text: that may quote, and it may be anybody's."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (as above)
            told = TokenStorageError(f"the keyring could not {what}: {type(error).__name__}")
        else:
            return
        raise told


class DatabaseGuard:
    """For systems without `flock`: transactions on a file of their own exclude each other."""

    def __init__(self, path: Path, name: str) -> None:
        self._database: Final = Database(path)
        self._lease: Final = Lease(self._database, name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """While nobody else has it."""
        with self._database.writing():
            yield

    def try_lock(self, holds_s: float, /) -> Callable[[], None] | None:
        """The right to refresh, for `holds_s`; None: somebody has it."""
        return self._lease.try_lock(holds_s)
