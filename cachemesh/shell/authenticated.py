"""A fetcher that is handed a token. The keeper refreshes the token and tries again by itself; that is counted here.

A keeper looks at what it gets ("unauthorized"?), so that is always a `Result`,
also where the fetcher returns an `IOResult`.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from cachemesh.shell.outcomes import without_io

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cachemesh.shell.ports import SyncTokenKeeperAdapter, TokenKeeperAdapter


class AuthenticatedFetch:
    """Runs `fetch` with the keeper's token, for either face: what it returns is passed on as it is.

    `is_spent`: in the last attempt the keeper has tried more than once. A
    failure is then final: the cache's retries must not multiply with the keeper's.
    """

    __slots__ = ("_fetch", "_keeper", "is_spent")

    def __init__(self, keeper: TokenKeeperAdapter | SyncTokenKeeperAdapter, fetch: Callable[..., Any]) -> None:
        self._keeper = keeper
        self._fetch = fetch
        self.is_spent = False

    def __call__(self, *previous: Any) -> Any:  # noqa: ANN401 (a Result, or an awaitable of one; a `Previous` or None)
        tries = 0
        self.is_spent = False

        def action(token: str) -> Any:  # noqa: ANN401 (as above)
            nonlocal tries
            tries += 1
            self.is_spent = tries > 1
            return self._fetch(token, *previous)

        return self._keeper.with_valid_token(action)


def answering_results(fetch: Callable[..., Any]) -> Callable[..., object]:
    """`fetch`, its answer taken out of IO."""
    return lambda *arguments: without_io(fetch(*arguments))


def awaiting_results(fetch: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, object]]:
    """`fetch`, awaited where it is awaitable, its answer taken out of IO."""

    async def fetched(*arguments: object) -> object:
        got = fetch(*arguments)
        return without_io(await got if isawaitable(got) else got)

    return fetched
