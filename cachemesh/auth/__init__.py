"""Tokens: kept, refreshed once for all who ask, and taken away with their user. OAuth 2 needs the extra `auth`.

Names are imported when they are first asked for. `KeyringTokenStorage` needs the extra `keyring`,
`TokenCipher` the extra `encryption`.
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
    from cachemesh.auth.http import KeeperAuth, TokenUnavailable
    from cachemesh.auth.keeper import TokenKeeper, TokenStream
    from cachemesh.auth.oauth import (
        ClientCredentials,
        OAuthClient,
        OAuthRefresher,
        SignIn,
        SyncClientCredentials,
        SyncOAuthRefresher,
        finish_sign_in,
        finish_sign_in_sync,
    )
    from cachemesh.auth.oauth_failure import OAuthFailure
    from cachemesh.auth.ports import Kept, Refresher, SyncRefresher, TokenStorage, Unauthorized
    from cachemesh.auth.storages.cipher import TokenCipher
    from cachemesh.auth.storages.contract import TokenStorageContract
    from cachemesh.auth.storages.errors import TokenStorageError, UnreadableTokenError, UnsafeStorageError
    from cachemesh.auth.storages.file import FileTokenStorage
    from cachemesh.auth.storages.keyring import KeyringTokenStorage
    from cachemesh.auth.storages.memory import MemoryTokenStorage
    from cachemesh.auth.storages.sqlite import SqliteTokenStorage
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
            "cachemesh.auth.http": "KeeperAuth TokenUnavailable",
            "cachemesh.auth.keeper": "TokenKeeper TokenStream",
            "cachemesh.auth.oauth": (
                "ClientCredentials OAuthClient OAuthRefresher SignIn SyncClientCredentials SyncOAuthRefresher "
                "finish_sign_in finish_sign_in_sync"
            ),
            "cachemesh.auth.oauth_failure": "OAuthFailure",
            "cachemesh.auth.ports": "Kept Refresher SyncRefresher TokenStorage Unauthorized",
            "cachemesh.auth.storages.cipher": "TokenCipher",
            "cachemesh.auth.storages.contract": "TokenStorageContract",
            "cachemesh.auth.storages.errors": "TokenStorageError UnreadableTokenError UnsafeStorageError",
            "cachemesh.auth.storages.file": "FileTokenStorage",
            "cachemesh.auth.storages.keyring": "KeyringTokenStorage",
            "cachemesh.auth.storages.memory": "MemoryTokenStorage",
            "cachemesh.auth.storages.sqlite": "SqliteTokenStorage",
            "cachemesh.auth.sync_keeper": "SyncTokenKeeper SyncTokenStream",
            "cachemesh.auth.timer": "SyncTokenRefreshTimer TokenRefreshTimer",
            "cachemesh.auth.token": "Token",
        },
    )

__all__ = [
    "ClientCredentials",
    "FileTokenStorage",
    "FoundInStorage",
    "InvalidRefreshResult",
    "InvalidToken",
    "KeeperAuth",
    "KeeperClosed",
    "Kept",
    "KeyringTokenStorage",
    "MemoryTokenStorage",
    "NotRefreshed",
    "NotSignedIn",
    "OAuthClient",
    "OAuthFailure",
    "OAuthRefresher",
    "ReentrantRefresh",
    "RefreshFailed",
    "RefreshTimedOut",
    "Refreshed",
    "Refresher",
    "SignIn",
    "SignedIn",
    "SignedOut",
    "SqliteTokenStorage",
    "SyncClientCredentials",
    "SyncOAuthRefresher",
    "SyncRefresher",
    "SyncTokenKeeper",
    "SyncTokenRefreshTimer",
    "SyncTokenStream",
    "Token",
    "TokenCipher",
    "TokenError",
    "TokenEvent",
    "TokenKeeper",
    "TokenNotRefreshable",
    "TokenRefreshTimer",
    "TokenStorage",
    "TokenStorageContract",
    "TokenStorageError",
    "TokenStorageFailed",
    "TokenStream",
    "TokenUnavailable",
    "Unauthorized",
    "UnreadableTokenError",
    "UnsafeStorageError",
    "finish_sign_in",
    "finish_sign_in_sync",
]
