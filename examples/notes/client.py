"""The client: somebody's notes, with the server or without it. This is what you would write."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Self

import httpx2
from note import Note, Notebook
from returns.pipeline import is_successful
from returns.result import Failure, Result, Success

from cachemesh import Cache, CacheScope, Lifetime
from cachemesh.auth import (
    FileTokenStorage,
    KeeperAuth,
    OAuthClient,
    OAuthRefresher,
    TokenKeeper,
    finish_sign_in,
)
from cachemesh.sources import Backoff, HttpSource, NetworkFailure, ReconnectOptions, WebSocketSource
from cachemesh.stores import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cachemesh import CacheError, Refused, Served, Watch
    from cachemesh.auth import OAuthFailure, Token, TokenError
    from cachemesh.sources import Feed

    Progress = Callable[[int, int | None], object]

KEY: Final = "notes"

PUSHED: Final = Lifetime(ttl="5s", serve_stale_for="30s", stale_if_error_for="1d")
"""What the server pushes lives as long as what it answers, where it says so itself."""


class NotesClient:
    """Somebody's notes. All that is to outlive the program is in `folder`; nobody else can read the token there."""

    def __init__(self, url: str, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._oauth = OAuthClient(f"{url}/token", "notes", clock=clock)
        self.keeper = TokenKeeper(
            OAuthRefresher(self._oauth), storage=FileTokenStorage(folder / "token.json"), clock=clock
        )
        self.cache = Cache(
            store=SqliteStore(folder / "cache.db", clock=clock),
            token_keeper=self.keeper,
            clock=clock,
        )
        self._source = HttpSource(
            url,
            auth=KeeperAuth(self.keeper, url),
            retry=Backoff(max_attempts=4, delay="100ms"),
            timeout="10s",
        )
        self._fetch = self._source.token_fetcher("/notes", parser=Notebook)
        self._pushed = WebSocketSource(
            f"{url}/live",
            parser=Notebook,
            token_keeper=self.keeper,
            reconnect=ReconnectOptions(delay="200ms", max_delay="2s"),
        )
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self.keeper)
        await self._open.enter_async_context(self._source)
        await self._open.enter_async_context(self.cache)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    # Who

    @property
    def user(self) -> str | None:
        """Who is signed in."""
        return self.cache.active_user_id

    async def sign_in(self, name: str) -> Result[Token, NetworkFailure | OAuthFailure | TokenError]:
        """A browser would show the page at `url`, and come back to the program when the user is done there."""
        begun = self._oauth.begin(f"{self._url}/authorize", "http://127.0.0.1/signed-in", login_hint=name)
        answer = await browsed(begun.url)
        if not is_successful(answer):
            return Failure(answer.failure())
        token = await finish_sign_in(self._oauth, begun, answer.unwrap())
        return await self.keeper.set_tokens(token.unwrap()) if is_successful(token) else token

    async def sign_out(self) -> Result[None, TokenError]:
        """The token goes, and all that was cached for its user, in memory and in the file."""
        return await self.keeper.sign_out()

    # What

    async def notes(self) -> Result[Served[Notebook], Refused[NetworkFailure | CacheError]]:
        """The notes, and how old they are: from the cache, as the server allows it, or else from the server."""
        return await self.cache.get_authenticated_served(KEY, self._fetch, **self._fetch.options)

    def watch(self) -> Watch[Notebook, NetworkFailure]:
        """The news of the notes, wherever they come from, until the user leaves."""
        return self.cache.watch(KEY, scope=CacheScope.USER)

    def live(self, on_failure: Callable[[object], object]) -> Feed[Notebook]:
        """While its block lasts, the server pushes what changes into the cache, until the user leaves."""
        return self._pushed.feed(self.cache, key=KEY, scope=CacheScope.USER, ttl=PUSHED, on_failure=on_failure)

    async def write(self, note: Note) -> Result[Note, NetworkFailure]:
        """Write a note, or write it anew. What is cached follows at once, though the server has not been asked."""
        user = self.user
        written = await self._source.put(f"/notes/{note.id}", json=note.model_dump(), parser=Note)
        if is_successful(written) and user is not None:
            mine = self.cache.for_user(user)  # By now somebody else may have signed in.
            mine.update(KEY, lambda notes: with_note(notes, note), scope=CacheScope.USER)
        return written

    async def draw(self, note: Note, picture: Path, progress: Progress) -> Result[None, NetworkFailure]:
        """Send a picture that belongs to a note."""
        return await self._source.upload(
            f"/notes/{note.id}/picture", picture, method="PUT", progress=progress, parser=None
        )

    async def look(self, note: Note, picture: Path, progress: Progress) -> Result[int, NetworkFailure]:
        """Bring the picture of a note; how many bytes it has."""
        return await self._source.download(f"/notes/{note.id}/picture", picture, progress=progress)


def with_note(notes: Notebook, note: Note) -> Notebook:
    """`notes`, with `note` in its place, or at the end."""
    return tuple({each.id: each for each in (*notes, note)}.values())


async def browsed(url: str) -> Result[str, NetworkFailure]:
    """Where a browser that was sent to `url` ends up."""
    try:
        async with httpx2.AsyncClient() as browser:
            response = await browser.get(url)
    except httpx2.HTTPError as error:
        return Failure(NetworkFailure.of_exception(error))
    return Success(response.headers["location"])
