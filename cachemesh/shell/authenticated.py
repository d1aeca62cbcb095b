"""A fetcher that is handed a token. The keeper refreshes the token and tries again by itself; that is counted here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachemesh.shell.ports import SyncTokenKeeperAdapter, TokenKeeperAdapter


class AuthenticatedFetch:
    """Runs `fetch` with the keeper's token, for either face: what it returns is passed on as it is.

    `is_spent`: in the last attempt the keeper has tried more than once. A
    failure is then final: the cache's retries must not multiply with the keeper's.
    """

    __slots__ = ("_fetch", "_keeper", "is_spent")

    def __init__(self, keeper: TokenKeeperAdapter | SyncTokenKeeperAdapter, fetch: Callable[[str], Any]) -> None:
        self._keeper = keeper
        self._fetch = fetch
        self.is_spent = False

    def __call__(self) -> Any:  # noqa: ANN401 (a Result, or an awaitable of one)
        tries = 0
        self.is_spent = False

        def action(token: str) -> Any:  # noqa: ANN401 (as above)
            nonlocal tries
            tries += 1
            self.is_spent = tries > 1
            return self._fetch(token)

        return self._keeper.with_valid_token(action)
