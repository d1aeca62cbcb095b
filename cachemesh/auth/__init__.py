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
        ReentrantRefresh,
        RefreshFailed,
        RefreshTimedOut,
        TokenError,
        TokenNotRefreshable,
        TokenStorageFailed,
    )
    from cachemesh.auth.events import FoundInStorage, NotRefreshed, Refreshed, SignedIn, SignedOut, TokenEvent
    from cachemesh.auth.keeper import TokenKeeper, TokenStream
    from cachemesh.auth.ports import Kept, Refresher, SyncRefresher, TokenStorage, Unauthorized
    from cachemesh.auth.storages.memory import MemoryTokenStorage
    from cachemesh.auth.sync_keeper import SyncTokenKeeper, SyncTokenStream
    from cachemesh.auth.timer import SyncTokenRefreshTimer, TokenRefreshTimer
    from cachemesh.auth.token import Token
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.auth.errors": (
                "InvalidRefreshResult InvalidToken KeeperClosed NotSignedIn ReentrantRefresh RefreshFailed "
                "RefreshTimedOut TokenError TokenNotRefreshable TokenStorageFailed"
            ),
            "cachemesh.auth.events": "FoundInStorage NotRefreshed Refreshed SignedIn SignedOut TokenEvent",
            "cachemesh.auth.keeper": "TokenKeeper TokenStream",
            "cachemesh.auth.ports": "Kept Refresher SyncRefresher TokenStorage Unauthorized",
            "cachemesh.auth.storages.memory": "MemoryTokenStorage",
            "cachemesh.auth.sync_keeper": "SyncTokenKeeper SyncTokenStream",
            "cachemesh.auth.timer": "SyncTokenRefreshTimer TokenRefreshTimer",
            "cachemesh.auth.token": "Token",
        },
    )

__all__ = [
    "FoundInStorage",
    "InvalidRefreshResult",
    "InvalidToken",
    "KeeperClosed",
    "Kept",
    "MemoryTokenStorage",
    "NotRefreshed",
    "NotSignedIn",
    "ReentrantRefresh",
    "RefreshFailed",
    "RefreshTimedOut",
    "Refreshed",
    "Refresher",
    "SignedIn",
    "SignedOut",
    "SyncRefresher",
    "SyncTokenKeeper",
    "SyncTokenRefreshTimer",
    "SyncTokenStream",
    "Token",
    "TokenError",
    "TokenEvent",
    "TokenKeeper",
    "TokenNotRefreshable",
    "TokenRefreshTimer",
    "TokenStorage",
    "TokenStorageFailed",
    "TokenStream",
    "Unauthorized",
]
