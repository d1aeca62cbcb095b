"""A fetcher that is handed a token. The keeper refreshes the token and tries again by itself; that is counted here.

A keeper looks at what it gets ("unauthorized"?), so that is always a `Result`,
also where the fetcher returns an `IOResult`.
"""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from returns.result import Failure

from cachemesh.errors import NoActiveUser
from cachemesh.shell.outcomes import Answer, without_io

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cachemesh.shell.identity import Identity
    from cachemesh.shell.ports import SyncTokenKeeperAdapter, TokenKeeperAdapter


class AuthenticatedFetch:
    """Runs `fetch` with the keeper's token, for either face: what it returns is passed on as it is.

    `is_spent`: in the last attempt the keeper has tried more than once. A
    failure is then final: the cache's retries must not multiply with the
    keeper's. Once the keeper's `identity` has changed, `fetch` is not run any
    more: it was somebody else who asked.
    """

    __slots__ = ("_changes", "_fetch", "_identity", "_keeper", "_refused", "is_spent")

    def __init__(
        self,
        keeper: TokenKeeperAdapter | SyncTokenKeeperAdapter,
        fetch: Callable[..., Any],
        refused: Callable[..., Any],
        identity: Identity | None,
    ) -> None:
        self._keeper = keeper
        self._fetch = fetch
        self._refused = refused
        self._identity = identity
        self._changes = 0 if identity is None else identity.changes
        self.is_spent = False

    def __call__(self, *previous: Any) -> Any:  # noqa: ANN401 (a Result, or an awaitable of one; a `Previous` or None)
        tries = 0
        self.is_spent = False

        def action(token: str) -> Any:  # noqa: ANN401 (as above)
            nonlocal tries
            tries += 1
            self.is_spent = tries > 1
            has_changed = self._identity is not None and self._identity.changes != self._changes
            return (self._refused if has_changed else self._fetch)(token, *previous)

        return self._keeper.with_valid_token(action)


def refusing(key: str) -> Callable[..., Answer]:
    """A fetcher for who has left meanwhile."""
    return lambda *_: Failure(NoActiveUser(key))


def answering_results(fetch: Callable[..., Any]) -> Callable[..., object]:
    """`fetch`, its answer taken out of IO."""
    return lambda *arguments: without_io(fetch(*arguments))


def awaiting_results(fetch: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, object]]:
    """`fetch`, awaited where it is awaitable, its answer taken out of IO."""

    async def fetched(*arguments: object) -> object:
        got = fetch(*arguments)
        return without_io(await got if isawaitable(got) else got)

    return fetched
