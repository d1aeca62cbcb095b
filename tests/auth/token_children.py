"""What tests of keepers let other processes do: `python token_children.py ROLE FACE KIND FOLDER URL ARGUMENTS`.

Each prints what it saw as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx2
from returns.result import Failure, Result, Success

from cachemesh.auth import SyncTokenKeeper, Token, TokenKeeper
from cachemesh.auth.oauth import OAuthClient, OAuthRefresher, SyncOAuthRefresher
from tests.auth.servers import CLIENT_ID, CLIENT_SECRET
from tests.auth.storage_children import storage_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachemesh.auth.ports import Kept, TokenStorage


class AsyncUser:
    """Someone with a keeper, in a loop."""

    def __init__(self, storage: TokenStorage, url: str, **settings: Any) -> None:
        self.runner = asyncio.Runner()
        self.url = url
        self.client = httpx2.AsyncClient(timeout=30)
        refresher = OAuthRefresher(OAuthClient(f"{url}/token", CLIENT_ID, CLIENT_SECRET), client=self.client)
        self.keeper = TokenKeeper(refresher, storage=storage, **settings)

    def get(self, times: int = 1) -> Counter[str]:
        """What so many requests at once come to."""

        async def action(token: str) -> Result[str, int]:
            response = await self.client.get(f"{self.url}/resource", headers={"Authorization": f"Bearer {token}"})
            return Success("ok") if response.status_code == 200 else Failure(response.status_code)

        async def main() -> Counter[str]:
            answers = await asyncio.gather(*(self.keeper.with_valid_token(action) for _ in range(times)))
            return Counter(map(shown, answers))

        return self.runner.run(main())


class SyncUser:
    """The same without a loop."""

    def __init__(self, storage: TokenStorage, url: str, **settings: Any) -> None:
        self.url = url
        self.client = httpx2.Client(timeout=30)
        refresher = SyncOAuthRefresher(OAuthClient(f"{url}/token", CLIENT_ID, CLIENT_SECRET), client=self.client)
        self.keeper = SyncTokenKeeper(refresher, storage=storage, **settings)

    def get(self, times: int = 1) -> Counter[str]:
        """What so many requests come to, one after the other."""

        def action(token: str) -> Result[str, int]:
            response = self.client.get(f"{self.url}/resource", headers={"Authorization": f"Bearer {token}"})
            return Success("ok") if response.status_code == 200 else Failure(response.status_code)

        return Counter(shown(self.keeper.with_valid_token(action)) for _ in range(times))


User = AsyncUser | SyncUser
FACES: Final[Mapping[str, type[User]]] = {"async": AsyncUser, "sync": SyncUser}


def shown(answer: Result[str, Any]) -> str:
    """What an answer is counted as."""
    if isinstance(answer, Success):
        return "ok"
    error = answer.failure()
    return f"{error!r} {getattr(error, 'error', '')!r}"


class DyingStorage:
    """Is killed around a write: `when` is "before" it or "after" it."""

    is_near = False

    def __init__(self, storage: TokenStorage, when: str) -> None:
        self.storage = storage
        self.when = when
        self.read: Callable[[], Kept] = storage.read
        self.try_lock = storage.try_lock

    def swap(self, expected: int, token: Token | None, /) -> int | None:
        if self.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        self.storage.swap(expected, token)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def told(**facts: object) -> None:
    print(json.dumps(facts), flush=True)  # noqa: T201 (what the parent reads)


def ready() -> None:
    """Say so, and wait until all are."""
    print("ready", flush=True)  # noqa: T201 (as above)
    sys.stdin.readline()


def use(face: str, storage: TokenStorage, url: str, times: str) -> None:
    """At the same time as the others, use the token."""
    user = FACES[face](storage, url)
    ready()
    told(**user.get(int(times)))


def use_on(face: str, storage: TokenStorage, url: str, seconds: str) -> None:
    """Use the token again and again, for so many seconds."""
    user = FACES[face](storage, url, leeway=0)
    seen: Counter[str] = Counter()
    ready()
    ends_at = time.monotonic() + float(seconds)
    while time.monotonic() < ends_at:
        seen += user.get()
        time.sleep(0.001)
    told(**seen)


def die(face: str, storage: TokenStorage, url: str, when: str) -> None:
    """Refresh, and be killed around the write of what came of it."""
    user = FACES[face](DyingStorage(storage, when), url)
    told(**user.get())


ROLES: Final[Mapping[str, Callable[..., None]]] = {each.__name__: each for each in (use, use_on, die)}

if __name__ == "__main__":
    role, face, kind, folder, *arguments = sys.argv[1:]
    ROLES[role](face, storage_at(kind, Path(folder)), *arguments)
