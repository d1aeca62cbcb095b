"""Tokens: kept, refreshed once for all who ask, and taken away with their user. OAuth 2 needs the extra `auth`.

Names are imported when they are first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.auth.errors import (
        InvalidRefreshResult,
        InvalidToken,
        KeeperClosed,
        NotSignedIn,
        RefreshFailed,
        RefreshTimedOut,
        TokenError,
        TokenNotRefreshable,
        TokenStorageFailed,
    )
    from cachemesh.auth.ports import Kept, Refresher, SyncRefresher, TokenStorage, Unauthorized
    from cachemesh.auth.storages.memory import MemoryTokenStorage
    from cachemesh.auth.token import Token
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.auth.errors": (
                "InvalidRefreshResult InvalidToken KeeperClosed NotSignedIn RefreshFailed RefreshTimedOut TokenError "
                "TokenNotRefreshable TokenStorageFailed"
            ),
            "cachemesh.auth.ports": "Kept Refresher SyncRefresher TokenStorage Unauthorized",
            "cachemesh.auth.storages.memory": "MemoryTokenStorage",
            "cachemesh.auth.token": "Token",
        },
    )

__all__ = [
    "InvalidRefreshResult",
    "InvalidToken",
    "KeeperClosed",
    "Kept",
    "MemoryTokenStorage",
    "NotSignedIn",
    "RefreshFailed",
    "RefreshTimedOut",
    "Refresher",
    "SyncRefresher",
    "Token",
    "TokenError",
    "TokenNotRefreshable",
    "TokenStorage",
    "TokenStorageFailed",
    "Unauthorized",
]
