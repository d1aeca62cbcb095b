"""What tests of storages let other processes do: `python storage_children.py ROLE KIND FOLDER ARGUMENTS`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from keyring.backend import KeyringBackend

from cachemesh.auth.storages.file import FileTokenStorage
from cachemesh.auth.storages.keyring import KeyringTokenStorage
from cachemesh.auth.storages.sqlite import SqliteTokenStorage
from cachemesh.auth.token import Token

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachemesh.auth.ports import TokenStorage

KINDS: Final = ("file", "sqlite", "keyring")


class FolderKeyring(KeyringBackend):
    """A keyring with a file for each password, for tests: it has no locks, as real ones have none."""

    priority = 0.5  # A property of the class, there.

    def __init__(self, folder: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.folder = folder

    def get_password(self, service: str, username: str) -> str | None:
        try:
            return self._path(service, username).read_text()
        except FileNotFoundError:
            return None

    def set_password(self, service: str, username: str, password: str) -> None:
        draft = self._path(service, f"{username}.new")
        draft.write_text(password)
        draft.replace(self._path(service, username))

    def delete_password(self, service: str, username: str) -> None:
        self._path(service, username).unlink()

    def _path(self, service: str, username: str) -> Path:
        return self.folder / f"{service}-{username}"


def storage_at(kind: str, folder: Path) -> TokenStorage:
    """The storage of `kind` in `folder`."""
    if kind == "file":
        return FileTokenStorage(folder / "token.json")
    if kind == "sqlite":
        return SqliteTokenStorage(folder / "tokens.db")
    return KeyringTokenStorage("app", "ada", backend=FolderKeyring(folder), lock_folder=folder / "locks")


def count_up(storage: TokenStorage, number: str, times: str) -> None:
    """Add one to the number in the token, `times` times, however often somebody else is first."""
    done = 0
    while done < int(times):
        kept = storage.read()
        count = 0 if kept.token is None else int(kept.token.access_token)
        done += storage.swap(kept.version, Token(access_token=str(count + 1), metadata={"by": number})) is not None


def count_locked(storage: TokenStorage, folder: str, times: str) -> None:
    """The same on a plain file, which only the right to refresh keeps from losing counts."""
    path = Path(folder) / "count"
    done = 0
    while done < int(times):
        give_back = storage.try_lock(30.0)
        if give_back is None:
            time.sleep(0.001)
            continue
        count = int(path.read_text())
        time.sleep(0.0005)
        path.write_text(str(count + 1))
        give_back()
        done += 1


def hold(storage: TokenStorage, holds_s: str) -> None:
    """Take the right to refresh, say so, and hang."""
    assert storage.try_lock(float(holds_s)) is not None
    print("held", flush=True)  # noqa: T201 (what the parent waits for)
    time.sleep(60)


def write_for_ever(storage: TokenStorage) -> None:
    """Write tokens until somebody kills us."""
    number = 0
    print("begun", flush=True)  # noqa: T201 (as above)
    while True:
        number += 1
        storage.swap(storage.read().version, Token(access_token=str(number), refresh_token="r" * 20_000))


ROLES: Final[Mapping[str, Callable[..., None]]] = {
    each.__name__: each for each in (count_up, count_locked, hold, write_for_ever)
}

if __name__ == "__main__":
    role, kind, folder, *arguments = sys.argv[1:]
    ROLES[role](storage_at(kind, Path(folder)), *arguments)
