"""The storages of tokens: the contract, other processes, who else may read, and what cannot be read."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keyring
import pytest
from keyring.backends.fail import Keyring as NoKeyring
from keyring.backends.null import Keyring as NullKeyring
from keyring.errors import KeyringLocked

from cachemesh.auth import MemoryTokenStorage, Token
from cachemesh.auth.storages import database, guard
from cachemesh.auth.storages.cipher import TokenCipher
from cachemesh.auth.storages.contract import TokenStorageContract
from cachemesh.auth.storages.database import Database, Lease, is_over
from cachemesh.auth.storages.errors import TokenStorageError, UnreadableTokenError, UnsafeStorageError
from cachemesh.auth.storages.file import FileTokenStorage
from cachemesh.auth.storages.keyring import DatabaseGuard, KeyringTokenStorage
from cachemesh.auth.storages.sqlite import SqliteTokenStorage
from tests.auth.storage_children import FolderKeyring, storage_at

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cachemesh.auth.ports import TokenStorage

CHILDREN = Path(__file__).with_name("storage_children.py")
ROOT = CHILDREN.parents[2]
CANARY = Token(access_token="canary-access", refresh_token="canary-refresh")

is_posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")


class Contract(TokenStorageContract):
    kind = ""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "place"
        self.folder.mkdir(mode=0o700)

    def make_storage(self) -> TokenStorage:
        return storage_at(self.kind, self.folder)

    def make_peer(self, storage: TokenStorage) -> TokenStorage:
        del storage
        return self.make_storage()


class TestFile(Contract):
    kind = "file"


class TestSqlite(Contract):
    kind = "sqlite"


class TestKeyring(Contract):
    kind = "keyring"


class TestMemory(TokenStorageContract):
    def make_storage(self) -> TokenStorage:
        return MemoryTokenStorage()


class TestEncipheredFile(Contract):
    def make_storage(self) -> TokenStorage:
        return FileTokenStorage(self.folder / "token", cipher=TokenCipher(b"k" * 32))


class TestEncipheredSqlite(Contract):
    def make_storage(self) -> TokenStorage:
        return SqliteTokenStorage(self.folder / "tokens.db", cipher=TokenCipher(b"k" * 32))


class TestSqliteWithoutFlock(Contract):
    kind = "sqlite"

    @pytest.fixture(autouse=True)
    def _no_flock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "HAS_LOCKS", False)


class TestKeyringWithoutFlock(Contract):
    def make_storage(self) -> TokenStorage:
        storage = storage_at("keyring", self.folder)
        assert isinstance(storage, KeyringTokenStorage)
        storage._guard = DatabaseGuard(self.folder / "locks.db", "token")  # type: ignore[misc]
        return storage


# Who else may read


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@is_posix
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_se10_a_file_is_for_its_owner_alone_whatever_the_umask(
    kind: str, umask: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first moment on: that is, when it is opened for the first time."""
    del umask
    modes: list[int] = []
    really = os.open

    def watched(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        descriptor = really(path, flags, mode, **more)
        if flags & os.O_CREAT:
            modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    storage = storage_at(kind, tmp_path)
    for token in (CANARY, None, CANARY):
        assert storage.swap(storage.read().version, token) is not None

    assert modes
    assert all(mode & 0o077 == 0 for mode in modes)
    path = tmp_path / ("token.json" if kind == "file" else "tokens.db")
    assert mode_of(path) == 0o600


@is_posix
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_se10_a_folder_that_is_made_is_for_its_owner_alone(kind: str, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        storage = storage_at(kind, tmp_path / "a" / "b")
        assert storage.read().token is None
        assert not (tmp_path / "a").exists()
        storage.swap(0, CANARY)
    finally:
        os.umask(before)

    assert mode_of(tmp_path / "a" / "b") == mode_of(tmp_path / "a") == 0o700


def refused(storage: TokenStorage) -> None:
    """Nothing is read, nothing is written."""
    with pytest.raises(UnsafeStorageError) as caught:
        storage.read()
    assert "canary" not in str(caught.value)
    with pytest.raises(UnsafeStorageError):
        storage.swap(0, CANARY)


@is_posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_se10_a_file_that_others_have_rights_on_is_refused(kind: str, mode: int, tmp_path: Path) -> None:
    storage = storage_at(kind, tmp_path)
    storage.swap(0, CANARY)
    next(tmp_path.glob("token*[nb]")).chmod(mode)

    refused(storage)


@is_posix
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_se10_a_link_is_refused(kind: str, tmp_path: Path) -> None:
    """What it leads to is neither read nor overwritten."""
    other = storage_at(kind, tmp_path / "other")
    other.swap(0, CANARY)
    kept = other.read()
    folder = tmp_path / "place"
    folder.mkdir(mode=0o700)
    target = next((tmp_path / "other").glob("token*[nb]"))
    (folder / target.name).symlink_to(target)

    refused(storage_at(kind, folder))
    assert other.read() == kept


@is_posix
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_se10_a_pipe_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ("token.json" if kind == "file" else "tokens.db"), 0o600)

    refused(storage_at(kind, tmp_path))


@is_posix
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_se10_a_folder_that_others_may_write_in_is_refused_unless_it_is_sticky(kind: str, tmp_path: Path) -> None:
    storage = storage_at(kind, tmp_path)
    storage.swap(0, CANARY)
    tmp_path.chmod(0o777)
    refused(storage)

    tmp_path.chmod(0o1777)
    assert storage.read().token == CANARY


@is_posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("kind", ["file", "sqlite"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_se10_what_is_somebody_elses_is_refused(kind: str, what: str, tmp_path: Path) -> None:
    storage = storage_at(kind, tmp_path)
    storage.swap(0, CANARY)
    os.chown(next(tmp_path.glob("token*[nb]")) if what == "file" else tmp_path, 12_345, -1)

    refused(storage)


def test_se10_a_token_is_in_no_file_but_the_one_that_was_chosen(tmp_path: Path) -> None:
    """In clear there; with a cipher nowhere, and not after it was removed either."""
    for kind in ("file", "sqlite"):
        storage = storage_at(kind, tmp_path / kind)
        storage.swap(0, CANARY)
        chosen = "token.json" if kind == "file" else "tokens.db"
        assert [path.name for path in with_canary(tmp_path / kind)] == [chosen]
        storage.swap(storage.read().version, None)
        assert with_canary(tmp_path / kind) == []

    for storage in (
        FileTokenStorage(tmp_path / "hidden" / "token", cipher=TokenCipher(b"k" * 32)),
        SqliteTokenStorage(tmp_path / "hidden" / "tokens.db", cipher=TokenCipher(b"k" * 32)),
    ):
        storage.swap(0, CANARY)
        assert storage.read().token == CANARY
    assert with_canary(tmp_path / "hidden") == []
    memory = MemoryTokenStorage(CANARY)
    assert "canary" not in repr(memory)
    assert with_canary(tmp_path) == []


def with_canary(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


# What cannot be read

GARBAGE = [
    b"",
    b"\0" * 4_096,
    b"garbage",
    b"null",
    b"[]",
    b"{}",
    b'{"access_token": "canary"}',
    b'{"format":2,"version":5,"token":null}',
    b'{"format":1,"token":null}',
    b'{"format":1,"version":true,"token":null}',
    b'{"format":1,"version":-5,"token":null}',
    b'{"format":1,"version":5}',
    b'{"format":1,"version":5,"token":"canary"}',
    b'{"format":1,"version":5,"token":{"access_token":"canary\\n"}}',
    b'{"format":1,"version":5,"token":{"access_token":"canary"',
    b"{" * 100_000,
    b"x" * (2 << 20),
]


@pytest.mark.parametrize("content", GARBAGE, ids=lambda content: str(content[:40]))
def test_a_damaged_file_is_an_error_and_not_a_sign_out(content: bytes, tmp_path: Path) -> None:
    """Nothing is written over it either, until it is discarded; then there is room."""
    storage = FileTokenStorage(tmp_path / "token.json")
    first = storage.swap(0, CANARY)
    assert first is not None
    storage.path.write_bytes(content)

    for use in (storage.read, lambda: storage.swap(0, CANARY), lambda: storage.swap(first, None)):
        with pytest.raises(UnreadableTokenError) as caught:
            use()
        assert "canary" not in str(caught.value)
    assert storage.path.read_bytes() == content

    storage.discard()
    assert storage.read().token is None
    assert storage.swap(first, CANARY) is None, "whoever read before must not write after"
    second = storage.swap(storage.read().version, CANARY)
    assert second is not None
    assert second > first


def test_each_truncation_of_a_file_is_an_error(tmp_path: Path) -> None:
    storage = FileTokenStorage(tmp_path / "token.json")
    storage.swap(0, CANARY)
    whole = storage.path.read_bytes()
    for length in range(len(whole)):
        storage.path.write_bytes(whole[:length])
        with pytest.raises(UnreadableTokenError):
            storage.read()


@pytest.mark.parametrize("content", [b"garbage" * 1_000, b"SQLite format 3\0" + b"x" * 5_000])
def test_a_damaged_database_is_an_error_and_not_a_sign_out(content: bytes, tmp_path: Path) -> None:
    storage = SqliteTokenStorage(tmp_path / "tokens.db")
    storage.swap(0, CANARY)
    storage.path.write_bytes(content)

    for use in (storage.read, lambda: storage.swap(0, CANARY), lambda: storage.try_lock(1)):
        with pytest.raises(UnreadableTokenError):
            use()
    storage.discard()
    assert storage.swap(storage.read().version, CANARY) is not None


def test_a_database_of_another_program_or_version_is_left_alone(tmp_path: Path) -> None:
    for number, statement in enumerate(
        ("CREATE TABLE theirs (x)", "PRAGMA application_id=7", f"PRAGMA application_id={database.APPLICATION_ID}")
    ):
        storage = SqliteTokenStorage(tmp_path / str(number))
        connection = sqlite3.connect(storage.path)
        connection.execute(statement)
        connection.close()
        storage.path.chmod(0o600)
        for use in (storage.read, lambda storage=storage: storage.swap(0, CANARY)):
            with pytest.raises(UnreadableTokenError):
                use()


@pytest.mark.parametrize("row", [(5, b"garbage"), (5, b'{"format":1,"version":6,"token":null}')])
def test_a_damaged_row_is_an_error_and_others_are_whole(row: tuple[int, bytes], tmp_path: Path) -> None:
    ada, bob = (SqliteTokenStorage(tmp_path / "tokens.db", name) for name in ("ada", "bob"))
    for each in (ada, bob):
        each.swap(0, CANARY)
    with sqlite3.connect(ada.path) as connection:
        connection.execute("UPDATE tokens SET version = ?, content = ? WHERE name = 'ada'", row)
    connection.close()

    with pytest.raises(UnreadableTokenError):
        ada.read()
    assert bob.read().token == CANARY
    ada.discard()
    assert ada.swap(ada.read().version, None) is not None
    assert bob.read().token == CANARY


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_a_full_disk_leaves_what_was_there(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = storage_at(kind, tmp_path)
    storage.swap(0, CANARY)
    kept = storage.read()
    if kind == "file":

        def full(descriptor: int) -> None:
            del descriptor
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(TokenStorageError, match="No space left"):
            storage.swap(kept.version, None)
        monkeypatch.undo()
    else:
        other = sqlite3.connect(tmp_path / "tokens.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(database, "WAIT_S", 0.05)
        with pytest.raises(TokenStorageError, match="SQLITE_BUSY"):
            storage.swap(kept.version, None)
        other.execute("ROLLBACK")
        other.close()

    assert storage.read() == kept
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".new", "-journal"))] == []


def test_who_holds_the_lock_of_a_file_for_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = FileTokenStorage(tmp_path / "token")
    monkeypatch.setattr(guard, "WAIT_S", 0.05)
    with storage._guard.held(), pytest.raises(TokenStorageError, match="LockTimeoutError"):
        storage.swap(0, CANARY)


def test_what_a_crashed_writer_has_left_is_written_over(tmp_path: Path) -> None:
    storage = FileTokenStorage(tmp_path / "token")
    (tmp_path / "token.new").write_bytes(b"half")

    assert storage.swap(0, CANARY) is not None
    assert storage.read().token == CANARY
    assert not (tmp_path / "token.new").exists()


def test_a_path_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "token", Path("a\0b")):
        for kind in (FileTokenStorage, SqliteTokenStorage):
            with pytest.raises(TokenStorageError):
                kind(path).swap(0, CANARY)


def test_a_lease_from_before_the_clock_was_set_back_ends(tmp_path: Path) -> None:
    assert [is_over(100.0, 30.0, now) for now in (100.0, 129.9, 130.0, 99.0, 69.0)] == [False, False, True, False, True]
    lease = Lease(Database(tmp_path / "tokens.db"), "ada")
    give_back = lease.try_lock(30)
    assert give_back is not None
    with sqlite3.connect(tmp_path / "tokens.db") as connection:
        connection.execute("UPDATE leases SET taken_at = taken_at + 1000")
    connection.close()

    taken = lease.try_lock(30)
    assert taken is not None
    give_back()
    assert lease.try_lock(30) is None
    taken()


# The keyring of the system


def test_without_a_backend_the_keyring_is_an_error(tmp_path: Path) -> None:
    storage = KeyringTokenStorage("app", backend=NoKeyring(), lock_folder=tmp_path)  # type: ignore[no-untyped-call]
    for use in (storage.read, lambda: storage.swap(0, CANARY), storage.discard):
        with pytest.raises(TokenStorageError, match="NoKeyringError"):
            use()


def test_a_backend_that_keeps_nothing_or_not_all_is_an_error(tmp_path: Path) -> None:
    class Short(FolderKeyring):
        def set_password(self, service: str, username: str, password: str) -> None:
            super().set_password(service, username, password[:20])

    for number, backend in enumerate((NullKeyring(), Short(tmp_path))):  # type: ignore[no-untyped-call]
        storage = KeyringTokenStorage("app", str(number), backend=backend, lock_folder=tmp_path / "locks")
        with pytest.raises(TokenStorageError, match="did not keep"):
            storage.swap(0, CANARY)


def test_what_a_backend_raises_is_told_without_its_text(tmp_path: Path) -> None:
    class Locked(FolderKeyring):
        def set_password(self, *arguments: str) -> None:
            raise KeyringLocked(arguments)

    storage = KeyringTokenStorage("app", backend=Locked(tmp_path), lock_folder=tmp_path / "locks")
    with pytest.raises(TokenStorageError, match="KeyringLocked") as caught:
        storage.swap(0, CANARY)
    assert "canary" not in str(caught.value)


def test_a_damaged_password_is_an_error_until_it_is_discarded(tmp_path: Path) -> None:
    backend = FolderKeyring(tmp_path)
    storage = KeyringTokenStorage("app", backend=backend, lock_folder=tmp_path / "locks")
    backend.set_password("app", "token", "garbage")
    with pytest.raises(UnreadableTokenError):
        storage.read()

    storage.discard()
    assert storage.swap(storage.read().version, CANARY) is not None
    assert with_canary(tmp_path / "locks") == []


def test_the_keyring_is_the_one_that_the_package_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    backend = FolderKeyring(tmp_path)
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    try:
        storage = KeyringTokenStorage("app")
        storage.swap(0, CANARY)
    finally:
        keyring.set_keyring(before)
    assert backend.get_password("app", "token") is not None
    assert (tmp_path / "data").is_dir()


# The cipher


def test_a_token_is_deciphered_with_its_key_and_at_its_place_only(tmp_path: Path) -> None:
    old, new = b"o" * 32, b"n" * 32
    path = tmp_path / "tokens.db"
    SqliteTokenStorage(path, "ada", cipher=TokenCipher(old)).swap(0, CANARY)

    for cipher in (None, TokenCipher(new)):
        with pytest.raises(UnreadableTokenError):
            SqliteTokenStorage(path, "ada", cipher=cipher).read()
    both = SqliteTokenStorage(path, "ada", cipher=TokenCipher([new, old]))
    kept = both.read()
    assert kept.token == CANARY

    assert both.swap(kept.version, CANARY) is not None
    assert SqliteTokenStorage(path, "ada", cipher=TokenCipher(new)).read().token == CANARY
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO tokens SELECT 'bob', version, content FROM tokens")
    connection.close()
    with pytest.raises(UnreadableTokenError):
        SqliteTokenStorage(path, "bob", cipher=TokenCipher(new)).read()


def test_a_cipher_shows_no_key_and_takes_no_other() -> None:
    assert "kkk" not in repr(TokenCipher(b"k" * 32))
    for bad in (b"short", [], [b"k" * 31], "k" * 32):
        with pytest.raises(ValueError, match="32 bytes"):
            TokenCipher(bad)  # type: ignore[arg-type]
