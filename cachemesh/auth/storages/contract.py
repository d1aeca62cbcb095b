"""What every storage of tokens promises, as tests that a storage of your own inherits.

    class TestMyStorage(TokenStorageContract):
        def make_storage(self) -> TokenStorage:
            return MyStorage(self.path)

Not here: what survives the process, and who else may read it.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from cachemesh.auth.token import Token

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.auth.ports import Kept, TokenStorage

PLAIN: Final = Token(access_token="first")  # noqa: S106 (no secret)
FULL: Final = Token(
    access_token="".join(chr(code) for code in range(0x20, 0x7F)),
    refresh_token="r" * 4_000,
    expires_at=1_767_225_600.25,
    scopes=("read", "write"),
    token_type="Bearer",  # noqa: S106 (the name of a kind)
    metadata={"sub": "ada", "n": [1, 2.5, None, True, {"ü": "\u2028\x00"}]},
)
CANARY: Final = Token(access_token="canary-access", refresh_token="canary-refresh")  # noqa: S106 (no secrets)
WAIT_S: Final = 10.0
LONG_S: Final = 60.0
SHORT_S: Final = 0.2


class TokenStorageContract:
    """Subclass it and say how a storage is made; pytest does the rest.

    `make_storage` answers a storage at an empty place, anew for each test;
    `make_peer` another object at the place of that one, where there can be one.
    """

    def make_storage(self) -> TokenStorage:
        """An empty storage."""
        raise NotImplementedError

    def make_peer(self, storage: TokenStorage) -> TokenStorage:
        """Another one at the same place."""
        return storage

    def test_an_empty_storage_has_no_token_and_a_version(self) -> None:
        """It can be written to with that version."""
        storage = self.make_storage()
        first = storage.read()

        assert first.token is None
        assert storage.read() == first
        assert storage.swap(first.version, PLAIN) is not None

    def test_what_was_kept_is_read_by_all(self) -> None:
        """Each field of it, and the version that `swap` has answered."""
        storage = self.make_storage()
        peer = self.make_peer(storage)
        for token in (PLAIN, FULL):
            version = storage.swap(storage.read().version, token)

            for each in (storage, peer):
                assert_kept(each.read(), token, version)

    def test_each_write_and_each_removal_makes_the_version_grow(self) -> None:
        """A removal of nothing as well."""
        storage = self.make_storage()
        seen = [storage.read().version]
        for token in (None, PLAIN, PLAIN, None, None, FULL):
            version = storage.swap(seen[-1], token)
            assert version is not None
            seen.append(version)

        assert seen == sorted(set(seen))
        assert storage.read().version == seen[-1]

    def test_who_has_an_old_version_writes_nothing(self) -> None:
        """Also where the token is the same as before: it is the version that counts."""
        storage = self.make_storage()
        peer = self.make_peer(storage)
        empty = storage.read().version
        first = storage.swap(empty, PLAIN)
        assert first is not None
        second = peer.swap(first, PLAIN)

        for old in (empty, first, -1, first + 10**18):
            for late in (FULL, None):
                assert storage.swap(old, late) is None
        assert_kept(storage.read(), PLAIN, second)

    def test_a_removed_token_is_gone(self) -> None:
        """For all; and a write that began before the removal does not bring it back."""
        storage = self.make_storage()
        peer = self.make_peer(storage)
        before = storage.swap(storage.read().version, FULL)
        assert before is not None
        removed = peer.swap(before, None)

        assert storage.swap(before, PLAIN) is None
        assert_kept(storage.read(), None, removed)

    def test_of_those_who_write_at_once_one_is_first(self) -> None:
        """In each of ten rounds, of eight threads; all of them then read what that one has written."""
        storage = self.make_storage()
        peers = [storage, *(self.make_peer(storage) for _ in range(7))]
        with ThreadPoolExecutor(len(peers)) as threads:
            for _ in range(10):
                expected = storage.read().version
                together = threading.Barrier(len(peers))

                def swapped(
                    number: int, expected: int = expected, together: threading.Barrier = together
                ) -> tuple[int | None, Token]:
                    token = Token(access_token=f"of-{number}")
                    together.wait(WAIT_S)
                    return peers[number].swap(expected, token), token

                answers = list(threads.map(swapped, range(len(peers))))
                won = [(version, token) for version, token in answers if version is not None]

                assert len(won) == 1
                for each in peers:
                    assert_kept(each.read(), won[0][1], won[0][0])

    def test_one_at_a_time_has_the_right_to_refresh(self) -> None:
        """Whoever gives it back makes room for the next, once."""
        storage = self.make_storage()
        peer = self.make_peer(storage)
        for _ in range(3):
            give_back = right_of(storage, LONG_S)
            assert storage.try_lock(LONG_S) is None
            assert peer.try_lock(LONG_S) is None
            give_back()

        taken = right_of(peer, LONG_S)
        give_back()
        assert storage.try_lock(LONG_S) is None, "it was given back twice, the second time by who had it no more"
        taken()

    def test_the_right_is_given_back_from_any_thread(self) -> None:
        """The keeper's threads are no particular ones."""
        storage = self.make_storage()
        give_back = right_of(storage, LONG_S)
        thread = threading.Thread(target=give_back)
        thread.start()
        thread.join(WAIT_S)

        assert_free(storage)

    def test_the_right_ends_when_its_time_is_up(self) -> None:
        """Its holder may hang. When it gives back at last, the next one's right is not touched."""
        storage = self.make_storage()
        peer = self.make_peer(storage)
        late = right_of(storage, SHORT_S)
        taken = waited_for(lambda: peer.try_lock(LONG_S))
        late()

        assert storage.try_lock(LONG_S) is None
        taken()
        assert_free(storage)

    def test_the_right_keeps_nobody_from_reading_and_writing(self) -> None:
        """Who signs out does not wait for a refresh."""
        storage = self.make_storage()
        peer = self.make_peer(storage)
        give_back = right_of(storage, LONG_S)

        version = peer.swap(peer.read().version, PLAIN)
        assert_kept(peer.read(), PLAIN, version)
        give_back()

    def test_a_repr_has_no_secret(self) -> None:
        """That of the storage, which may be logged."""
        storage = self.make_storage()
        storage.swap(storage.read().version, CANARY)

        assert "canary" not in repr(storage)
        assert "canary" not in repr(storage.read())


def assert_kept(kept: Kept, token: Token | None, version: int | None) -> None:
    """That this is what `swap` has kept."""
    assert version is not None
    assert (kept.token, kept.version) == (token, version)
    if token is not None:
        assert kept.token is not None
        assert kept.token.model_dump() == token.model_dump()


def right_of(storage: TokenStorage, holds_s: float) -> Callable[[], None]:
    """The right to refresh, which nobody has."""
    give_back = storage.try_lock(holds_s)
    assert give_back is not None
    return give_back


def assert_free(storage: TokenStorage) -> None:
    """That nobody has the right to refresh."""
    right_of(storage, LONG_S)()


def waited_for(ask: Callable[[], Callable[[], None] | None]) -> Callable[[], None]:
    """The first answer of `ask` that is not None."""
    ends_at = time.monotonic() + WAIT_S
    while time.monotonic() < ends_at:
        found = ask()
        if found is not None:
            return found
        time.sleep(0.01)
    msg = f"there was none within {WAIT_S} s"
    raise AssertionError(msg)
