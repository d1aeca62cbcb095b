"""Keepers whose process is killed, whose storage fails; and where their secrets are not."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import TYPE_CHECKING

import pytest
from keyring.backends.fail import Keyring as NoKeyring
from returns.result import Failure, Result, Success

from cachemesh import Cache
from cachemesh.auth import NotSignedIn, SyncTokenKeeper, TokenKeeper, TokenStorageFailed
from cachemesh.auth.oauth import ClientCredentials, OAuthClient, OAuthRefresher, SyncClientCredentials
from cachemesh.auth.storages import KeyringTokenStorage, MemoryTokenStorage, TokenStorageError
from cachemesh.auth.token import Token
from tests.auth.processes import begun, signed_in
from tests.auth.servers import CLIENT_ID, CLIENT_SECRET, OAuthServer, serving
from tests.auth.storage_children import storage_at
from tests.auth.token_children import SyncUser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server() -> Iterator[OAuthServer]:
    with serving() as running:
        yield running


# Whoever is killed


def user_of(kind: str, folder: Path, server: OAuthServer) -> SyncUser:
    return SyncUser(storage_at(kind, folder), server.url)


@pytest.mark.parametrize(("face", "kind"), [("async", "file"), ("sync", "sqlite"), ("async", "keyring")])
def test_tk6_whoever_is_killed_after_writing_has_refreshed_for_all(
    face: str, kind: str, server: OAuthServer, tmp_path: Path
) -> None:
    """Nobody waits for the dead, and nobody refreshes again."""
    signed_in(server, kind, tmp_path, expires_in=0)
    child = begun("die", face, kind, tmp_path, server.url, "after")
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL

    user = user_of(kind, tmp_path, server)
    assert user.get() == {"ok": 1}
    assert server.refreshes == 1
    assert server.reuses == 0
    user.client.close()
    user.keeper.close()


@pytest.mark.parametrize("kind", ["file", "sqlite"])
@pytest.mark.parametrize("rotates", [True, False])
def test_tk6_whoever_is_killed_before_writing_loses_no_more_than_the_server_took(
    rotates: bool, kind: str, server: OAuthServer, tmp_path: Path
) -> None:
    """The token that it received was never used: it was not stored.

    The next process goes on at once with the refresh token that is stored. A server
    that had taken that back takes it for stolen: that, and nothing less, signs the user out.
    """
    server.rotates = rotates
    signed_in(server, kind, tmp_path, expires_in=0)
    child = begun("die", "async", kind, tmp_path, server.url, "before")
    child.communicate(timeout=30)
    assert child.returncode == -signal.SIGKILL
    assert server.refreshes == 1
    assert server.calls("/resource") == 0, "the only copy of the new token was in memory, and in use"

    user = user_of(kind, tmp_path, server)
    began = time.monotonic()
    seen = user.get()
    assert time.monotonic() - began < 10, "the right to refresh of a killed process is free at once"
    if rotates:
        assert (server.refreshes, server.reuses) == (1, 1)
        (shown,) = seen
        assert "invalid_grant" in shown
        assert user.keeper.peek() == Failure(NotSignedIn())
        assert storage_at(kind, tmp_path).read().token is None
    else:
        assert seen == {"ok": 1}
        assert server.refreshes == 2
    user.client.close()
    user.keeper.close()


class FailingStorage(MemoryTokenStorage):
    """Refuses writes while it is told to."""

    fails = False

    def swap(self, expected: int, token: Token | None, /) -> int | None:
        if self.fails:
            msg = "no space left"
            raise TokenStorageError(msg)
        return super().swap(expected, token)


def test_tk6_a_token_that_could_not_be_stored_is_not_used_and_not_lost(server: OAuthServer) -> None:
    """It is stored when the storage takes it; the server is not asked again."""
    storage = FailingStorage(Token.from_response(server.sign_in(expires_in=0), time.time()).unwrap())
    user = SyncUser(storage, server.url)
    storage.fails = True
    (shown,) = user.get()
    assert shown.startswith(f"{TokenStorageFailed('swap', TokenStorageError('x'))!r}")
    assert server.calls("/resource") == 0

    storage.fails = False
    assert user.get() == {"ok": 1}
    assert (server.refreshes, server.reuses) == (1, 0)
    user.client.close()
    user.keeper.close()


def test_without_a_backend_of_the_keyring_each_answer_says_so(server: OAuthServer, tmp_path: Path) -> None:
    storage = KeyringTokenStorage("app", backend=NoKeyring(), lock_folder=tmp_path)  # type: ignore[no-untyped-call]
    user = SyncUser(storage, server.url)
    (shown,) = user.get()

    assert shown.startswith("TokenStorageFailed('read', TokenStorageError)")
    assert "NoKeyringError" in shown
    user.client.close()
    user.keeper.close()


# Secrets


def test_se10_no_token_is_in_a_snapshot_or_a_repr_or_a_file(server: OAuthServer, tmp_path: Path) -> None:
    """Of the keeper, its state, the cache that it serves; through a refresh, in memory only."""
    token = Token.from_response(server.sign_in(expires_in=0) | {"sub": "ada"}, time.time()).unwrap()

    async def main() -> list[str]:
        oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, CLIENT_SECRET)
        keeper = TokenKeeper(OAuthRefresher(oauth))
        cache = Cache(token_keeper=keeper)
        used: list[str] = []

        async def fetch(access_token: str) -> Result[str, str]:
            used.append(access_token)
            return Success("value")

        async with keeper:
            (await keeper.set_tokens(token)).unwrap()
            events = keeper.events()
            assert await cache.get_authenticated("key", fetch) == Success("value")
            assert len(used) == 1
            assert used[0].startswith("access-canary")
            event = await anext(events)
            await events.aclose()
            texts = [
                repr(each)
                for each in (
                    keeper,
                    keeper._runtime.state,
                    event,
                    cache,
                    oauth,
                    await keeper.peek(),
                )
            ]
            snapshot = await cache.dehydrate() if asyncio.iscoroutinefunction(cache.dehydrate) else cache.dehydrate()
        return [*texts, snapshot if isinstance(snapshot, str) else json.dumps(snapshot, default=repr)]

    for text in asyncio.run(main()):
        assert "canary" not in text
        assert CLIENT_SECRET not in text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_program_signs_in_for_itself_once(server: OAuthServer, tmp_path: Path) -> None:
    """Both faces: the first token, one that is still valid, and one that has expired."""
    oauth = OAuthClient(f"{server.url}/token", CLIENT_ID, CLIENT_SECRET)
    server.lifetime_s = 7

    async def main() -> None:
        credentials = ClientCredentials(oauth)
        async with TokenKeeper(credentials, storage=storage_at("file", tmp_path)) as keeper:
            first = (await credentials.sign_in(keeper)).unwrap()
            assert (await credentials.sign_in(keeper)).unwrap() == first
            assert server.credentials == 1
            assert (await keeper.force_refresh()).unwrap() != first
            assert server.credentials == 2

    asyncio.run(main())
    credentials = SyncClientCredentials(oauth)
    with SyncTokenKeeper(credentials, storage=storage_at("file", tmp_path)) as keeper:
        kept = credentials.sign_in(keeper).unwrap()
        assert server.credentials == 2, "the token of the run before is used"
        assert keeper.force_refresh().unwrap() != kept
        keeper.sign_out().unwrap()
        credentials.sign_in(keeper).unwrap()
        assert server.credentials == 4
