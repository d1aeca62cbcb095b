"""Where tokens are kept. In clear only where that is chosen: a file, SQLite, or the keyring of the system.

Names are imported when they are first asked for. `TokenCipher` needs the extra
`encryption`, `KeyringTokenStorage` the extra `keyring`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cachemesh.auth.storages.cipher import TokenCipher
    from cachemesh.auth.storages.contract import TokenStorageContract
    from cachemesh.auth.storages.errors import TokenStorageError, UnreadableTokenError, UnsafeStorageError
    from cachemesh.auth.storages.file import FileTokenStorage
    from cachemesh.auth.storages.keyring import KeyringTokenStorage
    from cachemesh.auth.storages.memory import MemoryTokenStorage
    from cachemesh.auth.storages.sqlite import SqliteTokenStorage
else:
    from cachemesh._lazy import lazy

    __getattr__, __dir__ = lazy(
        globals(),
        {
            "cachemesh.auth.storages.cipher": "TokenCipher",
            "cachemesh.auth.storages.contract": "TokenStorageContract",
            "cachemesh.auth.storages.errors": "TokenStorageError UnreadableTokenError UnsafeStorageError",
            "cachemesh.auth.storages.file": "FileTokenStorage",
            "cachemesh.auth.storages.keyring": "KeyringTokenStorage",
            "cachemesh.auth.storages.memory": "MemoryTokenStorage",
            "cachemesh.auth.storages.sqlite": "SqliteTokenStorage",
        },
    )

__all__ = [
    "FileTokenStorage",
    "KeyringTokenStorage",
    "MemoryTokenStorage",
    "SqliteTokenStorage",
    "TokenCipher",
    "TokenStorageContract",
    "TokenStorageError",
    "UnreadableTokenError",
    "UnsafeStorageError",
]
